"""A sheet shows each picture that its recipe names, in its place, and holds that recipe."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.core.records import Job
from app.serving.film import FilmOrder, FilmRecipe, read_canonical
from app.serving.films.finding import read_recipe_text
from app.serving.loader import Loader
from app.serving.point import Mix, Point
from worker.tasks import Workshop


def order(shas: list[str], **fields: Any) -> FilmOrder:
    base = {"kind": "grid", "model": "tiny", "checkpoint": shas[-1], "size": (64, 32), "columns": 3}
    film = FilmRecipe(**base | {"keyframes": (Point(seed=0),)} | fields)
    return FilmOrder(
        kind="grid", film=film, choose_phase=False, format="png", lossless=True, metadata="full", keep=False
    )


def test_a_comparison_has_a_row_for_each_checkpoint(
    workshop: Workshop, checkpoints: list[str], draw: Callable[[FilmOrder], Job]
) -> None:
    job = draw(order(checkpoints, checkpoints=checkpoints, seeds=(4, 5, 6)))
    result = job.result or {}
    data = workshop.storage.get(result["file"])
    sheet = np.asarray(Image.open(io.BytesIO(data)))
    assert sheet.shape == (2 * 34 + 2, 3 * 66 + 2, 3)
    assert (result["size"], result["media_type"], result["pictures"]) == ("200x70", "image/png", 6)
    film = FilmRecipe.model_validate(result["recipe"])
    loader = Loader(workshop.storage.path, device="cpu", dtype=film.dtype or "float32", budget_bytes=2**30, max_batch=8)
    for row, checkpoint in enumerate(checkpoints):
        for column, picture in enumerate(loader.get(checkpoint).render([Point(seed=seed) for seed in (4, 5, 6)])):
            shown = sheet[2 + 34 * row :, 2 + 66 * column :][:32, :64]
            assert np.array_equal(shown[:, ::2], picture)
    loader.close()
    text = read_recipe_text(data)
    assert text is not None
    assert read_canonical(text) == film


def test_keyframes_that_mix_and_seeds_make_a_matrix_of_mixes(
    workshop: Workshop, checkpoints: list[str], draw: Callable[[FilmOrder], Job]
) -> None:
    rows = tuple(Point(seed=0, mix=Mix(seed=seed, layers=(2, 3))) for seed in (10, 11))
    job = draw(order(checkpoints, keyframes=rows, seeds=(4, 5, 6), size=(32, 32)))
    sheet = np.asarray(Image.open(io.BytesIO(workshop.storage.get((job.result or {})["file"]))))
    dtype = (job.result or {})["recipe"]["dtype"]
    loader = Loader(workshop.storage.path, device="cpu", dtype=dtype, budget_bytes=2**30, max_batch=8)
    (expected,) = loader.get(checkpoints[-1]).render([Point(seed=5, mix=Mix(seed=11, layers=(2, 3)))])
    assert np.array_equal(sheet[36:68, 36:68], expected)
    loader.close()


@pytest.mark.parametrize("metadata", ["full", "minimal"])
def test_a_lone_picture_has_no_border(
    metadata: str, workshop: Workshop, checkpoints: list[str], draw: Callable[[FilmOrder], Job]
) -> None:
    wanted = order(checkpoints, seeds=(4,)).model_copy(update={"metadata": metadata})
    data = workshop.storage.get((draw(wanted).result or {})["file"])
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.size == (64, 32)
    assert (read_recipe_text(data) is None) == (metadata == "minimal")
