import asyncio
import hashlib
import io
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest
from PIL import Image

from app.core.errors import InvalidRequest
from app.core.settings import Settings
from app.core.storage import Storage
from app.serving.encode import read_recipe
from app.serving.loader import Loader
from app.serving.recipe import Mix, OutputFormat, Recipe
from app.serving.service import Painter
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
from app.serving.service import Painter

async def main():
    recipes = [Recipe.model_validate_json(line) for line in sys.stdin]
    painter = Painter(Settings(threads=1), Storage(Path(sys.argv[1])))
    for file in await painter.pictures(recipes):
        print(hashlib.sha256(file).hexdigest())
    await painter.close()

asyncio.run(main())
"""


@asynccontextmanager
async def painting(storage: Storage) -> AsyncIterator[Painter]:
    painter = Painter(Settings(threads=2), storage)
    try:
        yield painter
    finally:
        await painter.close()


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


def test_a_recipe_is_the_same_file_alone_among_others_and_after_a_restart(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    recipes = two_hundred(make_recipe, make_checkpoint(0))
    others = [make_recipe(seed, make_checkpoint(1)) for seed in range(20)]

    async def work() -> tuple[list[bytes], list[bytes]]:
        async with painting(storage) as painter:
            alone = [await painter.picture(recipe) for recipe in recipes]
            passes = painter.stats.batches
            among: list[bytes] = []
            for start in range(0, 200, 32):
                group = recipes[start : start + 32]
                asked = [painter.picture(recipe) for recipe in [*group, *others]]
                among += (await asyncio.gather(*asked))[: len(group)]
            assert passes == 200
            assert painter.stats.batches - passes < 100  # they did share
            return alone, among

    alone, among = asyncio.run(asyncio.wait_for(work(), SECONDS))
    assert among == alone

    lines = "\n".join(recipe.canonical_json() for recipe in recipes)
    program = [sys.executable, "-c", AFTER_A_RESTART, str(storage.root)]
    restarted = subprocess.run(program, input=lines, capture_output=True, text=True, check=True)
    assert restarted.stdout.split() == [hashlib.sha256(file).hexdigest() for file in alone]


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_file_is_of_the_format_and_size_asked_for(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe, output_format: OutputFormat
) -> None:
    recipe = make_recipe(5, make_checkpoint(), size=(96, 64))

    async def work() -> list[bytes]:
        async with painting(storage) as painter:
            return [
                await painter.picture(recipe, output_format=output_format),
                await painter.picture(recipe, output_format=output_format, metadata="minimal"),
            ]

    full, minimal = asyncio.run(work())
    image = Image.open(io.BytesIO(full))

    assert (image.format, image.size) == (output_format.upper(), (96, 64))
    assert read_recipe(full) == recipe
    assert read_recipe(minimal) is None
    assert len(minimal) < len(full)


def test_the_pixels_of_a_png_are_the_ones_painted(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    checkpoint = make_checkpoint()
    recipes = [make_recipe(seed, checkpoint) for seed in range(12)]

    async def work() -> list[bytes]:
        async with painting(storage) as painter:
            return await painter.pictures(recipes)

    files = asyncio.run(work())

    assert [read_recipe(file) for file in files] == recipes
    assert len({np.asarray(Image.open(io.BytesIO(file))).tobytes() for file in files}) == 12


def test_matches_are_the_judges_verdicts_on_the_pictures_as_they_are_sent(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe, prompted_config: TrainConfig
) -> None:
    checkpoint, unjudged = (
        make_checkpoint(config=prompted_config),
        make_checkpoint(config=prompted_config, judged=False),
    )
    recipes = [make_recipe(seed, checkpoint, prompt="red", label="cat") for seed in range(9)]

    async def work() -> tuple[list[float], list[bytes]]:
        async with painting(storage) as painter:
            with pytest.raises(InvalidRequest, match="no discriminator"):
                await painter.matches([make_recipe(0, unjudged, prompt="red")])
            assert painter.stats.pictures == 0  # who cannot be served is not painted for
            return await painter.matches(recipes), await painter.pictures(recipes)

    matches, files = asyncio.run(work())
    judge = Loader(storage.path, device="cpu", budget_bytes=2**30, max_batch=1).judge(checkpoint)

    assert matches == judge.matches("red cat", [np.array(Image.open(io.BytesIO(file))) for file in files])
