import base64
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from models.metrics.glossary import MEANINGS
from models.metrics.page import MOST_LOSSES, mean_losses, report, report_page, shown

VOID = {"meta", "img", "source"}
FINAL = {
    **{"swd": 17.25, "swd_floor": 15.5, "swd_16": 21.5, "swd_32": 15.75, "swd_64": 14.125},
    **{"precision": 0.875, "recall": 0.625, "density": 1.125, "coverage": 0.75, "coverage_floor": 0.96875},
    **{"mmd": 3.5, "mmd_floor": -0.25, "memorisation": 1.0625, "memorisation_z": 1.5, "copied": 0.005},
    **{"copied_chance": 0.081, "duplicates": 0.015},
}
GROWTH = [
    {"kimg": 10.0, "minutes": 1.0},
    {"kimg": 20.0, "minutes": 2.0, **FINAL, "coverage": 0.5},
    {"kimg": 40.0, "minutes": 4.5, **FINAL},
]
TICKS = [{"kimg": kimg, "losses": {"G": 1 / kimg, "D": kimg}, "progress": 0.5} for kimg in range(1, 41)]
CONFIG = {"preset": "tiny", "network": {"resolution": 64, "widths": [256, 128]}, "total_kimg": None}


class Page(HTMLParser):
    """What a browser would see; a tag that is not closed is an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.figures: dict[str, str] = {}
        self.text = ""
        self._figure: str | None = None
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.sources += [given[name] for name in ("src", "srcset", "href") if name in given]
        self._figure = given.get("data-figure")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._figure = None

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if self._figure:
            self.figures[self._figure] = data


@pytest.fixture(scope="module")
def page() -> Page:
    images = {"Samples": Image.new("RGB", (8, 4), "red"), "Nearest <pairs>": Image.new("RGB", (4, 8), "blue")}
    return Page(report_page(report("Foxes & <owls>", GROWTH, TICKS, FINAL, CONFIG), images))


def test_the_page_has_every_figure_with_its_meaning(page: Page) -> None:
    assert set(page.figures) == {name for name in FINAL if not name.endswith("_floor")}
    assert {name: float(text) for name, text in page.figures.items()} == pytest.approx(
        {name: FINAL[name] for name in page.figures}, rel=5e-3
    )
    assert "15.5" in page.text
    for meaning in MEANINGS:
        assert (meaning.says in page.text) == (meaning.name in FINAL)


def test_the_page_needs_nothing_else(page: Page) -> None:
    assert len(page.sources) == 2 + 4 * 2  # two sheets, and four plots for a light and a dark ground
    decoded = []
    for source in page.sources:
        kind, data = source.split(";base64,")
        content = base64.b64decode(data, validate=True)
        if kind == "data:image/png":
            decoded.append(Image.open(io.BytesIO(content)).size)
        else:
            assert kind == "data:image/svg+xml"
            assert b"</svg>" in content
    assert decoded == [(8, 4), (4, 8)]


def test_names_of_others_are_text_and_no_markup(page: Page) -> None:
    assert "Foxes & <owls>" in page.text
    assert "Nearest <pairs>" in page.text


def test_the_page_has_every_setting(page: Page) -> None:
    for words in ("preset", "tiny", "network.resolution", "64", "network.widths", "256, 128", "total_kimg"):
        assert words in page.text


def test_the_page_says_whether_there_is_cause_for_concern() -> None:
    copying = {**FINAL, "memorisation": 0.4, "memorisation_z": -9.0}
    without = {name: value for name, value in FINAL.items() if not name.startswith(("memorisation", "copied"))}
    said = [Page(report_page(report("A", [], [], final, {}), {})).text for final in (FINAL, copying, without)]
    assert ["No sign of collapse or of copying" in text for text in said] == [True, False, False]
    assert ["Copying." in text for text in said] == [False, True, False]
    assert ["cannot be told" in text for text in said] == [False, False, True]


def test_a_training_without_figures_has_a_page_too() -> None:
    page = Page(report_page(report("A", [{"kimg": 1.0, "minutes": 0.5}], TICKS[:1], {}, CONFIG), {}))
    assert page.figures == {}
    assert "collapse" not in page.text


def test_the_data_is_json_and_has_all_that_was_given() -> None:
    told = json.loads(json.dumps(report("A", GROWTH, TICKS, FINAL, CONFIG), allow_nan=False))
    assert (told["growth"], told["config"]) == (GROWTH, CONFIG)
    assert {figure["name"]: figure["value"] for figure in told["figures"]}.items() <= FINAL.items()
    real = {figure["name"]: figure["real"] for figure in told["figures"]}
    assert (real["swd"], real["mmd"], real["memorisation"], real["recall"]) == (15.5, -0.25, 1.0, None)


@pytest.mark.parametrize("count", [0, 1, MOST_LOSSES, 3 * MOST_LOSSES + 7])
def test_losses_are_thinned_to_means_of_neighbours(count: int) -> None:
    values = np.random.RandomState(0).rand(count)
    ticks = [{"kimg": kimg, "losses": {"G": value}} for kimg, value in enumerate(values)]
    rows = mean_losses([*ticks, {"kimg": count, "losses": {}}])
    assert len(rows) <= MOST_LOSSES
    size = -(-count // MOST_LOSSES)
    expected = [np.mean(values[start : start + size]) for start in range(0, count, max(size, 1))]
    np.testing.assert_allclose([row["G"] for row in rows], expected)
    assert not rows or rows[-1]["kimg"] == count - 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0012345, "0.00123"), (1234.5, "1,234"), (64, "64"), ((), "–"), ([1, None], "1, –")],
)
def test_values_are_written_for_people(value: object, text: str) -> None:
    assert shown(value) == text
