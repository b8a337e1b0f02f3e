"""kill -9 of anything at any moment, also inside a save: no training is lost, done twice, or done by two at once, and
each ends with the very weights of one that was never disturbed."""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from app.core.jobs import MAX_FRUITLESS_ATTEMPTS
from app.core.records import utc_now
from tests.chaos.conftest import Figures
from tests.chaos.trainings import Trainings, Watch, below, is_alive, torn_files
from tests.studio import Studio

TRAINERS = ("horse", "worker")
TARGETS = (*TRAINERS, "redis", "api")
ORPHAN_SECONDS = 5.0  # after a kill nothing that the killed process had started runs any longer
LONGEST_WAIT = 2.5  # seconds between two kills, once a training is at work
SAVE_SECONDS = 30.0  # a save begins within this
POLL_SECONDS = 0.0005  # a save takes some milliseconds


@dataclass
class Killer:
    """Kills processes of a studio, and counts."""

    trainings: Trainings
    chance: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    in_saves: int = 0
    slowest_orphan: float = 0.0
    slowest_return: float = 0.0

    @property
    def studio(self) -> Studio:
        """The one that suffers."""
        return self.trainings.studio

    def strike(self, *, in_save: bool) -> None:
        """Kill one process, see that it left nothing behind, and wait until somebody trains."""
        if not in_save:
            time.sleep(self.chance.uniform(0, LONGEST_WAIT))
        target = self._choose(in_save=in_save)
        process = self._find(target)
        if process is None:
            return
        children = below(process)
        saving = self._wait_for_save() if in_save else set()
        if in_save and not saving:
            return
        now = utc_now()
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # the job ended just now
            return
        self.kills[target] += 1
        self._see_off([process.pid, *children])
        if target == "horse":  # what it was writing is left half-made, unless that was done just then
            saving &= torn_files(self.studio.folder)
        self.in_saves += bool(saving)
        if target in TRAINERS:
            self.slowest_return = max(self.slowest_return, self.trainings.wait_for_work(now))

    def _choose(self, *, in_save: bool) -> str:
        """Whom to kill. A job of which three attempts in a row saved nothing is given up, as is promised too; so after
        two of them its holder is left alone until it has saved."""
        choice = self.chance.choice(TRAINERS if in_save else TARGETS)
        held = self.trainings.running()
        spared = held is not None and held.fruitless >= MAX_FRUITLESS_ATTEMPTS
        return "worker" if choice == "horse" and spared else choice

    def _find(self, target: str) -> psutil.Process | None:
        if target == "horse":
            horses = self.studio.horses("train")
            return horses[0] if horses else None
        return self.studio.child("worker-train" if target == "worker" else target)

    def _wait_for_save(self) -> set[str]:
        """The file that is being written, as soon as there is one; nothing where there is none for long."""
        known = torn_files(self.studio.folder)
        deadline = time.monotonic() + SAVE_SECONDS
        while time.monotonic() < deadline:
            if saving := torn_files(self.studio.folder) - known:
                return saving
            time.sleep(POLL_SECONDS)
        return set()

    def _see_off(self, pids: list[int]) -> None:
        began = time.monotonic()
        while any(is_alive(pid) for pid in pids):
            assert time.monotonic() - began < ORPHAN_SECONDS, "an orphan lives"
            time.sleep(0.01)
        self.slowest_orphan = max(self.slowest_orphan, time.monotonic() - began)


def test_trainings_survive_kill_9_of_everything_and_end_with_the_weights_of_an_undisturbed_one(
    start_studio: Callable[..., Studio], rounds: Callable[[int, int], int], figures: Figures
) -> None:
    studio = start_studio(GANVAS_LOG_LEVEL="info")
    trainings = Trainings(studio, kimg=rounds(1, 3) * 0.8)
    watch, kills, saves = Watch(studio.log), rounds(8, 160), rounds(2, 40)
    killer = Killer(trainings, random.Random(0))
    with contextlib.closing(trainings), watch.running():
        trainings.begin()
        while killer.kills.total() < kills + saves or killer.in_saves < saves:
            trainings.keep_waiting(rounds(1, 2))
            killer.strike(in_save=killer.in_saves * (kills + saves) < saves * (killer.kills.total() + 1))
        trainings.finish(rounds(60, 300))
        redone = trainings.check()
        overlaps = watch.overlaps(trainings.let_go)
    assert overlaps == []
    figures.add(
        f"{killer.kills.total()} kills {dict(killer.kills)}, "
        f"{killer.in_saves} of them inside a save, in {len(trainings.accepted) - 1} trainings: none lost, published "
        f"twice or held twice, all with the weights of the uninterrupted one; at most {redone:.2f} kimg done again, "
        f"training again within {killer.slowest_return:.1f} s, last orphan gone after {killer.slowest_orphan:.1f} s"
    )
