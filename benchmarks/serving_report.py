"""What benchmarks/serving.py says of its figures: a table, and the ratios that are wanted."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple, Self

from load import Measured

OURS = "Ganvas"
CLOSED = "closed"
BUSY_CLIENTS = (16, 64)
WANTED_LEAD = {"64 px": 1.3}  # over the best peer with BUSY_CLIENTS; 1 elsewhere
WANTED_SHARE = {"64 px": 0.7, "256 px": 0.9}  # of the limit with BUSY_CLIENTS
NEAR = 0.95  # of the pictures a second of a peer's best configuration: luck may put it first the next time
LONE_FACTOR, LONE_EXTRA_MS = 1.15, 2.0


class Bare(NamedTuple):
    """The loop without a server, by the way in which the cores share the work."""

    rates: dict[str, float]  # pictures a second
    lone_ms: dict[str, float]  # of one picture after the other
    where: str = ""  # device, dtype and torch


class Limit(NamedTuple):
    """What no server can better: of each way the median of the rounds, and of those the best."""

    rate: float  # pictures a second
    way: str
    lone_ms: float


class Row(NamedTuple):
    """One server under one load: one measurement, or the medians of several."""

    model: str
    kind: str  # see kind()
    clients: int
    server: str
    how: str
    measured: Measured

    @property
    def load(self) -> tuple[str, str, int]:
        """What rows that can be compared have in common."""
        return self.model, self.kind, self.clients

    @property
    def merit(self) -> float:
        """What a row is judged by, more is better: pictures a second; where all get as many, a short p95."""
        return self.measured.rate if self.kind == CLOSED else -self.measured.p95


@dataclass(frozen=True)
class Figures:
    """All that was measured."""

    versions: dict[str, str]  # of the peers' packages
    bare: dict[str, list[Bare]]  # by model, of each round
    rows: list[Row]

    def keep(self, file: Path) -> None:
        """Write them as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [row._replace(measured=asdict(row.measured))._asdict() for row in self.rows]  # type: ignore[arg-type]
        bare = {model: [each._asdict() for each in rounds] for model, rounds in self.bare.items()}
        file.write_text(json.dumps({"versions": self.versions, "bare": bare, "rows": rows}, indent=1))

    @classmethod
    def read(cls, file: Path) -> Self:
        """What keep() has written."""
        kept = json.loads(file.read_text())
        rows = [Row(**{**row, "measured": Measured(**row["measured"])}) for row in kept["rows"]]
        bare = {model: [Bare(**each) for each in rounds] for model, rounds in kept["bare"].items()}
        return cls(kept["versions"], bare, rows)

    def limit(self, model: str) -> Limit:
        """Of the bare loop."""
        return limit(self.bare[model])

    def loads(self) -> list[tuple[str, str, int]]:
        """The loads there were, in their order."""
        return list(dict.fromkeys(row.load for row in self.rows))

    def servers(self) -> list[str]:
        """Those that took part, ours first."""
        return sorted(dict.fromkeys(row.server for row in self.rows), key=lambda name: name != OURS)

    def best(self, load: tuple[str, str, int]) -> dict[str, Row]:
        """By server, the medians of its best configuration under this load."""
        best: dict[str, Row] = {}
        for row in medians(row for row in self.rows if row.load == load):
            if row.server not in best or row.merit > best[row.server].merit:
                best[row.server] = row
        return best


def limit(rounds: Sequence[Bare]) -> Limit:
    """The best way, which luck in one round does not make."""
    rates = {way: statistics.median(each.rates[way] for each in rounds) for way in rounds[0].rates}
    lone = (statistics.median(each.lone_ms[way] for each in rounds) for way in rounds[0].lone_ms)
    way = max(rates, key=rates.__getitem__)
    return Limit(rates[way], way, min(lone))


class Claim(NamedTuple):
    """A figure beside what is wanted of it."""

    what: str
    figure: float
    wanted: float
    most: bool = False  # whether wanted is an upper bound

    @property
    def holds(self) -> bool:
        """Whether it is as wanted."""
        return self.figure <= self.wanted if self.most else self.figure >= self.wanted

    def __str__(self) -> str:
        bound = "at most" if self.most else "at least"
        return f"{'yes' if self.holds else 'NO '}  {self.what}: {self.figure:.2f} (wanted: {bound} {self.wanted:.2f})"


def kind(rate: float) -> str:
    """The name of a load in which so many pictures are wanted a second; 0 is the closed loop."""
    return f"{rate:.0f}/s wanted" if rate else CLOSED


def hopeful(rows: Sequence[Row]) -> set[tuple[str, str]]:
    """Server and configuration of all that came near the server's best under some load."""
    best: dict[tuple[object, ...], float] = {}
    for row in rows:
        best[row.load, row.server] = max(row.measured.rate, best.get((row.load, row.server), 0.0))
    return {(row.server, row.how) for row in rows if row.measured.rate >= NEAR * best[row.load, row.server] > 0}


