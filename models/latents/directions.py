"""Directions in w along which pictures change: found without labels, and carried from one checkpoint to a later one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.errors import ModelsError
from models.latents.samples import sample_w
from models.networks.generator import Generator

Numbers = NDArray[np.float32]

SAMPLES = 10_000  # of w; its standard deviations are then known to a hundredth
MATCH_PICTURES = 32  # that a direction is tried on
MATCH_SIDE = 16  # pixels a side of what is compared
# Score from which a direction is the same. Unrelated networks that paint the same pictures reached 0.28. In a training
# of 230 kimg, 40 kimg later the least of 24 directions had 0.32, the median 0.5; 150 kimg later, 7 of 12 were lost.
MATCHED = 0.3


class Directions(NamedTuple):
    """Directions in w, the most telling first. A slider's amount is counted in `sigma`, so that 1 is as much as
    pictures differ anyway."""

    vectors: Numbers  # [count, w_dim], at right angles, of length 1; of each, the largest component is positive
    sigma: Numbers  # [count], the standard deviation of w along each
    share: Numbers  # [count], the part of w's variance that lies along each


def style_weights(generator: Generator) -> list[Tensor]:
    """What acts on each layer of w first, [outputs, w_dim] for each of num_ws layers."""
    weights: list[Tensor] = generator.synthesis.style_weights()  # type: ignore[operator]
    return weights


def sefa(generator: Generator, count: int, layers: Sequence[int] | None = None, samples: int = SAMPLES) -> Directions:
    """The directions to which the networks' first weights A answer most: eigenvectors of A^T A, those of the largest
    eigenvalues. Closed-form factorisation, Shen and Zhou, arXiv:2007.06600, eq. 4.

    A: style_weights of the layers (None: all), one below the other, as they are: with rows brought to one length, the
    bundled model's ten strongest stay the same (cosines from 0.99). In all layers, its pictures bear 2 sigma each way;
    in the last two alone, which colour what the others drew, 3.
    """
    weights = style_weights(generator)
    _require(count, generator, layers)
    a = torch.cat([weights[layer] for layer in (range(len(weights)) if layers is None else layers)]).double()
    return _along(_strongest((a.T @ a).detach().cpu(), count), _covariance(sample_w(generator, samples)))


def pca(generator: Generator, count: int, samples: int = SAMPLES, seed: int = 0) -> Directions:
    """The directions in which w varies most: principal components of `samples` w. GANSpace, arXiv:2004.02546, 2.1.

    Raises ModelsError where w is z, which varies as much in every direction.
    """
    if generator.config.mapping_layers == 0:
        raise ModelsError("Without a mapping network, w is z and varies as much in every direction; use sefa.")
    _require(count, generator, None)
    covariance = _covariance(sample_w(generator, samples, seed))
    return _along(_strongest(covariance, count), covariance)


class Match(NamedTuple):
    """A direction as a later checkpoint has it."""

    vector: Numbers  # [w_dim], of length 1
    sigma: float  # the standard deviation of w along it
    score: float  # how alike both checkpoints' pictures change along it: 1 the same, 0 nothing in common; see MATCHED


def match(
    old: Generator, new: Generator, directions: Sequence[tuple[Numbers, Sequence[int] | None]], samples: int = SAMPLES
) -> list[Match]:
    """Directions of one checkpoint, each [w_dim] with the layers it moves (None: all), as a later one of the same
    training has them.

    Each is tried as it is, and as the linear map turns it that best leads from the old w to the new w of the same
    latents and texts; the one along which pictures change more as they did is taken. Below MATCHED it is lost.
    Raises ModelsError for checkpoints whose w or z are not even of one length.
    """
    for name in ("z_dim", "w_dim", "num_ws"):
        if getattr(old, name) != getattr(new, name):
            raise ModelsError(
                f"These checkpoints are not of one training: {name} {getattr(old, name)} and {getattr(new, name)}."
            )
    told = new.captions if old.text is not None and new.text is not None else None
    w_old, w_new = (sample_w(generator, samples, captions=told) for generator in (old, new))
    turn = _turn(w_old, w_new)
    spread_old, spread_new = _covariance(w_old), _covariance(w_new)
    matches = []
    for vector, layers in directions:
        before = _unit(torch.tensor(vector, dtype=torch.float64))
        change = _change(old, w_old[:MATCH_PICTURES], before, _sigma(before, spread_old), layers)
        tried = []
        for after in (before, _unit(before @ turn)):
            sigma = _sigma(after, spread_new)
            changes = _change(new, w_new[:MATCH_PICTURES], after, sigma, layers)
            tried.append(Match(_numbers(after), sigma, float(functional.cosine_similarity(change, changes, dim=0))))
        matches.append(max(tried, key=lambda match: match.score))
    return matches


def _turn(w_old: Tensor, w_new: Tensor) -> Tensor:
    """The linear map [w_dim, w_dim] by which deviations from the mean w become those of the new w, as nearly as can be:
    new is about old @ turn."""
    old, new = ((w - w.mean(dim=0)).double().cpu() for w in (w_old, w_new))
    turn: Tensor = torch.linalg.lstsq(old, new, driver="gelsd").solution
    return turn


@torch.no_grad()
def _change(generator: Generator, w: Tensor, vector: Tensor, sigma: float, layers: Sequence[int] | None) -> Tensor:
    """What one sigma forth, in place of one back, changes in pictures of w [N, w_dim], as seen from afar, all in one
    row [N * C * 16 * 16]: what moved by a pixel is the same change still."""
    step = torch.zeros(generator.num_ws, generator.w_dim, dtype=w.dtype, device=w.device)
    step[slice(None) if layers is None else list(layers)] = (sigma * vector).to(w)
    every = w[:, None].expand(-1, generator.num_ws, -1)
    x = generator.synthesis(every + step) - generator.synthesis(every - step)
    return functional.adaptive_avg_pool2d(x, MATCH_SIDE).flatten().cpu()


def _unit(vector: Tensor) -> Tensor:
    return functional.normalize(vector, dim=0)


def _sigma(vector: Tensor, covariance: Tensor) -> float:
    return float((vector @ covariance @ vector).sqrt())


def _require(count: int, generator: Generator, layers: Sequence[int] | None) -> None:
    if not 1 <= count <= generator.w_dim:
        raise ModelsError(f"{count} directions; a w of {generator.w_dim} numbers has 1 to {generator.w_dim}.")
    if layers is not None and not (layers and all(0 <= layer < generator.num_ws for layer in layers)):
        raise ModelsError(f"Layers {list(layers)}; name some of this model's, 0 to {generator.num_ws - 1}.")


def _covariance(w: Tensor) -> Tensor:
    """Of w [N, w_dim], [w_dim, w_dim], in float64 on the CPU."""
    centered = w.double().cpu() - w.double().cpu().mean(dim=0)
    return centered.T @ centered / (len(w) - 1)


def _strongest(symmetric: Tensor, count: int) -> Tensor:
    """Eigenvectors of a symmetric matrix [D, D], of the largest eigenvalues first, [count, D]; with sure signs."""
    vectors: Tensor = torch.linalg.eigh(symmetric).eigenvectors.flip(1).T[:count]
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))  # [count, 1]
    return vectors * largest.sign()


def _along(vectors: Tensor, covariance: Tensor) -> Directions:
    variances = (vectors @ covariance * vectors).sum(dim=1)  # [count]
    shares = variances / covariance.trace()
    return Directions(_numbers(vectors), _numbers(variances.sqrt()), _numbers(shares))


def _numbers(x: Tensor) -> Numbers:
    return x.float().numpy()
