"""SIGTERM in the middle of a training: the worker is gone soon, and not one step has to be done again."""

import contextlib
import random
import signal
import time
from collections.abc import Callable

from app.core.records import utc_now
from tests.chaos.conftest import Figures
from tests.chaos.trainings import Trainings, below, is_alive, redone_kimg
from tests.studio import Studio

DRAIN_SECONDS = 20.0
LONGEST_WAIT = 3.0  # seconds of training between two SIGTERMs


def test_a_worker_that_is_told_to_leave_is_gone_in_time_and_no_step_is_lost(
    start_studio: Callable[..., Studio], rounds: Callable[[int, int], int], figures: Figures
) -> None:
    studio = start_studio()
    trainings = Trainings(studio, kimg=rounds(1, 3) * 0.8)
    chance = random.Random(0)
    slowest, drains = 0.0, rounds(5, 50)
    with contextlib.closing(trainings):
        trainings.begin()
        done = 0
        while done < drains:
            trainings.keep_waiting(rounds(1, 2))
            time.sleep(chance.uniform(0, LONGEST_WAIT))
            now = utc_now()
            if trainings.running() is None:  # one ended just now
                continue
            slowest = max(slowest, drain(studio))
            done += 1
            trainings.wait_for_work(now)
        trainings.finish(rounds(60, 300))
        trainings.check()
        redone = max(redone_kimg(trainings.events(job)) for job in trainings.accepted)
    assert redone == 0
    figures.add(
        f"{drains} SIGTERMs in mid-training: gone within {slowest:.1f} s, 0 steps lost, all of "
        f"{len(trainings.accepted) - 1} trainings with the weights of the uninterrupted one"
    )


def drain(studio: Studio) -> float:
    """Tell the worker of trainings to leave; seconds until it and all it had started are gone."""
    worker = studio.worker("train")
    leaving = [worker.pid, *below(worker)]
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    while any(is_alive(pid) for pid in leaving):
        assert time.monotonic() - began < DRAIN_SECONDS
        time.sleep(0.01)
    return time.monotonic() - began
