"""Advice on presets: at speeds a worker measured, at once where they are known, and honest where they are not."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import delete

from app.api import advising
from app.core import advice
from app.core.calibrations import Speed
from app.core.records import Calibration
from worker import tasks
from worker.training import calibrate
from worker.training.calibrate import CalibrationFailed

FITTING = ("classic", "tiny", "quality", "fine-tune")  # at 32 px


@pytest.fixture(autouse=True)
def _nothing_is_known(app: Any) -> Iterator[None]:
    with app.db.begin() as session:
        session.execute(delete(Calibration))
    yield
    with app.db.begin() as session:
        session.execute(delete(Calibration))


@pytest.fixture
def worker(app: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Do the worker's part: every preset runs at this many seconds a kimg."""

    def run(seconds: float = 6.0, memory: int = 2**30, failing: str = "") -> None:
        def measure_apart(config: str, *_: object) -> Speed:
            if failing and f'"preset": "{failing}"' in config:
                raise CalibrationFailed("Memory ran out.")
            return Speed(seconds, memory)

        monkeypatch.setattr(calibrate, "measure_apart", measure_apart)
        monkeypatch.setenv("GANVAS_DATA", str(app.settings.data))
        tasks.calibrate()

    return run


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer after a moment."""
    monkeypatch.setattr(advising, "WAIT_SECONDS", 0.2)
    monkeypatch.setattr(advising, "POLL_SECONDS", 0.05)


def ask(client: httpx.Client, dataset: str) -> httpx.Response:
    answer = client.get("/v1/training/presets", params={"dataset": dataset}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer


def entries(answer: httpx.Response) -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in answer.json()["data"]}


@pytest.mark.usefixtures("impatient")
def test_what_is_not_measured_in_time_is_null_and_the_answer_says_when_to_ask_again(
    client: httpx.Client, app: Any, noise: str
) -> None:
    answer = ask(client, noise)
    assert int(answer.headers["retry-after"]) > 0
    shown = entries(answer)
    for name in FITTING:
        assert shown[name]["measuring"]
        assert shown[name]["good_result"]["minutes"] is None
        assert "still being measured" in shown[name]["why"]
    assert answer.json()["machine"] is None
    with app.db.read() as session:
        assert session.query(Calibration).filter_by(wanted=True).count() == len(FITTING)


@pytest.mark.usefixtures("impatient")
def test_what_is_known_is_told_at_once_with_minutes_and_memory(
    client: httpx.Client, noise: str, worker: Callable[..., None]
) -> None:
    ask(client, noise)
    worker(seconds=6.0)
    answer = ask(client, noise)
    assert "retry-after" not in answer.headers
    tiny = entries(answer)["tiny"]
    goal = advice.goal("tiny", 40, 32)
    for stage, kimg in (("first_look", goal.first_kimg), ("good_result", goal.good_kimg)):
        assert tiny[stage] == {"kimg": kimg, "minutes": pytest.approx(advice.minutes(kimg, 6.0), abs=0.06)}
    assert (tiny["seconds_per_kimg"], tiny["memory_bytes"], tiny["measuring"]) == (6.0, 2**30, False)
    assert tiny["fits"]
    assert tiny["conditional"]
    assert not entries(answer)["classic"]["conditional"]
    assert "threads" in answer.json()["machine"]


def test_an_answer_waits_for_a_worker_that_measures(
    client: httpx.Client, noise: str, worker: Callable[..., None], app: Any
) -> None:
    over = threading.Event()

    def when_asked() -> None:
        while not over.wait(0.05):
            with app.db.read() as session:
                if session.query(Calibration).count():
                    worker()
                    return

    thread = threading.Thread(target=when_asked)
    thread.start()
    shown = entries(ask(client, noise))
    over.set()
    thread.join()
    assert not any(entry["measuring"] for entry in shown.values())


@pytest.mark.usefixtures("impatient")
def test_one_preset_is_advised_and_every_other_says_what_it_is_for_or_why_it_does_not_fit(
    client: httpx.Client, noise: str, worker: Callable[..., None]
) -> None:
    ask(client, noise)
    worker()
    answer = ask(client, noise)
    shown = entries(answer)
    assert [name for name, entry in shown.items() if entry["advised"]] == ["tiny"]
    assert answer.json()["summary"].startswith("Start with tiny.")
    assert not shown["few-shot"]["fits"]
    assert "64, 128, 256, 512 px" in shown["few-shot"]["why"]
    for name in FITTING:
        assert shown[name]["fits"]
        assert shown[name]["risk"]
    assert shown["fine-tune"]["base"] in shown["fine-tune"]["why"]
    assert (answer.json()["object"], answer.json()["dataset"], answer.json()["images"]) == ("list", noise, 40)


@pytest.mark.usefixtures("impatient")
def test_what_fails_or_needs_more_memory_than_there_is_does_not_fit(
    client: httpx.Client, noise: str, worker: Callable[..., None]
) -> None:
    ask(client, noise)
    worker(failing="quality")
    shown = entries(ask(client, noise))
    assert (shown["quality"]["fits"], shown["quality"]["measuring"]) == (False, False)
    assert "Memory ran out." in shown["quality"]["why"]
    assert shown["tiny"]["fits"]


@pytest.mark.usefixtures("impatient")
def test_a_need_beyond_the_machines_memory_is_told(
    client: httpx.Client, noise: str, worker: Callable[..., None]
) -> None:
    ask(client, noise)
    worker(memory=2**50)
    answer = ask(client, noise)
    assert not any(entry["fits"] or entry["advised"] for entry in answer.json()["data"])
    assert "GiB of memory" in entries(answer)["tiny"]["why"]
    assert "No preset fits" in answer.json()["summary"]


def test_a_dataset_that_is_missing_is_not_found(client: httpx.Client) -> None:
    answer = client.get("/v1/training/presets", params={"dataset": "ds_nothing"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "dataset_not_found")
