"""Hundreds of files and requests that nobody means well: each is refused in words and soon, what reads it stays small,
nothing comes to be outside the data folder, and the studio serves the next good request.

Hostile films, sheets and recipes are in tests/app/api/routes/test_hostile.py, webhooks' addresses in
tests/app/webhooks.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest
from PIL import Image

from tests.chaos import bad_archives, bad_pictures, bad_requests, bad_weights
from tests.chaos.bad_archives import pictures
from tests.chaos.conftest import Figures
from tests.studio import Studio
from worker.dataset.verdicts import Verdict

SOON_SECONDS = 5.0
MEMORY_BYTES = 2**30
READERS = ("limited/picture.py", "dataset/decoder.py", "dataset/unpacker.py", "films/decoder.py")
PROBLEM = "application/problem+json"
LOOK_SECONDS = 0.05
START_SECONDS = 5.0  # of a process, until it has limited itself


class Readers:
    """The processes that read strangers' files: how many were seen, and the most memory one had."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.seen: set[int] = set()
        self.largest = 0  # bytes
        self.unlimited: set[int] = set()
        self._others: set[int] = set()  # processes of another kind
        self._since: dict[int, float] = {}  # when each was first seen, by the monotonic clock

    def __enter__(self) -> "Readers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            for process in self._studio.processes():
                with suppress(psutil.Error, OSError, StopIteration):  # it may have ended
                    if process.pid not in self._others:
                        self._look(process)

    def _look(self, process: psutil.Process) -> None:
        since = self._since.setdefault(process.pid, time.monotonic())  # the system's own start may be another clock's
        is_old = time.monotonic() - since > START_SECONDS
        if not any(reader in " ".join(process.cmdline()) for reader in READERS):
            if is_old:  # before that it may be about to become one
                self._others.add(process.pid)
            return
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        self.largest = max(self.largest, int(peak) * 1024)
        self.seen.add(process.pid)
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        space = next(line.split()[3] for line in limits.splitlines() if line.startswith("Max address space"))
        if is_old and space == "unlimited":
            self.unlimited.add(process.pid)


