"""The plot of benchmarks/serving.py: pictures a second by clients, and the wait where a steady rate is wanted."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from serving_report import CLOSED, OURS, Figures

# Okabe and Ito's colours, which the colour-blind tell apart; markers and hatches say the same.
LOOKS = {
    OURS: ("#0072B2", "o", ""),
    "LitServe": ("#D55E00", "s", "//"),
    "BentoML": ("#009E73", "^", ".."),
    "FastAPI": ("#999999", "D", "xx"),
}
FOREVER = 1e5  # milliseconds: the highest bar, and what stands for no answer at all
INK, GRID = "#333333", "#DDDDDD"


def plot(figures: Figures, file: Path) -> None:
    """A row of two panels for each model, as a PNG."""
    mpl.use("Agg")
    models = list(figures.bare)
    plt.rcParams.update({"font.size": 10, "axes.edgecolor": INK, "text.color": INK, "axes.labelcolor": INK})
    figure, grid = plt.subplots(len(models), 2, figsize=(10, 3.6 * len(models)), squeeze=False, layout="constrained")
    for (left, right), model in zip(grid, models, strict=True):
        _rates(left, figures, model)
        _waits(right, figures, model)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color=GRID, linewidth=0.8)
            axes.set_axisbelow(True)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def _rates(axes: Axes, figures: Figures, model: str) -> None:
    """Closed loop: lines by the number of clients, beneath the limit."""
    loads = [load for load in figures.loads() if load[:2] == (model, CLOSED)]
    for server in figures.servers():
        colour, marker, _ = LOOKS[server]
        rates = [figures.best(load)[server].measured.rate for load in loads]
        axes.plot(range(len(loads)), rates, color=colour, marker=marker, linewidth=2, label=server)
    limit = figures.limit(model).rate
    highest = max(limit, *(row.measured.rate for load in loads for row in figures.best(load).values()))
    axes.axhline(limit, color=INK, linewidth=1, linestyle="--", label="the limit: no server at all")
    axes.set(title=f"{model}: pictures a second", xlabel="clients that ask one picture after the other")
    axes.set(xticks=range(len(loads)), xticklabels=[f"{clients}" for *_, clients in loads], ylim=(0, 1.08 * highest))


def _waits(axes: Axes, figures: Figures, model: str) -> None:
    """Open loop: a group of bars for each wanted rate, p95 on a logarithmic scale."""
    loads = [load for load in figures.loads() if load[0] == model and load[1] != CLOSED]
    servers = figures.servers()
    width = 0.8 / len(servers)
    for index, server in enumerate(servers):
        colour, _, hatch = LOOKS[server]
        waits = [figures.best(load)[server].measured.p95 for load in loads]
        places = [group + (index - (len(servers) - 1) / 2) * width for group in range(len(loads))]
        bars = axes.bar(
            places,
            [min(wait, FOREVER) for wait in waits],
            0.9 * width,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0,
        )
        axes.bar_label(bars, [_milliseconds(wait) for wait in waits], padding=2, fontsize=8)
    limit = figures.limit(model).rate
    names = [f"{wanted}\n({float(wanted.partition('/')[0]) / limit:.0%} of the limit)" for _, wanted, _ in loads]
    axes.set(title=f"{model}: ms until 95 of 100 pictures are there", yscale="log", xticks=range(len(loads)))
    axes.set(xticklabels=names, xlabel="pictures wanted at random moments")
    axes.set_ylim(1, 3 * max(bar.get_height() for bar in axes.patches))


def _milliseconds(wait: float) -> str:
    if wait >= FOREVER:
        return "never"
    return f"{wait:.0f}" if wait < 1000 else f"{wait / 1000:.1f} s"
