import asyncio
import hashlib
import io
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest
import torch
from PIL import Image

from app.core.errors import InvalidRequest
from app.core.settings import Settings
from app.core.storage import Storage
from app.serving.encode import read_recipe
from app.serving.loader import Loader
from app.serving.recipe import Mix, OutputFormat, Recipe
from app.serving.service import FileKind, Painter
from models.config import TrainConfig

MakeCheckpoint = Callable[..., str]
MakeRecipe = Callable[..., Recipe]
SECONDS = 120

# A service started anew on the same files; prints the sha256 of the PNG of each recipe it reads, one a line.
AFTER_A_RESTART = """
import asyncio, hashlib, sys
from pathlib import Path
from app.core.errors import InvalidRequest
from app.core.settings import Settings
from app.core.storage import Storage
from app.serving.recipe import Recipe
from app.serving.service import FileKind, Painter

async def main():
    recipes = [Recipe.model_validate_json(line) for line in sys.stdin]
    painter = Painter(Settings(threads=1), Storage(Path(sys.argv[1])))
    for file in await painter.pictures(recipes):
        print(hashlib.sha256(file).hexdigest())
    await painter.close()

asyncio.run(main())
"""


pytestmark = pytest.mark.anyio


@asynccontextmanager
async def painting(storage: Storage, cache_mib: int = 0) -> AsyncIterator[Painter]:
    painter = Painter(Settings(threads=2, picture_cache_mib=cache_mib), storage)
    try:
        async with asyncio.timeout(SECONDS):
            yield painter
    finally:
        await painter.close()


def counted(painter: Painter, name: str) -> float:
    """What the painter's meters say, all models together."""
    families = painter.meters.registry.collect()
    return sum(sample.value for family in families for sample in family.samples if sample.name == f"ganvas_{name}")


def two_hundred(make_recipe: MakeRecipe, checkpoint: str) -> list[Recipe]:
    chance = np.random.RandomState(2)
    recipes = []
    for number in range(200):
        fields = {"truncation_psi": round(float(chance.uniform(-1, 1.5)), 2)}
        if number % 5 == 0:
            fields["mix"] = Mix(seed=number, layers=(0,))
        if number % 7 == 0:
            fields |= {"prompt": f"cat {number}", "prompt_mode": "hashed"}
        recipes.append(make_recipe(int(chance.randint(2**31)), checkpoint, **fields))
    return recipes


async def test_a_recipe_is_the_same_file_alone_among_others_and_after_a_restart(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    recipes = two_hundred(make_recipe, make_checkpoint(0))
    others = [make_recipe(seed, make_checkpoint(1)) for seed in range(20)]
    async with painting(storage) as painter:
        alone = [await painter.picture(recipe) for recipe in recipes]
        passes = counted(painter, "pass_seconds_count")
        among: list[bytes] = []
        for start in range(0, 200, 32):
            group = recipes[start : start + 32]
            asked = [painter.picture(recipe) for recipe in [*group, *others]]
            among += (await asyncio.gather(*asked))[: len(group)]
        assert passes == 200
        assert counted(painter, "pass_seconds_count") - passes < 100  # they did share
    assert among == alone

    lines = "\n".join(recipe.canonical_json() for recipe in recipes)
    program = [sys.executable, "-c", AFTER_A_RESTART, str(storage.root)]
    restarted = subprocess.run(program, input=lines, capture_output=True, text=True, check=True)
    assert restarted.stdout.split() == [hashlib.sha256(file).hexdigest() for file in alone]


async def test_a_picture_that_was_made_already_costs_no_pass_as_the_same_kind_of_file(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    checkpoint = make_checkpoint()
    recipes = [make_recipe(seed, checkpoint) for seed in (0, 1, 0)]
    async with painting(storage, cache_mib=1) as painter:
        first = await painter.pictures(recipes)
        assert counted(painter, "pictures_painted_total") == 2  # twice in one request is once
        assert first[0] == first[2] != first[1]

        assert await painter.pictures(recipes[::-1]) == first[::-1]
        assert counted(painter, "pictures_painted_total") == 2
        assert counted(painter, "cache_hits_total") == 3

        webp = await painter.picture(recipes[0], FileKind("webp"))
        assert await painter.picture(recipes[0], FileKind("webp", 30)) != webp
        assert await painter.picture(recipes[0], FileKind("webp", metadata="minimal")) != webp
        assert counted(painter, "pictures_painted_total") == 5


async def test_the_device_with_the_fewest_waiting_pictures_takes_the_next_request(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr("app.serving.service.devices", lambda _wanted: [cpu, cpu])
    checkpoint = make_checkpoint()
    async with painting(storage) as painter:
        many = asyncio.create_task(painter.pictures([make_recipe(seed, checkpoint) for seed in range(40)]))
        await asyncio.sleep(0)
        few = asyncio.create_task(painter.pictures([make_recipe(seed, checkpoint) for seed in range(40, 44)]))
        await asyncio.sleep(0)
        assert [batcher.stats.waiting for batcher in painter._batchers] == [40, 4]
        assert painter.waiting() == counted(painter, "pictures_waiting") == 44

        assert len(await many) == 40
        assert len(await few) == 4
        assert counted(painter, "loaded_models") == 2  # on each device one


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
async def test_a_file_is_of_the_format_and_size_asked_for(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe, output_format: OutputFormat
) -> None:
    recipe = make_recipe(5, make_checkpoint(), size=(96, 64))
    async with painting(storage) as painter:
        full = await painter.picture(recipe, FileKind(output_format))
        minimal = await painter.picture(recipe, FileKind(output_format, metadata="minimal"))
    image = Image.open(io.BytesIO(full))

    assert (image.format, image.size) == (output_format.upper(), (96, 64))
    assert read_recipe(full) == recipe
    assert read_recipe(minimal) is None
    assert len(minimal) < len(full)


async def test_the_pixels_of_a_png_are_the_ones_painted(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    checkpoint = make_checkpoint()
    recipes = [make_recipe(seed, checkpoint) for seed in range(12)]
    async with painting(storage) as painter:
        files = await painter.pictures(recipes)

    assert [read_recipe(file) for file in files] == recipes
    assert len({np.asarray(Image.open(io.BytesIO(file))).tobytes() for file in files}) == 12


async def test_matches_are_the_judges_verdicts_on_the_pictures_as_they_are_sent(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe, prompted_config: TrainConfig
) -> None:
    checkpoint, unjudged = (
        make_checkpoint(config=prompted_config),
        make_checkpoint(config=prompted_config, judged=False),
    )
    recipes = [make_recipe(seed, checkpoint, prompt="red", label="cat") for seed in range(9)]
    async with painting(storage) as painter:
        with pytest.raises(InvalidRequest, match="no discriminator"):
            await painter.matches([make_recipe(0, unjudged, prompt="red")])
        assert counted(painter, "pictures_painted_total") == 0  # who cannot be served is not painted for
        matches, files = await painter.matches(recipes), await painter.pictures(recipes)
    judge = Loader(storage.path, device="cpu", budget_bytes=2**30, max_batch=1).judge(checkpoint)

    assert matches == judge.matches("red cat", [np.array(Image.open(io.BytesIO(file))) for file in files])
