"""Noise loops: closed random paths on which every latent is as likely as any other."""

import math

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelsError, SeedsInvalid
from models.latents.seeds import SEED_MAX

MAX_RADIUS = 20.0  # of kernel widths: the way round then passes a hundred pictures that have nothing in common
WIDTH = 10  # standard deviations of the spectrum that are kept; what lies beyond is less than float64 can add


def noise_loop(seed: int, z_dim: int, frames: int, radius: float, turns: int = 1) -> NDArray[np.float32]:
    """A loop of latents, [frames, z_dim], each N(0, I): a Gaussian field with the kernel exp(-|x - y|^2 / 2), read on
    a circle of `radius`. The larger it is, the more changes on the way round; 0 is one latent that stays.

    Round the circle the kernel is exp(radius^2 (cos(angle) - 1)), and its Fourier coefficients p_k are the variances of
    the waves (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, 4.2.1):
    z(t) = sum over k of sqrt(p_k) (a_k cos(2 pi k t) + b_k sin(2 pi k t)).
    RandomState(seed).randn(z_dim) draws a_0, which is the seed's own latent, then a_1, b_1, a_2, b_2 ...; so loops of
    one seed and several radii are of one family. `turns`: times round the circle; after each the path repeats.
    """
    if not 0 <= seed <= SEED_MAX:
        raise SeedsInvalid(f"Seed {seed} is not from 0 to {SEED_MAX}.")
    if not 0 <= radius <= MAX_RADIUS:
        raise ModelsError(f"Radius {radius} is not from 0 to {MAX_RADIUS:g}.")
    if frames < 1 or turns < 1:
        raise ModelsError(f"{frames} frames and {turns} turns: a loop has one of each at least.")
    chance = np.random.RandomState(seed)
    # Places on the circle are counted, not measured: a full turn ends exactly where it began.
    cosines = np.array([math.cos(2 * math.pi * place / frames) for place in range(frames)])
    sines = np.array([math.sin(2 * math.pi * place / frames) for place in range(frames)])
    first, *others = spectrum(radius)
    z = np.tile(math.sqrt(first) * chance.randn(z_dim), (frames, 1))
    for k, variance in enumerate(others, start=1):
        places = k * turns * np.arange(frames) % frames
        a, b = chance.randn(z_dim), chance.randn(z_dim)
        z += math.sqrt(variance) * (cosines[places, None] * a + sines[places, None] * b)
    return z.astype(np.float32)


def spectrum(radius: float) -> list[float]:
    """p_0, p_1 ... of exp(r^2 (cos(angle) - 1)) = sum over k of p_k cos(k angle); they add up to 1.

    p_k is I_k(r^2) exp(-r^2), twice that from k = 1 on (Abramowitz and Stegun, 1964, 9.6.34). The ratios of Bessel
    functions I_k / I_(k-1) come from their recurrence, run downwards, where it is stable (9.12): no table, no library,
    the same bits on every machine.
    """
    x = radius * radius
    count = math.ceil(WIDTH * (radius + 1))
    ratios = [0.0] * (count + 1)
    for k in range(count - 1, 0, -1):
        ratios[k] = x / (2 * k + x * ratios[k + 1])
    relative = [1.0]
    for k in range(1, count):
        relative.append((2 if k == 1 else 1) * relative[-1] * ratios[k])
    total = math.fsum(relative)
    return [value / total for value in relative]