class Ground(NamedTuple):
    """A studio, and the folder that its own is in."""

    studio: Studio
    folder: Path
    readers: Readers

    @property
    def canary(self) -> Path:
        """What must not come to be."""
        return self.folder / "canary"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A studio with one model, which is still whole when all is over."""
    folder = tmp_path_factory.mktemp("ground")
    (folder / "tmp").mkdir()
    quiet = {"GANVAS_IMPORT_SAMPLES": "false", "GANVAS_LOG_LEVEL": "warning", "TMPDIR": str(folder / "tmp")}
    studio = Studio(folder / "data", **quiet)
    try:
        made = studio.client.post("/v1/models", data={"name": "tiny"}, files={"file": ("a", bad_weights.sound())})
        assert made.status_code == 201, made.text
        with Readers(studio) as readers:
            yield Ground(studio, folder, readers)
    finally:
        studio.stop()


def refused(name: str, answer: httpx.Response, seconds: float) -> str:
    """The code of a refusal, which came soon and in the one shape."""
    assert 400 <= answer.status_code < 500, (name, answer.status_code, answer.text[:500])
    assert answer.headers["content-type"] == PROBLEM, name
    assert seconds < SOON_SECONDS, (name, seconds)
    assert "/work/" not in answer.text, name
    assert "Traceback" not in answer.text, name
    problem = answer.json()
    assert problem["status"] == answer.status_code, name
    assert problem["error"]["message"], name
    assert len(answer.content) < 20_000, name
    code: str = problem["error"]["code"]
    return code


def asked(studio: Studio, name: str, method: str, path: str, **options: Any) -> str:
    """The code with which a request is refused."""
    started = time.perf_counter()
    answer = studio.client.request(method, path, **options)
    return refused(name, answer, time.perf_counter() - started)


def still_serves(ground: Ground) -> None:
    """A picture, and nothing where nothing belongs."""
    assert ground.studio.client.get("/v1/models/tiny/image?seed=1").status_code == 200
    assert {path.name for path in ground.folder.iterdir()} == {"data", "data.log", "tmp"}
    assert list((ground.folder / "tmp").iterdir()) == []
    log = ground.studio.log.read_text()
    assert "request_failed" not in log, log[-3000:]


@pytest.mark.parametrize(
    "kind", [bad_requests.ids, bad_requests.bodies, bad_requests.forms], ids=lambda kind: kind.__name__
)
def test_requests_that_nobody_means_well_are_refused(
    ground: Ground, figures: Figures, kind: Callable[[], Iterator[bad_requests.Asked]]
) -> None:
    cases = list(kind())
    for case in cases:
        asked(ground.studio, case.name, case.method, case.path, **case.options)
    still_serves(ground)
    figures.add(f"{len(cases)} bad requests ({kind.__name__}): refused.")


def test_what_is_no_http_is_refused(ground: Ground, figures: Figures) -> None:
    cases = list(bad_requests.raw(f"127.0.0.1:{ground.studio.port}"))
    for name, sent in cases:
        started = time.perf_counter()
        head, _, body = said(ground.studio.port, sent).partition(b"\r\n\r\n")
        assert time.perf_counter() - started < SOON_SECONDS, name
        assert b" 4" in head[:12], (name, head, body[:200])
        assert b"application/problem+json" in head, (name, head)
        assert b'"error"' in body, name
    still_serves(ground)
    figures.add(f"{len(cases)} connections of no HTTP: refused.")


def said(port: int, sent: bytes) -> bytes:
    """The first answer on a connection."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=SOON_SECONDS) as connection:
        with suppress(OSError):  # the other side may have had enough
            connection.sendall(sent)
        with suppress(OSError):
            while b'"error"' not in answer and (chunk := connection.recv(65_536)):
                answer += chunk
    return answer


def test_a_body_without_end_is_refused_as_soon_as_it_is_too_much(ground: Ground) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 10 * 2**30:
            sent += 2**16
            yield b" " * 2**16

    asked(ground.studio, "10 GiB in chunks", "POST", "/v1/images/generations", content=endless())
    assert sent < 64 * 2**20
    still_serves(ground)


def test_weights_that_are_programs_or_lies_are_refused(ground: Ground, figures: Figures) -> None:
    canary = str(ground.canary)
    kinds = {
        "pickle_refused": list(bad_weights.pickles(canary)),
        "checkpoint_invalid": [*bad_weights.lying(), *bad_weights.misfits()],
    }
    for code, cases in kinds.items():
        for name, file in cases:
            sent = {"data": {"name": "bad"}, "files": {"file": ("model.safetensors", file)}}
            assert asked(ground.studio, name, "POST", "/v1/models", **sent) == code, name
    assert [model["id"] for model in ground.studio.client.get("/v1/models").json()["data"]] == ["tiny"]
    still_serves(ground)
    figures.add(f"{sum(map(len, kinds.values()))} files of weights: refused.")


def test_pictures_that_cannot_be_read_are_refused_wherever_one_is_sent(ground: Ground, figures: Figures) -> None:
    bad = [*bad_pictures.undecodable(), *bad_pictures.strange()]
    jobs = len(ground.studio.client.get("/v1/jobs").json()["data"])
    for name, file in bad:
        picture = {"image": ("a.png", file)}
        asked(ground.studio, name, "POST", "/v1/images/variations", files=picture)
        asked(ground.studio, name, "POST", "/v1/renders", files=picture, data={"kind": "projection"})
    for name, file in (*bad, *bad_pictures.odd()):
        asked(ground.studio, name, "POST", "/v1/recipes/verify", files={"file": ("a.png", file)})
    assert len(ground.studio.client.get("/v1/jobs").json()["data"]) == jobs
    still_serves(ground)
    figures.add(f"{len(bad)} pictures that are none, to three routes: refused.")


