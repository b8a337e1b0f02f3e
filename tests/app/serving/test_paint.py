"""A picture is what the networks make of its recipe, and has the same bits in whatever company it is painted."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from app.core.errors import InvalidRequest
from app.core.storage import Storage
from app.serving import placing
from app.serving.loader import Loader
from app.serving.paint import LoadedGenerator, paint
from app.serving.recipe import Dtype, Mix, Recipe
from models.checkpoint import load_generator
from models.config import TrainConfig
from models.latents.seeds import z_from_seeds
from models.presets import preset
from models.sampling import render, to_uint8
from models.text import build_encoder

MakeCheckpoint = Callable[..., str]
MakeRecipe = Callable[..., Recipe]
GIB = 2**30
QUIET = {"GOMP_SPINCOUNT": "1000"}  # threads that do not spin for each other take no minutes beside other tests

# What another process paints of the same files: its arguments are the threads, the folder, and recipes, one a line.
PAINT_ELSEWHERE = """
import hashlib, sys, torch
from pathlib import Path
from app.core.storage import Storage
from app.serving import placing
from app.serving.loader import Loader
from app.serving.recipe import Recipe
torch.set_num_threads(int(sys.argv[1]))
recipes = [Recipe.model_validate_json(line) for line in sys.stdin]
loader = Loader(Storage(Path(sys.argv[2])).path, device="cpu", budget_bytes=2**30, max_batch=8)
loaded = loader.get(recipes[0].checkpoint)
print(hashlib.sha256(loaded.render(recipes).tobytes()).hexdigest())
"""


KINDS: list[dict[str, Any]] = [
    {},
    {"truncation_psi": 1.0},
    {"truncation_psi": -1.3, "truncation_cutoff": 1},
    {"mix": Mix(seed=7, layers=(0,))},
    {"prompt": "a cat", "prompt_mode": "hashed", "truncation_cutoff": 1},
    {"mix": Mix(seed=2**32 - 1, layers=(0,)), "truncation_psi": 0.3},
]
TOLD = [{"prompt": "a red cat"}, {"label": "cat"}, {"prompt": "something blue", "label": "cat"}, {}]


def loader_of(storage: Storage, *, max_batch: int = 32) -> Loader:
    return Loader(storage.path, device="cpu", budget_bytes=GIB, max_batch=max_batch)


def every_kind(make_recipe: MakeRecipe, checkpoint: str, count: int) -> list[Recipe]:
    """Recipes that differ in all that a picture of no text depends on, in no regular order."""
    return shuffled(make_recipe, checkpoint, count, KINDS)


def shuffled(make_recipe: MakeRecipe, checkpoint: str, count: int, kinds: Sequence[dict[str, Any]]) -> list[Recipe]:
    chance = np.random.RandomState(1)
    seeds = chance.randint(0, 2**32, count, dtype=np.uint32)
    return [make_recipe(int(seed), checkpoint, **kinds[chance.randint(len(kinds))]) for seed in seeds]


def configs() -> list[TrainConfig]:
    tiny = preset("tiny", 32)
    resizing = tiny.model_copy(update={"network": tiny.network.model_copy(update={"upsampling": "resize"})})
    return [tiny, resizing, preset("classic", 32), small_config("few-shot"), small_config("quality")]


def small_config(name: str) -> TrainConfig:
    """A family that paints nothing as quickly as dcgan does, in widths that it does."""
    config = preset(name, 64)
    widths = (64, 32, 32, 16, 16)
    sides = {"generator_widths": widths, "discriminator_widths": widths[len(widths) == 5 and name == "few-shot" :]}
    return config.model_copy(update={"network": config.network.model_copy(update=sides)})


@pytest.fixture
def loaded(storage: Storage, make_checkpoint: MakeCheckpoint) -> LoadedGenerator:
    return loader_of(storage).get(make_checkpoint())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", configs(), ids=["tiny", "resize", "classic", "few-shot", "quality"])
def test_a_picture_has_the_same_bits_alone_and_in_any_batch(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe, config: TrainConfig, dtype: Dtype
) -> None:
    loaded = loader_of(storage).get(make_checkpoint(config=config), dtype)
    recipes = every_kind(make_recipe, loaded.sha256, 40)
    alone = np.concatenate([loaded.render([recipe]) for recipe in recipes])

    assert max(loaded.sizes) > 1
    assert np.array_equal(loaded.render(recipes), alone)
    assert np.array_equal(loaded.render(recipes[3:26]), alone[3:26])
    if loaded.sizes[0] == 1:
        exact = torch.cat([paint(loaded.generator, [recipe]) for recipe in recipes])
        for size in loaded.sizes:
            for start in range(0, 41 - size, size):
                batch = paint(loaded.generator, recipes[start : start + size])
                assert torch.equal(batch, exact[start : start + size])


def test_a_lone_picture_is_padded_to_the_smallest_pass(make_recipe: MakeRecipe, loaded: LoadedGenerator) -> None:
    recipes = [make_recipe(seed) for seed in range(5)]
    four = paint(loaded.generator, recipes[:4])

    for count in (1, 2, 3):
        padded = paint(loaded.generator, recipes[:count], at_least=4)
        assert padded.shape == four.shape
        assert torch.equal(padded[:count], four[:count])
        assert torch.equal(padded[count:], padded[count - 1, None].expand(4 - count, -1, -1, -1))
    assert len(paint(loaded.generator, recipes, at_least=4)) == 5


@pytest.mark.parametrize("place", range(8))
def test_the_latents_of_a_recipe_have_the_same_bits_in_every_place_of_a_block(
    make_recipe: MakeRecipe, loaded: LoadedGenerator, place: int
) -> None:
    recipes = every_kind(make_recipe, loaded.sha256, 8)
    with torch.inference_mode():
        alone = placing.place(loaded.generator, recipes[7:], loaded.meaning)[0]
        company = [*recipes[:place], recipes[7], *recipes[place:7]]
        among = placing.place(loaded.generator, company, loaded.meaning)[place]

    assert torch.equal(among, alone)


def told_kinds() -> list[dict[str, Any]]:
    return [kind | told for kind in KINDS if "prompt_mode" not in kind for told in TOLD]


def test_a_picture_of_a_text_has_the_same_bits_alone_among_others_and_elsewhere(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe, prompted_config: TrainConfig
) -> None:
    loaded = loader_of(storage).get(make_checkpoint(config=prompted_config))
    recipes = shuffled(make_recipe, loaded.sha256, 60, told_kinds())
    alone = np.concatenate([loaded.render([recipe]) for recipe in recipes])

    assert max(loaded.sizes) > 1
    assert np.array_equal(loaded.render(recipes), alone)
    assert np.array_equal(loaded.render(recipes[5:22]), alone[5:22])
    assert painted_elsewhere(storage, recipes, threads=2) == hashlib.sha256(alone.tobytes()).hexdigest()


def painted_elsewhere(storage: Storage, recipes: Sequence[Recipe], threads: int) -> str:
    program = [sys.executable, "-c", PAINT_ELSEWHERE, str(threads), str(storage.root)]
    lines = "\n".join(recipe.canonical_json() for recipe in recipes)
    done = subprocess.run(program, input=lines, env=os.environ | QUIET, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("threads", [1, 2])
def test_another_process_with_other_threads_paints_the_same(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe, threads: int
) -> None:
    loaded = loader_of(storage).get(make_checkpoint())
    recipes = every_kind(make_recipe, loaded.sha256, 40)
    expected = hashlib.sha256(loaded.render(recipes).tobytes()).hexdigest()

    assert painted_elsewhere(storage, recipes, threads) == expected


def test_a_seed_paints_what_the_generator_itself_paints(
    storage: Storage, make_recipe: MakeRecipe, loaded: LoadedGenerator
) -> None:
    generator, _ = load_generator(storage.path(loaded.sha256))
    pictures = loaded.render([make_recipe(seed, truncation_psi=0.6, truncation_cutoff=2) for seed in range(10)])

    expected = render(generator, range(10), psi=0.6, cutoff=2)
    assert np.abs(pictures.astype(int) - expected).max() <= 1
    assert pictures.std(axis=0).max() > 10  # ten pictures, not one


def test_truncation_to_nothing_paints_the_mean_picture(make_recipe: MakeRecipe, loaded: LoadedGenerator) -> None:
    mean = loaded.render([make_recipe(seed, truncation_psi=0.0) for seed in range(3)])
    first_layer_only = loaded.render([make_recipe(seed, truncation_psi=0.0, truncation_cutoff=1) for seed in range(3)])

    assert np.array_equal(mean[0], mean[1])
    assert np.array_equal(mean[0], mean[2])
    assert not np.array_equal(first_layer_only[0], first_layer_only[1])


def test_mixing_every_layer_paints_the_other_seed(make_recipe: MakeRecipe, loaded: LoadedGenerator) -> None:
    layers = tuple(range(loaded.generator.num_ws))
    mixed, half, own, other = loaded.render(
        [
            make_recipe(1, mix=Mix(seed=2, layers=layers)),
            make_recipe(1, mix=Mix(seed=2, layers=layers[1:])),
            make_recipe(1),
            make_recipe(2),
        ]
    )

    assert np.array_equal(mixed, other)
    assert not np.array_equal(half, own)
    assert not np.array_equal(half, other)


def test_a_hashed_prompt_paints_another_seed(make_recipe: MakeRecipe, loaded: LoadedGenerator) -> None:
    prompted = make_recipe(5, prompt="a cat", prompt_mode="hashed")
    moved, same = loaded.render([prompted, make_recipe(prompted.latent_seed)])

    assert np.array_equal(moved, same)


@pytest.fixture
def told(storage: Storage, make_checkpoint: MakeCheckpoint, prompted_config: TrainConfig) -> LoadedGenerator:
    return loader_of(storage, max_batch=4).get(make_checkpoint(config=prompted_config))


def test_a_prompt_paints_what_the_networks_make_of_it_and_a_seed(
    storage: Storage, make_recipe: MakeRecipe, told: LoadedGenerator
) -> None:
    generator, _ = load_generator(storage.path(told.sha256))
    assert generator.text is not None
    c = generator.text(torch.from_numpy(build_encoder("hashed-256").encode(["red cat"])))
    z = torch.from_numpy(np.random.RandomState(0).randn(1000, generator.z_dim).astype(np.float32))
    typical = generator.mapping(z, c.expand(1000, -1)).mean(dim=0)  # [num_ws, w_dim]
    pictures = told.render([make_recipe(seed, prompt="red cat", truncation_psi=0.6) for seed in range(6)])

    for seed, picture in enumerate(pictures):
        own = generator.mapping(torch.from_numpy(z_from_seeds([seed], generator.z_dim)), c)[0]
        x = generator.synthesis((typical + 0.6 * (own - typical))[None])
        assert np.abs(picture.astype(int) - to_uint8(x)[0]).max() <= 1


def test_texts_change_the_picture_and_a_label_is_a_caption_of_one_word(
    make_recipe: MakeRecipe, told: LoadedGenerator
) -> None:
    silent, red, cat, label, both, spelt_out = told.render(
        [
            make_recipe(1),
            make_recipe(1, prompt="red"),
            make_recipe(1, prompt="cat"),
            make_recipe(1, label="cat"),
            make_recipe(1, prompt="red", label="cat"),
            make_recipe(1, prompt="RED cat!"),
        ]
    )

    assert np.array_equal(label, cat)
    assert np.array_equal(both, spelt_out)
    assert len({picture.tobytes() for picture in (silent, red, cat, both)}) == 4


def test_truncation_of_a_prompted_picture_keeps_the_prompt(make_recipe: MakeRecipe, told: LoadedGenerator) -> None:
    red, same, cat, silent = told.render(
        [
            make_recipe(1, prompt="red", truncation_psi=0.0),
            make_recipe(2, prompt="red", truncation_psi=0.0),
            make_recipe(1, prompt="cat", truncation_psi=0.0),
            make_recipe(1, truncation_psi=0.0),
        ]
    )
    with torch.inference_mode():
        typical = told.generator.synthesis(told.generator.w_avg.expand(1, told.generator.num_ws, -1))

    assert np.array_equal(red, same)
    assert not np.array_equal(red, cat)
    assert np.abs(silent.astype(int) - to_uint8(typical)[0]).max() <= 1


def test_the_other_seed_of_a_mix_is_told_the_same_text(make_recipe: MakeRecipe, told: LoadedGenerator) -> None:
    layers = tuple(range(told.generator.num_ws))
    mixed, other, silent = told.render(
        [
            make_recipe(1, prompt="red cat", mix=Mix(seed=2, layers=layers)),
            make_recipe(2, prompt="red cat"),
            make_recipe(2),
        ]
    )

    assert np.array_equal(mixed, other)
    assert not np.array_equal(mixed, silent)


def test_weights_that_know_no_texts_refuse_one(make_recipe: MakeRecipe, loaded: LoadedGenerator) -> None:
    with pytest.raises(InvalidRequest, match="know no texts"):
        loaded.check(make_recipe(prompt="red cat"))


def test_a_layer_the_model_has_not_got_is_refused(make_recipe: MakeRecipe, loaded: LoadedGenerator) -> None:
    last = loaded.generator.num_ws - 1
    loaded.check(make_recipe(mix=Mix(seed=2, layers=(last,))))

    with pytest.raises(InvalidRequest, match=f"layers 0 to {last}"):
        loaded.check(make_recipe(mix=Mix(seed=2, layers=(0, last + 1))))
