"""A training takes its share of the machine and no more."""

import os
import sys

import pytest
import torch

from worker.training.share import keep_to_share, step_threads


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, torch.device]]:
    """What torch is told of a GPU that need not be there."""
    told: list[tuple[float, torch.device]] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *limit: told.append(limit))
    return told


def test_a_gpu_gives_a_training_its_share_of_memory(limits: list[tuple[float, torch.device]]) -> None:
    keep_to_share(torch.device("cuda", 1), 0.6)
    assert limits == [(0.6, torch.device("cuda", 1))]


def test_a_processor_has_no_share_to_keep(limits: list[tuple[float, torch.device]]) -> None:
    keep_to_share(torch.device("cpu"), 0.6)
    assert limits == []


def test_a_step_has_as_many_threads_as_are_wanted() -> None:
    assert step_threads(3) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process is kept to some of the cores")
def test_a_process_kept_to_one_core_steps_with_one_thread() -> None:
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert step_threads(0) == 1
    finally:
        os.sched_setaffinity(0, cores)
    assert step_threads(0) == len(cores)