def prepared(studio: Studio, name: str, archive: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """A dataset once its preparation is over, and its verdicts by file; an upload that is refused is neither."""
    started = time.perf_counter()
    answer = studio.client.post("/v1/datasets", data={"name": "bad"}, files={"files": ("a.zip", archive)})
    if answer.status_code != 201:
        refused(name, answer, time.perf_counter() - started)
        return {"status": "failed", "error": answer.json()["error"]}, {}
    studio.finish(answer.json()["job"])
    dataset = studio.client.get(f"/v1/datasets/{answer.json()['id']}").json()
    items = {}
    if dataset["count"]:
        page = studio.client.get(f"/v1/datasets/{dataset['id']}/items", params={"limit": 200}).json()["data"]
        items = {item["file_name"]: item["verdict"] for item in page}
    return dataset, items


def test_every_picture_of_a_dataset_has_its_verdict(ground: Ground, figures: Figures) -> None:
    kinds = {
        "undecodable": ({"corrupt", "too_large"}, list(bad_pictures.undecodable())),
        "strange": ({"corrupt", "unsupported"}, list(bad_pictures.strange())),
        "odd": (set(Verdict), list(bad_pictures.odd())),
    }
    named = [
        (f"{kind}/{number}.png", file) for kind, (_, files) in kinds.items() for number, (_, file) in enumerate(files)
    ]
    dataset, verdicts = prepared(ground.studio, "a dataset of bad pictures", bad_archives.packed(*pictures(), *named))
    assert dataset["status"] == "ready", dataset
    for kind, (allowed, files) in kinds.items():
        for number, (name, _) in enumerate(files):
            assert verdicts[f"{kind}/{number}.png"] in allowed, (name, verdicts[f"{kind}/{number}.png"])
    assert sum(verdict == "ok" for verdict in verdicts.values()) >= len(pictures())
    still_serves(ground)
    figures.add(f"{len(named)} pictures of a dataset: a verdict each.")


def test_archives_that_lie_or_flood_cost_no_more_than_their_own_dataset(
    ground: Ground, figures: Figures, rounds: Callable[[int, int], int]
) -> None:
    every = rounds(4, 1)  # each is a job; in the short form a quarter of them
    hopeless = list(bad_archives.hopeless())[::every]
    for name, archive in hopeless:
        dataset, _ = prepared(ground.studio, name, archive)
        assert dataset["status"] == "failed", (name, dataset)
        assert dataset["error"]["message"], name
    mixed = list(bad_archives.mixed(str(ground.canary)))[::every]
    for name, archive, expected in mixed:
        dataset, verdicts = prepared(ground.studio, name, archive)
        assert dataset["status"] == "ready", (name, dataset)
        assert expected in verdicts.values(), (name, verdicts)
        assert list(verdicts.values()).count("ok") >= len(pictures()), (name, verdicts)
    still_serves(ground)
    figures.add(f"{len(hopeless) + len(mixed)} archives: refused, or a verdict on what is bad in them.")


def test_what_read_all_that_stayed_small(ground: Ground, figures: Figures) -> None:
    archive = bad_archives.packed(*pictures(200), ("large.png", large()))
    dataset, verdicts = prepared(ground.studio, "a large picture", archive)
    assert (dataset["status"], verdicts["large.png"]) == ("ready", "alpha")
    readers = ground.readers
    assert readers.seen
    assert not readers.unlimited
    assert readers.largest < MEMORY_BYTES
    assert not ground.canary.exists()
    figures.add(
        f"{len(readers.seen)} processes read strangers' files, the largest took {readers.largest / 2**20:.0f} MiB."
    )


def large() -> bytes:
    """A picture near the limit, so that the figure of memory is one."""
    return bad_pictures.saved(Image.new("RGBA", (7900, 7900), (1, 2, 3, 4)), "PNG", compress_level=1)
