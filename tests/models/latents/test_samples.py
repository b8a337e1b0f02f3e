import numpy as np
import pytest
import torch

from models.latents import samples
from models.latents.samples import sample_w
from models.networks.generator import Generator
from models.sampling import text_vectors


def test_samples_are_the_w_of_normal_latents(small_generator: Generator) -> None:
    z = torch.from_numpy(np.random.RandomState(3).randn(5, 8).astype(np.float32))
    with torch.no_grad():
        expected = small_generator.mapping(z)[:, 0]
    assert torch.equal(sample_w(small_generator, 5, seed=3), expected)


def test_every_sample_is_told_one_of_the_texts_in_turn(
    prompted_generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "BLOCK", 4)
    z = torch.from_numpy(np.random.RandomState(0).randn(7, 8).astype(np.float32))
    told = ["red leaf", "green leaf", "bark"]
    with torch.no_grad():
        c = text_vectors(prompted_generator, [told[row % 3] for row in range(7)])
        expected = prompted_generator.mapping(z, c)[:, 0]
    torch.testing.assert_close(sample_w(prompted_generator, 7, captions=told), expected)
    prompted_generator.captions = tuple(told)
    torch.testing.assert_close(sample_w(prompted_generator, 7), expected)
    prompted_generator.captions = ()
    with torch.no_grad():
        silent = prompted_generator.mapping(z, text_vectors(prompted_generator, [""] * 7))[:, 0]
    torch.testing.assert_close(sample_w(prompted_generator, 7), silent)


def test_samples_are_no_draws_around_a_text_and_g_trains_on(prompted_generator: Generator) -> None:
    prompted_generator.train()
    assert torch.equal(sample_w(prompted_generator, 4), sample_w(prompted_generator, 4))
    assert prompted_generator.training