def medians(rows: Iterable[Row]) -> list[Row]:
    """One row for each load and configuration; errors and requests are sums."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.load, row.server, row.how), []).append(row)
    return [group[0]._replace(measured=_median([row.measured for row in group])) for group in groups.values()]


def _median(rounds: Sequence[Measured]) -> Measured:
    figures: dict[str, float] = {}
    for field in fields(Measured):
        values = [getattr(each, field.name) for each in rounds]
        figures[field.name] = sum(values) if field.name in {"errors", "requests"} else statistics.median(values)
    return Measured(**figures)  # type: ignore[arg-type]


def claims(figures: Figures) -> list[Claim]:
    """What is wanted of Ganvas, as far as it was measured."""
    said = []
    for load in figures.loads():
        model, kind, clients = load
        best = figures.best(load)
        ours = best.pop(OURS, None)
        if ours is None:
            continue
        where = f"{model}, {kind}, {clients} clients"
        if best:
            said.append(_lead(where, ours, max(best.values(), key=lambda row: row.merit)))
        if kind == CLOSED and clients in BUSY_CLIENTS:
            share = ours.measured.rate / figures.limit(model).rate
            said.append(Claim(f"{where}: share of the limit", share, WANTED_SHARE[model]))
        if kind == CLOSED and clients == 1:
            most = LONE_FACTOR * figures.limit(model).lone_ms + LONE_EXTRA_MS
            said.append(Claim(f"{where}: median ms of a lone picture", ours.measured.p50, most, most=True))
    return said


def _lead(where: str, ours: Row, peer: Row) -> Claim:
    """How many times the best peer's pictures we give; in an open loop, how many times our p95 its own is."""
    name = f"{peer.server} ({peer.how})"
    if ours.kind != CLOSED:
        return Claim(f"{where}: p95 of {name} over ours", peer.measured.p95 / ours.measured.p95, 1.0)
    wanted = WANTED_LEAD.get(ours.model, 1.0) if ours.clients in BUSY_CLIENTS else 1.0
    return Claim(f"{where}: times {name}", ours.measured.rate / peer.measured.rate, wanted)


def line(row: Row) -> str:
    """A row of the terminal's table."""
    measured = row.measured
    server = f"{row.server} ({row.how})" if row.how else row.server
    latencies = "".join(f"{value:9.1f}" for value in (measured.p50, measured.p95, measured.p99))
    load = f"{row.model}, {row.kind}, {row.clients}"
    return f"{load:34}{server:48}{measured.rate:9.1f}{latencies}{measured.errors:8}{measured.client_ms:10.3f}"


def table(figures: Figures) -> str:
    """The medians of every configuration, for a terminal."""
    names = ("pict./s", "p50 ms", "p95 ms", "p99 ms")
    head = f"{'':82}{''.join(f'{name:>9}' for name in names)}{'errors':>8}{'client ms':>10}"
    lines = [line(row) for load in figures.loads() for row in medians(r for r in figures.rows if r.load == load)]
    return "\n".join([head, *lines, *_notes(figures)])


def markdown(figures: Figures) -> str:
    """The table of the docs: a line for each load, a column for each server in its best configuration."""
    servers = figures.servers()
    lines = [f"| {' | '.join(['load', *servers])} |", "|---" * (1 + len(servers)) + "|"]
    for load in figures.loads():
        best = figures.best(load)
        lines.append(f"| {_load(load)} | {' | '.join(_cell(best.get(server)) for server in servers)} |")
    return "\n".join([*lines, "", *(f"- {note}" for note in _notes(figures))])


def _notes(figures: Figures) -> list[str]:
    """Of each model the limit, and what all was measured with."""
    notes = []
    for model in figures.bare:
        rate, way, lone = figures.limit(model)
        notes.append(f"{model}: the limit is {rate:.0f} pictures a second ({way}); one alone takes {lone:.1f} ms.")
    places = dict.fromkeys(each.where for rounds in figures.bare.values() for each in rounds)
    peers = [f"{package} {version}" for package, version in sorted(figures.versions.items())]
    return [*notes, f"Measured with {', '.join([*places, *peers])}."]


def _load(load: tuple[str, str, int]) -> str:
    model, kind, clients = load
    return f"{model}, {kind}" if kind != CLOSED else f"{model}, {clients} client{'s' if clients > 1 else ''}"


def _cell(row: Row | None) -> str:
    """Pictures a second, and p50 / p95 / p99 in milliseconds."""
    if row is None:
        return ""
    measured = row.measured
    latencies = " / ".join(_short(value) for value in (measured.p50, measured.p95, measured.p99))
    errors = f"; {measured.errors} errors" if measured.errors else ""
    how = f" ({row.how})" if row.how else ""
    return f"{_short(measured.rate)}/s, {latencies} ms{errors}{how}"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"
