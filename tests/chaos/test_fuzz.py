"""Requests made of the OpenAPI document, thousands of them, one after the other and on what came of each other: no
answer is a 5xx, has a status or a content type that the document does not name, or a body of another shape."""

import base64
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from sqlalchemy import select

from app.api import advising
from app.core import jobs
from app.core.records import Job
from app.core.settings import Settings
from app.serving.recipe import Recipe
from app.serving.runtime import runtime
from tests.chaos.conftest import Figures
from tests.conftest import RunningApp, running_app, running_redis
from worker import tasks

# Left out: rejection of what fits the schema, for most of what is wrong here a schema cannot say; and what belongs to
# keys, which loopback has none of.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ensure_resource_availability",
)
KNOWN = 0.6  # of what names something names what there is
MODELS = 24  # some for the fuzzer to delete
REFUSALS = ["400", "401", "403", "404", "405", "406", "408", "409", "413", "415", "422", "429", "431"]
TRACEBACK = "Traceback (most recent call last)"
FIRST_SEED = int(os.environ.get("FUZZ_SEED", "0"))  # to send others than the last time
# Phases, examples an operation, and a header; the first is what a short run does, and a full one goes round.
RUNS = (
    ("coverage,fuzzing,stateful", 6, "Accept: */*"),
    ("fuzzing,stateful", 30, "Accept: image/png"),
    ("fuzzing,stateful", 30, "Accept: application/zip"),
    ("fuzzing,stateful", 30, "Accept: application/json"),
)
REQUEST_SECONDS = 60.0  # a search for a foreign picture takes several, beside other work


@dataclass
class Found:
    """What was sent, and what was wrong with the answers."""

    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, report: Path, private: str) -> None:
        """Count what the events of a run tell; `private` is what no answer may hold."""
        for line in report.read_text().splitlines():
            ((kind, event),) = json.loads(line).items()
            if kind == "NonFatalError":
                self.failures.append(f"{event.get('label')}: {event['value']}")
            elif kind == "ScenarioFinished" and "cases" in event["recorder"]:
                self._add_scenario(event["recorder"], private)

    def _add_scenario(self, recorder: dict[str, Any], private: str) -> None:
        for case_id, case in recorder["cases"].items():
            self.cases += 1
            asked = {name: value for name, value in case["value"].items() if name not in {"meta", "id"}}
            answer = (recorder["interactions"].get(case_id) or {}).get("response")
            if answer is not None:
                self.statuses[answer["status_code"]] += 1
                body = base64.b64decode((answer["content"] or {}).get("$base64", "")).decode(errors="replace")
                if private in body or TRACEBACK in body:
                    self.failures.append(f"This tells too much: {body[:500]} {asked}")
            for check in recorder["checks"].get(case_id, ()):
                if check["status"] != "success":
                    wrong = check.get("failure_info", {}).get("failure", {})
                    self.failures.append(f"{check['name']}: {wrong.get('title')}: {wrong.get('message')} {asked}")


@pytest.fixture
def furnished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningApp]:
    """An application that holds one of everything there is to ask for. It has no worker: what jobs do is tested where
    they are."""
    settings = Settings(
        data=tmp_path / "studio",
        threads=1,
        max_batch=8,
        max_upload_mib=4,
        max_queued_jobs=100_000,  # none is ever taken
        default_model="tiny",
    )
    settings.data.mkdir()
    monkeypatch.setattr(advising, "WAIT_SECONDS", 0.1)  # nobody measures how quick this machine is
    monkeypatch.setenv("GANVAS_DATA", str(settings.data))
    with running_redis(settings), running_app(settings) as app, seeker(app):
        yield app


@contextmanager
def seeker(app: RunningApp) -> Iterator[None]:
    """What a worker would do for requests that wait for it: each picture that is looked for is found, and always the
    same."""
    ended = threading.Event()

    def seek() -> None:
        while not ended.wait(0.1):
            with app.db.read() as session:
                waiting = list(session.scalars(select(Job).where(Job.kind == "project", Job.status == "queued")))
            for job in waiting:
                claim = jobs.claim(app.db, job.id, threading.Event())
                if claim is not None:
                    found = {"model": job.request["model"], "checkpoint": job.request["checkpoint"], "seed": 1}
                    recipe = Recipe(**found, size=(32, 32), **runtime(torch.device("cpu"), "auto")._asdict())
                    claim.finish("succeeded", message="Found.", result={"recipe": recipe.model_dump(mode="json")})

    thread = threading.Thread(target=seek, daemon=True)
    thread.start()
    yield
    ended.set()
    thread.join()


