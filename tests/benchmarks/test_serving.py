"""The load generator must count right against a server whose behaviour is known, and the report must not flatter."""

import asyncio
import importlib
import math
import sys
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PICTURE = b"\x89PNG\r\n\x1a\n and the rest of it"
NO_PICTURE = b"{}"

Answer = Callable[
    [int], Awaitable[tuple[int, bytes] | None]
]  # the number of the request -> status, body; None hangs up


@pytest.fixture(autouse=True)
def beside_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def load() -> ModuleType:
    return importlib.import_module("load")


@pytest.fixture
def report() -> ModuleType:
    return importlib.import_module("serving_report")


@pytest.fixture
def serving() -> ModuleType:
    return importlib.import_module("serving")


class TinyServer:
    """HTTP/1.1 with kept connections; what it answers is up to the test."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.paths: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.paths.append(head.split()[1].decode())
                answer = await self.answer(len(self.paths))
                if answer is None:
                    break
                status, body = answer
                writer.write(f"HTTP/1.1 {status} So\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def driven(load: ModuleType, answer: Answer, **of_load: Any) -> tuple[Any, list[str]]:
    """What came of a load on a tiny server, and the paths that it was asked for."""
    server = TinyServer(answer)

    async def run() -> Any:
        async with await asyncio.start_server(server, "127.0.0.1", 0) as listening:
            target = load.Target(listening.sockets[0].getsockname()[1], "/picture?seed={seed}")
            return await load.drive(target, load.Load(**of_load), first_seed=100)

    return asyncio.run(run()), server.paths


def in_time(seconds: float, status: int = 200, body: bytes = PICTURE) -> Answer:
    async def answer(_number: int) -> tuple[int, bytes]:
        await asyncio.sleep(seconds)
        return status, body

    return answer


def test_a_closed_loop_keeps_every_client_asking_for_a_new_seed_and_counts_each_picture(load: ModuleType) -> None:
    measured, paths = driven(load, in_time(0.02), clients=4, seconds=0.6)
    assert measured.requests == len(paths)
    assert paths == [f"/picture?seed={seed}" for seed in range(100, 100 + len(paths))]
    assert 0.6 * measured.rate <= len(paths) <= 0.6 * measured.rate + 4  # those on their way at the end
    assert 40 < measured.rate <= 4 / 0.02
    assert 20 <= measured.p50 <= measured.p95 <= measured.p99
    assert measured.errors == 0
    assert 0 < measured.client_ms < 20


def test_what_comes_before_the_measured_seconds_is_in_no_figure(load: ModuleType) -> None:
    async def slow_at_first(number: int) -> tuple[int, bytes]:
        await asyncio.sleep(0.2 if number == 1 else 0.005)
        return (500, NO_PICTURE) if number == 2 else (200, PICTURE)

    measured, paths = driven(load, slow_at_first, clients=1, warm=0.3, seconds=0.3)
    assert len(paths) > 10
    assert measured.p99 < 200
    assert measured.errors == 0


@pytest.mark.parametrize("wrong", [(503, PICTURE), (200, NO_PICTURE), None], ids=["status", "no picture", "hang-up"])
def test_every_answer_that_is_no_picture_is_an_error_and_no_latency(
    load: ModuleType, wrong: tuple[int, bytes] | None
) -> None:
    failed = 0

    async def answer(number: int) -> tuple[int, bytes] | None:
        nonlocal failed
        if number % 4 == 0:
            failed += 1
            return wrong
        await asyncio.sleep(0.02)
        return 200, PICTURE

    measured, paths = driven(load, answer, clients=2, seconds=0.5)
    assert failed > 3
    assert measured.errors == failed
    assert measured.requests == len(paths)
    assert measured.p50 >= 20


def test_a_picture_that_waits_for_a_free_connection_has_waited_since_it_was_wanted(load: ModuleType) -> None:
    measured, paths = driven(load, in_time(0.02), clients=1, seconds=0.5, rate=100)
    wanted = len(load.arrivals(load.Load(1, 0.5, rate=100)))
    assert len(paths) == wanted  # twice as many as one connection gets: all are asked for in the end
    assert measured.rate <= 1 / 0.02
    assert measured.p95 > 300  # each took 20 ms, from the moment it was asked for
    assert measured.errors == 0


def test_an_open_loop_that_the_server_keeps_up_with_adds_no_wait_of_its_own(load: ModuleType) -> None:
    measured, _ = driven(load, in_time(0.02), clients=32, seconds=0.5, rate=100)
    assert 20 <= measured.p50 < 100  # one connection alone would make them wait for hundreds
    assert measured.errors == 0


@pytest.mark.parametrize("rate", [0.0, 40.0], ids=["closed", "open"])
def test_what_is_never_answered_is_an_error_that_took_until_the_end(
    load: ModuleType, monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    monkeypatch.setattr(load, "PATIENCE", 0.3)
    measured, _ = driven(load, in_time(3600), clients=2, seconds=0.2, rate=rate)
    wanted = len(load.arrivals(load.Load(2, 0.2, rate=rate))) if rate else 2
    assert measured.errors == wanted
    assert measured.p50 >= 300
    assert measured.rate == 0


def test_pictures_are_wanted_at_the_rate_that_was_asked_for_and_at_uneven_moments(load: ModuleType) -> None:
    moments = load.arrivals(load.Load(1, 100, warm=10, rate=50))
    assert len(moments) == pytest.approx(50 * 110, rel=0.05)
    assert moments == sorted(moments)
    assert moments[0] > 0
    assert moments[-1] < 110
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert sum(gap > 2 / 50 for gap in gaps) / len(gaps) == pytest.approx(math.exp(-2), abs=0.03)


def test_a_percentile_is_one_of_the_values_and_infinite_where_there_are_none(load: ModuleType) -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [load.percentile(values, share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
    assert load.percentile([3.0], 0.5) == 3.0
    assert load.percentile([], 0.99) == math.inf


def row(report: ModuleType, server: str, rate: float, **other: Any) -> Any:
    """A measurement of which only what is given matters."""
    of_row = {"model": "64 px", "kind": "closed", "clients": 16, "how": ""}
    of_row |= {name: other.pop(name) for name in list(other) if name in of_row}
    latencies = {"p50": 10.0, "p95": 20.0, "p99": 30.0, "errors": 0, "requests": 100, "client_ms": 0.1} | other
    return report.Row(**of_row, server=server, measured=report.Measured(rate=rate, **latencies))


def figures(report: ModuleType, rows: list[Any], rate: float = 1000.0, lone_ms: float = 4.0) -> Any:
    return report.Figures({}, {"64 px": [report.Bare({"a": rate, "b": rate / 2}, {"1": lone_ms, "2": 9.0})]}, rows)


def claimed(report: ModuleType, *args: Any, **options: Any) -> list[tuple[float, float, bool]]:
    return [(round(c.figure, 3), c.wanted, c.holds) for c in report.claims(figures(report, *args, **options))]


def test_each_peer_counts_with_the_configuration_that_is_best_under_that_load(report: ModuleType) -> None:
    rows = [
        row(report, "Ganvas", 780),
        row(report, "LitServe", 300, how="batch 1"),
        row(report, "LitServe", 600, how="batch 16, 2 ms"),
        row(report, "FastAPI", 200),
    ]
    assert claimed(report, rows) == [(1.3, 1.3, True), (0.78, 0.7, True)]
    assert "LitServe (batch 16, 2 ms)" in str(report.claims(figures(report, rows))[0])
    rows[0] = row(report, "Ganvas", 690)
    assert claimed(report, rows) == [(1.15, 1.3, False), (0.69, 0.7, False)]
    assert str(report.claims(figures(report, rows))[0]).startswith("NO ")


def test_configurations_that_are_near_their_servers_best_under_some_load_go_on(report: ModuleType) -> None:
    rates = {"a": (10, 300), "b": (80, 295), "c": (100, 100), "d": (20, 20)}  # with 1 client and with 16
    rows = [
        row(report, "LitServe", rate, how=how, clients=clients)
        for how, each in rates.items()
        for clients, rate in zip((1, 16), each, strict=True)
    ]
    rows += [row(report, "FastAPI", 5, how="e"), row(report, "FastAPI", 0, how="f"), row(report, "BentoML", 0, how="g")]
    assert report.hopeful(rows) == {("LitServe", "a"), ("LitServe", "b"), ("LitServe", "c"), ("FastAPI", "e")}


def test_the_median_of_the_rounds_counts_and_the_sum_of_the_errors(report: ModuleType) -> None:
    rows = [row(report, "Ganvas", rate, errors=1, p95=rate) for rate in (100.0, 900.0, 800.0)]
    (one,) = report.medians(rows)
    assert (one.measured.rate, one.measured.p95, one.measured.errors) == (800, 800, 3)


def test_the_limit_is_the_way_whose_median_is_best(report: ModuleType) -> None:
    rounds = [({"a": 900.0, "b": 100.0}, 5.0), ({"a": 800.0, "b": 2000.0}, 4.0), ({"a": 850.0, "b": 300.0}, 6.0)]
    limit = report.limit([report.Bare(rates, {"1 threads": lone}) for rates, lone in rounds])
    assert limit == (850, "a", 5)


def test_a_lone_client_is_held_to_the_bare_time_and_not_to_the_lead_of_busy_ones(report: ModuleType) -> None:
    rows = [row(report, "Ganvas", 100, clients=1, p50=6.5), row(report, "BentoML", 90, clients=1)]
    assert claimed(report, rows) == [(1.111, 1.0, True), (6.5, pytest.approx(6.6), True)]
    slower = [row(report, "Ganvas", 100, clients=1, p50=6.7), row(report, "BentoML", 110, clients=1)]
    assert claimed(report, slower) == [(0.909, 1.0, False), (6.7, pytest.approx(6.6), False)]


def test_where_all_get_the_same_pictures_the_shorter_wait_is_first(report: ModuleType) -> None:
    kind = report.kind(300.0)
    rows = [
        row(report, "Ganvas", 300, kind=kind, p95=50.0),
        row(report, "LitServe", 301, kind=kind, p95=400.0, how="batch 1"),
        row(report, "LitServe", 299, kind=kind, p95=40.0, how="batch 16, 0 ms"),
    ]
    assert claimed(report, rows) == [(0.8, 1.0, False)]


def test_kept_figures_give_the_same_report(report: ModuleType, tmp_path: Path) -> None:
    measured = figures(report, [row(report, "Ganvas", 700), row(report, "FastAPI", 200, errors=7, p99=math.inf)])
    measured.keep(tmp_path / "new" / "figures.json")
    read = report.Figures.read(tmp_path / "new" / "figures.json")
    assert read == measured
    assert report.table(read) == report.table(measured)
    page = report.markdown(read)
    assert "| load | Ganvas | FastAPI |" in page
    assert "| 64 px, 16 clients | 700/s, 10 / 20 / 30 ms | 200/s, 10 / 20 / inf ms; 7 errors |" in page
    assert "the limit is 1000 pictures a second (a); one alone takes 4.0 ms" in page


def test_the_plot_is_drawn_even_where_a_server_never_answered(report: ModuleType, tmp_path: Path) -> None:
    kind = report.kind(300.0)
    rows = [row(report, "Ganvas", 700, clients=clients) for clients in (1, 16)]
    rows += [row(report, "BentoML", 0, clients=clients, p95=math.inf) for clients in (1, 16)]
    rows += [row(report, "Ganvas", 300, kind=kind), row(report, "BentoML", 0, kind=kind, p95=math.inf)]
    importlib.import_module("serving_plot").plot(figures(report, rows), tmp_path / "images" / "serving.png")
    assert (tmp_path / "images" / "serving.png").read_bytes().startswith(b"\x89PNG")


def test_a_peer_that_is_not_installed_is_left_out_and_said_so(
    serving: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken: list[str] = []
    monkeypatch.setattr(serving.Contest, "run", lambda contest: taken.extend(server.name for server in contest.servers))
    monkeypatch.setattr(sys, "argv", ["serving.py", "--peers", "/no/such/python"])
    serving.measure(serving.arguments())
    assert sorted(set(taken)) == ["FastAPI", "Ganvas"]
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["bentoml", "litserve"]


def test_a_peer_serves_ganvas_own_pictures_and_is_gone_after_its_turn(serving: ModuleType, tmp_path: Path) -> None:
    checkpoint = tmp_path / "bench.safetensors"
    checkpoint.write_bytes(serving.studio.BUNDLED.read_bytes())
    fastapi = next(server for server in serving.SERVERS if server.name == "FastAPI")
    with serving.started(fastapi, Path(sys.executable), checkpoint) as target:
        measured = serving.drive(target, serving.Load(2, 0.5))
    assert measured.errors == 0
    assert measured.rate > 0
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(asyncio.open_connection("127.0.0.1", target.port))
