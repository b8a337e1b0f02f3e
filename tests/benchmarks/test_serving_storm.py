import importlib
import json
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "benchmarks" / "serving_storm.py"


@pytest.fixture
def callers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    return importlib.import_module("callers")


@pytest.fixture
def storm(callers: ModuleType) -> Any:
    return callers.Storm(server=None, folder=None, chance=random.Random(0), client=None)


def problem(status: int, **headers: str) -> httpx.Response:
    headers["content-type"] = "application/problem+json"
    return httpx.Response(status, json={"status": status, "detail": "It broke."}, headers=headers)


def test_an_error_is_a_fault_unless_something_was_being_done_that_explains_it(callers: ModuleType, storm: Any) -> None:
    asked = 0.0
    assert callers.fault_of(storm, "hot", asked, problem(500)) == "500: It broke."
    storm.injecting.begin()
    assert callers.fault_of(storm, "hot", asked, problem(500)) is None
    assert callers.fault_of(storm, "swap", asked, problem(500)) == "500: It broke."
    assert callers.fault_of(storm, "victim", asked, problem(404)) == "404: It broke."
    storm.missing.begin()
    assert callers.fault_of(storm, "victim", asked, problem(404)) is None
    assert callers.fault_of(storm, "hot", asked, problem(404)) == "404: It broke."
    storm.missing.end()
    assert callers.fault_of(storm, "victim", asked, problem(404)) is None
    assert callers.fault_of(storm, "victim", storm.missing.until, problem(404)) == "404: It broke."


def test_a_refusal_says_when_to_come_back_and_every_error_has_its_shape(callers: ModuleType, storm: Any) -> None:
    assert callers.fault_of(storm, "hot", 0.0, problem(429)) == "429: It broke."
    assert callers.fault_of(storm, "hot", 0.0, problem(429, **{"retry-after": "1"})) is None
    plain = httpx.Response(429, text="busy", headers={"retry-after": "1"})
    assert callers.fault_of(storm, "hot", 0.0, plain) == "429, and no problem details: busy"


def test_another_seeds_picture_and_a_torn_file_are_faults(callers: ModuleType, storm: Any) -> None:
    whole = b"\x89PNG...IEND\xaeB`\x82"
    for seed, file, faulty in ((7, whole, False), (8, whole, True), (7, whole[:-1], True)):
        answer = httpx.Response(200, content=file, headers={"x-ganvas-recipe": json.dumps({"seed": seed})})
        answer.request = httpx.Request("GET", "http://studio/v1/models/hot/image?seed=7")
        assert (callers.fault_of(storm, "hot", 0.0, answer) is not None) == faulty


def test_other_bytes_for_the_same_recipe_are_a_fault(callers: ModuleType, storm: Any) -> None:
    for content in (b"one", b"one", b"other"):
        callers.keep(storm, httpx.Response(200, content=content, headers={"x-ganvas-recipe": "the recipe"}))
    assert storm.faults == ["other bytes than before: the recipe"]
