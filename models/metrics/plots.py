"""Plots of a training's growth, as pictures for a page."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from PIL import Image

SIZE_INCHES = (5.6, 3.2)
COLOURS = ("#3b82f6", "#e8590c", "#2f9e44", "#9c36b5")  # that stand out on white and on black


class Line(NamedTuple):
    """Values over thousands of images; dashed for what real pictures reach."""

    label: str
    kimg: Sequence[float]
    values: Sequence[float]
    dashed: bool = False


class Theme(NamedTuple):
    """Colours of a plot's frame and letters."""

    ink: str
    grid: str


LIGHT = Theme("#343a40", "#dee2e6")
DARK = Theme("#ced4da", "#3a4047")


def grown(rows: Sequence[Mapping[str, Any]], name: str, label: str, *, dashed: bool = False) -> list[Line]:
    """The line of one figure through the rows that have it; none where no row has."""
    measured = [row for row in rows if name in row]
    return [Line(label, [row["kimg"] for row in measured], [row[name] for row in measured], dashed)] if measured else []


def level(value: float, label: str, like: Sequence[Line]) -> list[Line]:
    """A level line as long as the others, where there are others."""
    ends = [kimg for line in like for kimg in line.kimg]
    return [Line(label, [min(ends), max(ends)], [value, value], dashed=True)] if ends else []


def plot(lines: Sequence[Line], theme: Theme) -> str:
    """The lines as a data URI of an SVG with a transparent ground."""
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    colours = iter(COLOURS * len(lines))
    for line in lines:
        colour, style = (theme.ink, "--") if line.dashed else (next(colours), "-")
        marker = "o" if len(line.kimg) == 1 else ""
        axes.plot(line.kimg, line.values, style, color=colour, label=line.label, linewidth=1.6, marker=marker)
    axes.set_xlabel("thousands of images shown", color=theme.ink)
    axes.tick_params(colors=theme.ink)
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.spines[:].set_visible(False)
    axes.legend(frameon=False, labelcolor=theme.ink, fontsize="small")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    return _data_uri("image/svg+xml", drawn.getvalue())


def png(image: Image.Image) -> str:
    """A picture as a data URI."""
    encoded = io.BytesIO()
    image.save(encoded, format="PNG", optimize=True)
    return _data_uri("image/png", encoded.getvalue())


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
