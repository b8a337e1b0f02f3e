"""D's verdict on a picture and a text is what its own networks say, and the same in any company."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from app.core.errors import InvalidRequest
from app.core.storage import Storage
from app.serving.judge import Judge
from app.serving.loader import Loader
from app.serving.recipe import Recipe
from models.checkpoint import load_discriminator, load_generator
from models.config import TrainConfig
from models.text import build_encoder

MakeCheckpoint = Callable[..., str]
MakeRecipe = Callable[..., Recipe]


def loader_of(storage: Storage) -> Loader:
    return Loader(storage.path, device="cpu", budget_bytes=2**30, max_batch=8)


def test_a_match_is_the_product_of_the_pictures_and_the_texts_vector(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe, prompted_config: TrainConfig
) -> None:
    loader = loader_of(storage)
    sha256 = make_checkpoint(config=prompted_config)
    pictures = loader.get(sha256).render([make_recipe(seed, sha256, prompt="red cat") for seed in range(6)])
    matches = loader.judge(sha256).matches("red cat", list(pictures))

    critic = load_discriminator(storage.path(sha256))
    generator, _ = load_generator(storage.path(sha256))
    assert critic.compare is not None
    assert generator.text is not None
    told = generator.text(torch.from_numpy(build_encoder("hashed-256").encode(["red cat"]))).numpy()[0]
    expected = []
    for picture in pictures:
        x = torch.from_numpy((picture.astype(np.float64) / 127.5 - 1).astype(np.float32).transpose(2, 0, 1)[None])
        seen = critic.compare.weight.numpy() @ critic.critic(x).summary.numpy()[0]
        expected.append(float(seen @ told) / len(told) ** 0.5)

    assert np.allclose(matches, expected, rtol=1e-3, atol=1e-4)
    assert np.ptp(expected) > 0.01


def test_a_verdict_depends_on_the_picture_alone(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe, prompted_config: TrainConfig
) -> None:
    loader = loader_of(storage)
    sha256 = make_checkpoint(config=prompted_config)
    pictures = list(loader.get(sha256).render([make_recipe(seed, sha256) for seed in range(4)]))
    judge = loader.judge(sha256)

    together = judge.matches("red", pictures)
    assert [judge.matches("red", [picture])[0] for picture in pictures] == together
    assert judge.matches("blue", pictures) != together


def test_a_judge_is_read_once_and_counts_as_memory(
    storage: Storage, make_checkpoint: MakeCheckpoint, prompted_config: TrainConfig
) -> None:
    loader = loader_of(storage)
    sha256 = make_checkpoint(config=prompted_config)
    without = loader.get(sha256).bytes
    judge = loader.judge(sha256)

    assert isinstance(judge, Judge)
    assert loader.judge(sha256) is judge
    assert loader.get(sha256).bytes == without + judge.bytes > without


def test_weights_without_a_discriminator_or_without_texts_cannot_rank(
    storage: Storage, make_checkpoint: MakeCheckpoint, prompted_config: TrainConfig
) -> None:
    loader = loader_of(storage)
    with pytest.raises(InvalidRequest, match="no discriminator") as refused:
        loader.judge(make_checkpoint(config=prompted_config, judged=False))
    assert (refused.value.error_code, refused.value.param) == ("discriminator_missing", "best_of")

    with pytest.raises(InvalidRequest, match="by a text"):
        loader.judge(make_checkpoint())
