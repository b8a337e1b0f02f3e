"""The page on recipes names every field there is, and the limits as they are."""

import re
from pathlib import Path

from app.serving.film import FilmRecipe
from app.serving.proving.claims import MAX_FRAME_PIXELS, MAX_PAINTED, MAX_PIXELS
from app.serving.recipe import MAX_RECIPE_BYTES, Recipe

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()


def fields(heading: str) -> set[str]:
    """What the first column of the table under a heading names."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", section, re.M)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_the_tables_name_every_field_and_no_other() -> None:
    assert fields("A picture") == set(Recipe.model_fields)
    assert fields("A film or a sheet") == set(FilmRecipe.model_fields)


def test_the_limits_are_those_of_the_code() -> None:
    assert f"at most {MAX_RECIPE_BYTES:,} bytes" in PAGE
    assert f"{MAX_PAINTED:,} pictures" in PAGE
    assert (MAX_PIXELS, MAX_FRAME_PIXELS) == (2**27, 2**24)
    assert "2²⁷ pixels in all and 2²⁴ in a frame" in PAGE
