import asyncio
import importlib
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "benchmarks" / "determinism.py"


@pytest.fixture
def determinism(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    return importlib.import_module("determinism")


def test_a_file_that_came_out_otherwise_is_named_and_its_difference_told(determinism: ModuleType, app: Any) -> None:
    requests = determinism.plan(determinism.described(app.url), 12, random.Random(1))
    taken = asyncio.run(determinism.busy(app.url, requests, 4))
    order = list(taken.files)
    assert len(order) == 12
    assert determinism.alone(app.url, order, taken) == []
    pngs = [picture for picture in order if picture.output_format == "png" and picture.size is None]
    taken.files[pngs[0]] = taken.files[pngs[1]]
    (line,) = determinism.alone(app.url, order, taken)
    assert line.startswith(pngs[0].path())
    assert "values, by" in line


def test_half_of_a_plan_asks_for_more_than_one_picture_and_some_leave(determinism: ModuleType) -> None:
    model = {"id": "m", "checkpoint": "0" * 64, "num_ws": 4, "resolution": 32, "vocabulary": ["red"]}
    requests = determinism.plan([model], 500, random.Random(2))
    stay = [request for request in requests if request.leaves_after is None]
    assert len({picture for request in stay for picture in request.pictures}) == 500
    assert {request.kind for request in stay} == {"url", "file", "zip", "json", "stream"}
    assert any(len(request.pictures) == determinism.MOST_TOGETHER for request in stay)
    assert len(stay) < len(requests)