def furnish(app: RunningApp) -> dict[str, list[str]]:
    """Make what is there to ask for, or make it again; by the names of the parameters that mean it."""
    with app.client() as client:
        names = ["tiny", *(f"m{number}" for number in range(MODELS))]
        shas = [app.publish(name, seed=seed) for seed, name in enumerate(names)]
        uploaded = made(client.post("/v1/datasets", data={"name": "noise"}, files={"files": ("a.zip", pictures())}))
        tasks.prepare(uploaded["job"])
        found = made(client.post("/v1/models/tiny/directions", json={"count": 3}))["id"]
        drawn = made(client.post("/v1/renders", json={"kind": "grid", "model": "tiny", "seeds": "0-3"}))["id"]
        for job in (found, drawn):
            tasks.render(job)
        drawn_from = {"prompt": "art", "model": "tiny", "keep": True, "n": 3}
        kept = made(client.post("/v1/images/generations", json=drawn_from))["data"]
        training = train(app, client, uploaded["id"])
        waiting = made(client.post("/v1/renders", json={"kind": "batch", "model": "m1", "seeds": "0-3"}))["id"]
        directions = [each["id"] for each in client.get("/v1/models/tiny/directions").json()["data"]]
        listed = {
            "path.model": ["tiny", f"tiny@{shas[0][:12]}", *names],
            "path.dataset": [uploaded["id"]],
            "path.job": [training, drawn, waiting, uploaded["job"]],
            "path.artwork": [each["artwork"] for each in kept],
            "path.name": directions,
            "path.item": ["0", "1"],
            "path.kimg": ["1.0"],
            "body.of": [kept[0]["artwork"]],
            "body.checkpoint": [shas[0][:12]],
            "body.with": names,
            "body.render": [drawn],
        }
    return listed | {
        f"{place}.{name}": listed[f"path.{name}"] for place in ("query", "body") for name in ("model", "dataset")
    }


def pictures() -> bytes:
    """A zip of noise with captions."""
    random, place = np.random.RandomState(0), io.BytesIO()
    with zipfile.ZipFile(place, "w") as archive:
        for number in range(24):
            file = io.BytesIO()
            Image.fromarray(random.randint(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "PNG")
            archive.writestr(f"{number}.png", file.getvalue())
            archive.writestr(f"{number}.txt", f"noise number {number}")
    return place.getvalue()


def train(app: RunningApp, client: httpx.Client, dataset: str) -> str:
    """A training that has ended, with all that it leaves; returns its job."""
    name = f"trained-{os.urandom(3).hex()}"
    job: str = made(client.post("/v1/training/jobs", json={"dataset": dataset, "name": name}))["id"]
    claim = jobs.claim(app.db, job, threading.Event())
    assert claim is not None
    evidence, sheet = app.storage.put(b"nearest pairs"), b"\x89PNG sheet"
    claim.report("warning", {"kind": "copying", "evidence_sha256": evidence})
    app.publish(name, kimg=1.0, job_id=job, sheet=sheet)
    page, told = app.storage.put(b"<!doctype html>"), app.storage.put(b"{}")
    claim.finish("succeeded", message="Done.", result={"report_sha256": page, "report_json_sha256": told})
    return job


def made(answer: httpx.Response) -> dict[str, Any]:
    """What an answer says, which must be one of success."""
    assert answer.is_success, answer.text
    told: dict[str, Any] = answer.json()
    return told


def fuzz(app: RunningApp, folder: Path, listed: dict[str, list[str]], options: Sequence[str]) -> Path:
    """One run of schemathesis: where its events are written down."""
    folder.mkdir()
    report = folder / "events.ndjson"
    (folder / "schemathesis.toml").write_text(configuration(listed))
    command = [
        *(Path(sys.executable).with_name("schemathesis"), "--config-file", "schemathesis.toml", "run"),
        *(f"{app.url}/v1/openapi.json", "--checks", ",".join(CHECKS), "--continue-on-failure", "--no-shrink"),
        *("--generation-database", "none", "--request-timeout", str(REQUEST_SECONDS), "--warnings", "off"),
        *("--no-color", "--report", "ndjson", "--report-ndjson-path", report.name, *options),
    ]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert report.exists(), said.stdout + said.stderr
    return report


def configuration(listed: dict[str, list[str]]) -> str:
    """What is there, so that requests name it more often than not; and what a refusal may be answered with."""
    lines = ["[dictionaries]"]
    lines += [f"{json.dumps(name)} = {{values = {json.dumps(values)}}}" for name, values in listed.items()]
    lines += ["[parameters]"]
    lines += [f"{json.dumps(name)} = {{dictionary = {json.dumps(name)}, probability = {KNOWN}}}" for name in listed]
    lines += ["[checks.negative_data_rejection]", f"expected-statuses = {json.dumps(REFUSALS)}"]
    return "\n".join(lines)


def test_no_request_made_of_the_document_is_answered_by_anything_that_it_does_not_say(
    furnished: RunningApp, tmp_path: Path, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    wanted, found = rounds(2_000, 20_000), Found()
    for seed, (phases, examples, accept) in enumerate(cycle(RUNS), start=FIRST_SEED):
        options = ("--seed", str(seed), "--phases", phases, "--max-examples", str(examples), "--header", accept)
        report = fuzz(furnished, tmp_path / str(seed), furnish(furnished), options)
        found.add(report, str(furnished.settings.data))
        if found.cases >= wanted:
            break
    figures.add(
        f"fuzz: {found.cases:,} requests, {dict(sorted(found.statuses.items()))}, {len(found.failures)} failures"
    )
    assert found.failures == []
