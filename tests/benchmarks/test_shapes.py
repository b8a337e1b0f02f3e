"""The judge of benchmarks/shapes.py must be right where the truth is known, and wrong pictures must not please it."""

import importlib.util
import sys
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "shapes.py"


@pytest.fixture(scope="module")
def shapes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shapes", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["shapes"] = module
    spec.loader.exec_module(module)
    return module


def everything(shapes: ModuleType, times: int) -> list[Any]:
    return [shapes.Combination(*words) for words in product(shapes.COLOURS, shapes.OUTLINES, shapes.PLACES)] * times


def test_the_judge_reads_drawings_as_their_captions_say(shapes: ModuleType) -> None:
    asked, chance = everything(shapes, 2), np.random.RandomState(5)
    drawn = np.stack([shapes.drawing(one, chance) for one in asked])
    assert shapes.shares(drawn, asked) == {"colour": 1.0, "shape": 1.0, "place": 1.0, "all": 1.0}


def test_the_judge_reads_drawings_that_are_soft_and_noisy_as_painted_ones_are(shapes: ModuleType) -> None:
    asked, chance = everything(shapes, 1), np.random.RandomState(6)
    soft = [Image.fromarray(shapes.drawing(one, chance)).filter(ImageFilter.GaussianBlur(0.8)) for one in asked]
    noisy = np.stack([np.asarray(picture) for picture in soft]) + chance.normal(0, 8, (len(asked), 32, 32, 3))
    assert shapes.shares(noisy.clip(0, 255).astype(np.uint8), asked)["all"] > 0.95


def test_the_judge_is_not_pleased_by_another_colour_shape_or_place(shapes: ModuleType) -> None:
    asked, chance = everything(shapes, 1), np.random.RandomState(7)
    drawn = np.stack([shapes.drawing(one, chance) for one in asked])
    for field, words in (("colour", shapes.COLOURS), ("shape", shapes.OUTLINES), ("place", shapes.PLACES)):
        following = dict(zip(words, [*list(words)[1:], next(iter(words))], strict=True))
        others = [one._replace(**{field: following[getattr(one, field)]}) for one in asked]
        found = shapes.shares(drawn, others)
        assert found[field] == 0.0
        assert found["all"] == 0.0
        assert all(found[word] == 1.0 for word in {"colour", "shape", "place"} - {field})


def test_the_judge_sees_nothing_in_white_or_noise_and_no_shape_in_stripes(shapes: ModuleType) -> None:
    white = np.full((32, 32, 3), 255, dtype=np.uint8)
    assert shapes.judge(white) == (None, None, None)
    noise = np.random.RandomState(0).randint(0, 256, (32, 32, 3)).astype(np.uint8)
    assert shapes.judge(noise) == (None, None, None)
    stripes = white.copy()
    stripes[::6, :, 1:] = 0
    assert shapes.judge(stripes).shape is None
    assert shapes.judge(stripes).colour == "red"


def test_no_shape_is_clipped_and_the_ideal_areas_are_those_of_geometry(shapes: ModuleType) -> None:
    areas = {"circle": np.pi, "square": 1.8**2, "triangle": 2.2 * 1.9 / 2, "cross": 2 * 0.7 * 2.1 - 0.7**2}
    for shape, area in areas.items():  # Pillow paints the border of a polygon too
        assert shapes.weighed(shape)[0] == pytest.approx(area, rel=0.08)
    assert shapes.weighed("triangle")[2] == pytest.approx((-1.0 + 0.9 + 0.9) / 3, abs=0.03)
    chance = np.random.RandomState(8)
    for one in everything(shapes, 1):
        picture = shapes.drawing(one, chance)
        edges = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert edges.min() == 255


def test_fifteen_in_a_hundred_captions_are_held_out_and_all_their_words_are_seen(shapes: ModuleType) -> None:
    for seed in range(5):
        seen, held_out = shapes.split(seed)
        assert (len(seen), len(held_out)) == (102, 18)
        assert not set(seen) & set(held_out)
        for field, words in (("colour", shapes.COLOURS), ("shape", shapes.OUTLINES), ("place", shapes.PLACES)):
            assert {getattr(one, field) for one in seen} == set(words)


def test_the_preset_is_told_to_take_captions_and_never_to_mirror(shapes: ModuleType) -> None:
    config = shapes.configuration("tiny", 1.0, 0)
    assert config.network.text is not None
    assert not config.mirror
    assert config.max_minutes == 1.0
