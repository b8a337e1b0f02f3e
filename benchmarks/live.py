"""Live frames: how many a second, how soon a message is seen, and what 50 viewers who hardly read take from a fast one.

A player sends messages far faster than frames can be painted, each with an id. Every frame says by id which message it
shows, and how many passes ran from that one's arrival to the frame; the server's own count of passes is compared with
the frames. Rounds of the cases take turns, so that whatever else the machine does meets all of them.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import studio
from websockets.asyncio.client import ClientConnection, connect

PROGRAM = str(Path(__file__).with_name("live_viewers.py"))
MESSAGE_SECONDS = 0.004  # between two of a player's messages
SLOW_SECONDS = 2.0  # between two frames that a slow viewer reads
SETTLE_SECONDS = 2.0  # until the buffers of those who do not read are full
PLAYERS = 8
CASES = ("alone", "beside slow viewers", "beside as many quick ones")


@dataclass
class Played:
    """What one player saw in one round."""

    seconds: float
    frames: int = 0
    painted: float = 0.0  # passes a second, by the server's count
    waits: list[float] = field(default_factory=list)  # seconds from a message to its frame
    most_passes: int = 0  # from a message's arrival to its frame

    @property
    def fps(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds


def main() -> int:
    """Print the table; the exit status tells whether the promises were kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--viewers", type=int, default=50)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        studio.publish(Path(folder), "emoji", studio.BUNDLED.read_bytes())
        with studio.serving(Path(folder)) as server:
            asyncio.run(play(server, "warm", 2))
            rounds: dict[str, list[Played]] = {case: [] for case in CASES}
            for number in range(args.rounds):
                for case in CASES:
                    rounds[case].append(one_round(server, f"{case.replace(' ', '-')}-{number}", case, args))
            together = asyncio.run(play_together(server, args.seconds))
    status = report(rounds, args.viewers)
    print(f"{PLAYERS} players of {PLAYERS} performances together: {together:.0f} frames/s")
    return status


def one_round(server: studio.Server, name: str, case: str, args: argparse.Namespace) -> Played:
    """One player for a while, in this case's company."""
    with company(server, name, 0 if case == CASES[0] else args.viewers, quick=case == CASES[2]):
        return asyncio.run(play(server, name, args.seconds))


@contextmanager
def company(server: studio.Server, name: str, viewers: int, *, quick: bool) -> Iterator[None]:
    """Viewers of a performance, in a process of their own."""
    if not viewers:
        yield
        return
    pause = 0.0 if quick else SLOW_SECONDS
    command = [sys.executable, PROGRAM, live_url(server, f"watch={name}"), str(viewers), str(pause)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # they are ended while they read
    try:
        deadline = time.monotonic() + studio.START_SECONDS
        while studio.metrics(server.url)["ganvas_live_viewers", ""] < viewers:
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit("The viewers did not come.")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def live_url(server: studio.Server, query: str) -> str:
    """The websocket of the bundled model."""
    return f"{server.url.replace('http', 'ws', 1)}/v1/models/emoji/live?{query}"


async def play(server: studio.Server, name: str, seconds: float) -> Played:
    """Say what is newest, and take what comes; the first frames, which fill the slow viewers' buffers, do not count."""
    url = live_url(server, f"performance={name}")
    async with connect(url, proxy=None, compression=None, max_queue=None) as connection:
        asked: dict[int, float] = {}
        speaking = asyncio.create_task(speak(connection, asked))
        try:
            await listen(connection, asked, SETTLE_SECONDS)
            painting = asyncio.create_task(asyncio.to_thread(painted, server, seconds))
            played = await listen(connection, asked, seconds)
            played.painted = await painting
        finally:
            speaking.cancel()
    return played


async def play_together(server: studio.Server, seconds: float) -> float:
    """Frames a second of several performances: one alone never gets more than a screen shows."""
    played = await asyncio.gather(*(play(server, f"together-{number}", seconds) for number in range(PLAYERS)))
    return sum(one.fps for one in played)


def painted(server: studio.Server, seconds: float) -> float:
    """Forward passes a second, for so long."""
    counts, times = [], []
    for pause in (seconds, 0.0):
        counts.append(studio.metrics(server.url)["ganvas_pass_seconds_count", ""])
        times.append(time.perf_counter())
        time.sleep(pause)
    return (counts[1] - counts[0]) / (times[1] - times[0])


async def speak(connection: ClientConnection, asked: dict[int, float]) -> None:
    """Another psi in every message."""
    number = 0
    while True:
        number += 1
        asked[number] = time.perf_counter()
        await connection.send(json.dumps({"id": number, "seed": 1, "psi": number % 1000 / 1000}))
        await asyncio.sleep(MESSAGE_SECONDS)


async def listen(connection: ClientConnection, asked: dict[int, float], seconds: float) -> Played:
    """Count frames, and time those that name a message."""
    played = Played(seconds)
    until = time.perf_counter() + seconds
    id_ = None
    while time.perf_counter() < until:
        answer = await connection.recv()
        if isinstance(answer, str):
            told = json.loads(answer)
            id_ = told["id"]
            played.most_passes = max(played.most_passes, told["passes"])
            continue
        played.frames += 1
        if id_ is not None:
            played.waits.append(time.perf_counter() - asked[id_])
            id_ = None
    return played


def report(rounds: dict[str, list[Played]], viewers: int) -> int:
    """Print the table; 1 where a promise was broken."""
    print("| one player, 64 px | frames/s | passes/s | ms to a message's frame, 50 / 95 of 100 | passes to it |")
    print("|---|---|---|---|---|")
    for case, played in rounds.items():
        waits = sorted(wait * 1000 for one in played for wait in one.waits)
        middle, late = waits[len(waits) // 2], waits[int(len(waits) * 0.95)]
        fps = statistics.median(one.fps for one in played)
        passes = statistics.median(one.painted for one in played)
        most = max(one.most_passes for one in played)
        who = case.replace("slow viewers", f"{viewers} slow viewers").replace("as many", str(viewers))
        print(f"| {who} | {fps:.1f} | {passes:.1f} | {middle:.1f} / {late:.1f} | at most {most} |")
    alone, beside, _quick = rounds.values()
    ratio = statistics.median(slow.fps / fast.fps for slow, fast in zip(beside, alone, strict=True))
    print(f"Beside slow viewers against alone, the median of {len(alone)} rounds: {ratio:.2f}")
    most = max(one.most_passes for played in rounds.values() for one in played)
    return 0 if most <= 2 and min(one.fps for one in alone) >= 25 else 1


if __name__ == "__main__":
    sys.exit(main())
