"""A strip shows what a direction does, evenly to both sides; on the bundled model, ever more of it."""

import numpy as np
import torch

from app.samples import MODEL
from app.serving import strips
from app.serving.paint import paint
from app.serving.point import Point, Slider
from app.serving.texts import meanings
from models.checkpoint import load_generator
from models.latents.directions import sefa


def test_amounts_are_even_and_the_middle_is_nothing() -> None:
    assert strips.amounts(7, 3.0) == [-3, -2, -1, 0, 1, 2, 3]
    assert strips.amounts(3, 0.3) == [-0.3, 0, 0.3]
    assert strips.amounts(2, 1.0) == [-1, 1]


def test_a_strip_holds_its_pictures_side_by_side_with_white_between() -> None:
    pictures = [np.full((4, 6, 3), level, dtype=np.uint8) for level in (10, 20, 30)]
    row = strips.strip(pictures)
    assert row.shape == (4, 3 * 6 + 2 * strips.GAP, 3)
    for place, picture in enumerate(pictures):
        left = place * (6 + strips.GAP)
        assert np.array_equal(row[:, left : left + 6], picture)
        assert (row[:, left + 6 : left + 6 + strips.GAP] == 255).all()


def test_a_sheet_has_a_name_before_each_strip_and_an_amount_above_each_picture() -> None:
    amounts = strips.amounts(3, 1.0)
    rows = [strips.strip([np.full((20, 24, 1), level, dtype=np.uint8)] * 3) for level in (50, 90)]
    page = strips.sheet(rows, ["a", "a much longer name"], amounts)
    left = page.shape[1] - rows[0].shape[1] - strips.GAP
    top = page.shape[0] - 2 * (20 + strips.GAP)
    for number, row in enumerate(rows):
        upper = top + number * (20 + strips.GAP)
        assert np.array_equal(page[upper : upper + 20, left : left + row.shape[1]], row.repeat(3, axis=2))
        assert (page[upper : upper + 20, : left - strips.GAP] < 128).any()  # ink
    for column in range(3):
        assert (page[:top, left + column * 26 : left + column * 26 + 24] < 128).any()


def test_each_of_the_ten_first_directions_of_the_bundled_model_moves_pictures_ever_further_along_it() -> None:
    torch.set_num_threads(1)
    generator, _ = load_generator(MODEL)
    meaning, found = meanings(generator), sefa(generator, 10)
    amounts, seeds = strips.amounts(5, 3.0), (3, 35, 52)
    for vector, sigma in zip(found.vectors, found.sigma, strict=True):
        step = torch.from_numpy(np.tile(sigma * vector, (generator.num_ws, 1)))
        slid = [Slider(name="along", amount=amount, offset="0" * 64) for amount in amounts]
        points = [Point(seed=seed, sliders=(slider,)) for seed in seeds for slider in slid]
        x = paint(generator, points, meaning, lambda _name, step=step: step).flatten(1).numpy()
        pictures = x.reshape(len(seeds), len(amounts), -1)
        change = pictures[:, -1] - pictures[:, 0]
        change /= np.linalg.norm(change, axis=1, keepdims=True)
        moved = (pictures * change[:, None]).sum(axis=2).mean(axis=0)  # [amounts]
        assert (np.diff(moved) > 0).all()
