"""The report at the end of a training: as data, and as one page that needs nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from models.metrics.concerns import concerns
from models.metrics.glossary import meanings
from models.metrics.plots import DARK, LIGHT, grown, level, plot, png

TEMPLATE = "page.html.j2"
MOST_LOSSES = 400  # rows kept of a training's ticks, each the mean of its neighbours: as many as a plot has pixels for

Row = Mapping[str, Any]


class Plot(NamedTuple):
    """One plot for either ground."""

    title: str
    light: str  # data URIs
    dark: str


def report(title: str, growth: Sequence[Row], ticks: Sequence[Row], final: Mapping[str, float], config: Row) -> Row:
    """All that the page says but its pictures, ready for JSON.

    growth: of each snapshot "kimg" and what was measured; ticks: "kimg" and "losses" by name; final: the last measures.
    """
    figures = [
        {
            **{"name": meaning.name, "title": meaning.title, "says": meaning.says, "value": final[meaning.name]},
            "real": final.get(f"{meaning.name}_floor", meaning.real),
        }
        for meaning in meanings(final)
    ]
    return {
        "title": title,
        "figures": figures,
        "concerns": [concern._asdict() for concern in concerns([*growth, final])],
        "copying_can_be_told": "memorisation" in final,
        "growth": [dict(row) for row in growth],
        "losses": mean_losses(ticks),
        "config": dict(config),
    }


def report_page(told: Row, images: Mapping[str, Image.Image]) -> str:
    """A report as HTML with all pictures inside; `images` by what to write under each."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(TEMPLATE).render(
        report=told,
        plots=plots(told["growth"], told["losses"]),
        images={caption: png(image) for caption, image in images.items()},
        settings=dict(_flat(told["config"])),
        shown=shown,
    )


def plots(growth: Sequence[Row], losses: Sequence[Row]) -> list[Plot]:
    """Growth of the measures that are there, each beside what real pictures reach, and the losses."""
    near = grown(growth, "memorisation", "distance to the training pictures")
    drawn = {
        "Distance": grown(growth, "swd", "distance") + grown(growth, "swd_floor", "real pictures", dashed=True),
        "Coverage": grown(growth, "coverage", "coverage")
        + grown(growth, "precision", "precision")
        + grown(growth, "coverage_floor", "coverage of real pictures", dashed=True),
        "Copying": near + grown(growth, "copied", "share copied") + level(1.0, "unseen real pictures", near),
        "Losses": [line for name in _loss_names(losses) for line in grown(losses, name, name)],
    }
    return [Plot(title, plot(lines, LIGHT), plot(lines, DARK)) for title, lines in drawn.items() if lines]


def mean_losses(ticks: Sequence[Row]) -> list[dict[str, float]]:
    """At most MOST_LOSSES rows of "kimg" and losses by name, each the mean of as many ticks that have losses."""
    told = [tick for tick in ticks if tick.get("losses")]
    size = -(-len(told) // MOST_LOSSES)
    return [_mean(told[start : start + size]) for start in range(0, len(told), size or 1)]


def _mean(ticks: Sequence[Row]) -> dict[str, float]:
    means = {"kimg": float(ticks[-1]["kimg"])}
    for name in dict.fromkeys(name for tick in ticks for name in tick["losses"]):
        values = [tick["losses"][name] for tick in ticks if name in tick["losses"]]
        means[name] = sum(values) / len(values)
    return means


def _loss_names(losses: Sequence[Row]) -> list[str]:
    return [name for name in dict.fromkeys(name for row in losses for name in row) if name != "kimg"]


def _flat(config: Row, above: str = "") -> list[tuple[str, Any]]:
    """Settings within settings by their dotted names."""
    settings: list[tuple[str, Any]] = []
    for name, value in config.items():
        settings.extend(_flat(value, f"{above}{name}.") if isinstance(value, Mapping) else [(f"{above}{name}", value)])
    return settings


def shown(value: Any) -> str:
    """A figure or a setting as an artist reads it."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or "–"
    return str(value)
