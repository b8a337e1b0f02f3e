"""Decoder processes and their keeper: a picture that kills or stalls its decoder costs only itself."""

import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import IO, BinaryIO, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field

from worker.dataset import decoder
from worker.dataset.verdicts import Refused, Verdict

WALL_SECONDS = 60.0  # for one picture; processor time is limited by the decoder itself, so this catches sleep and swap


@dataclass(frozen=True)
class Framing:
    """How every picture of a dataset becomes a square."""

    resolution: int
    crop: Literal["center", "none"]
    background: tuple[int, int, int]


class Facts(BaseModel):
    """What a decoder says of a picture: checked, for its decoder may have been taken over by it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(ge=1, le=decoder.MAX_PIXELS)
    height: int = Field(ge=1, le=decoder.MAX_PIXELS)
    animated: bool = False
    alpha: bool = False
    grey: bool = False
    fixes: list[str] = Field(default=[], max_length=20)


class Refusal(BaseModel):
    """A decoder's verdict on a picture it gives no pixels for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Literal[Verdict.CORRUPT, Verdict.TOO_LARGE]
    reason: str = Field(max_length=500)


@dataclass(frozen=True)
class Decoded:
    """Facts, and pixels uint8 [R, R, 3] as bytes."""

    facts: Facts
    pixels: bytes


class Decoder:
    """One decoder process, started when first needed and again after each death."""

    def __init__(self, wall_seconds: float = WALL_SECONDS) -> None:
        self._wall_seconds = wall_seconds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def measure(self, data: bytes, image_format: decoder.Format) -> Facts:
        """Width and height; Refused when the picture has none we accept."""
        facts, _ = self._ask({"format": image_format, "resolution": None}, data, 0)
        return facts

    def prepare(self, data: bytes, image_format: decoder.Format, framing: Framing) -> Decoded:
        """The picture as training wants it; Refused when it cannot be had."""
        head = {
            "format": image_format,
            "resolution": framing.resolution,
            "crop": framing.crop,
            "background": framing.background,
        }
        return Decoded(*self._ask(head, data, framing.resolution**2 * 3))

    def _ask(self, head: decoder.Head, data: bytes, expected_bytes: int) -> tuple[Facts, bytes]:
        if self._process and self._process.poll() is not None:
            self.close()  # it died idle: no fault of this picture
        process = self._process = self._process or start()
        stalled = threading.Event()

        def end_stall() -> None:
            stalled.set()
            process.kill()

        watch = threading.Timer(self._wall_seconds, end_stall)
        watch.start()
        try:
            answer, body = exchange(process, head, data, expected_bytes)
        except (OSError, EOFError) as death:
            raise Refused(Verdict.CORRUPT, self._cause_of_death(stalled)) from death
        except (ValueError, RecursionError) as nonsense:
            self.close()
            raise Refused(Verdict.CORRUPT, "It made the decoder talk nonsense.") from nonsense
        finally:
            watch.cancel()
            watch.join()
            if stalled.is_set():
                self.close()
        if isinstance(answer, Refusal):
            raise Refused(answer.verdict, answer.reason)
        return answer, body

    def _cause_of_death(self, stalled: threading.Event) -> str:
        returncode = self.close()
        if stalled.is_set():
            return f"It was not decoded within {self._wall_seconds:g} s."
        if returncode == -signal.SIGXCPU:
            return f"It was not decoded within {decoder.CPU_SECONDS} s of processor time."
        how = signal.Signals(-returncode).name if returncode < 0 else f"exit {returncode}"
        return f"Its decoder died of it ({how})."

    def close(self) -> int:
        """End the process, if there is one, and return its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        for pipe in (process.stdin, process.stdout):
            close_quietly(pipe)
        try:
            return process.wait(timeout=2)  # its stdin has ended, so it leaves by itself unless it is stuck
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


class DecodePool:
    """Several decoders at work on a stream of pictures."""

    def __init__(self, size: int, wall_seconds: float = WALL_SECONDS) -> None:
        self.decoders = [Decoder(wall_seconds) for _ in range(size)]
        self._idle: SimpleQueue[Decoder] = SimpleQueue()
        for one in self.decoders:
            self._idle.put(one)
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="decode")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        for one in self.decoders:
            one.close()

    def prepare(
        self, pictures: Iterable[tuple[bytes, decoder.Format] | Refused], framing: Framing
    ) -> Iterator[Decoded | Refused]:
        """One result for each picture, in order; what was refused before passes through."""
        ahead: deque[Future[Decoded | Refused]] = deque()
        for picture in pictures:
            ahead.append(self._threads.submit(self._prepare_one, picture, framing))
            if len(ahead) > len(self.decoders):  # few pictures in memory, and no decoder idle
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _prepare_one(self, picture: tuple[bytes, decoder.Format] | Refused, framing: Framing) -> Decoded | Refused:
        if isinstance(picture, Refused):
            return picture
        one = self._idle.get()
        try:
            return one.prepare(*picture, framing)
        except Refused as refusal:
            return refusal
        finally:
            self._idle.put(one)


def start() -> subprocess.Popen[bytes]:
    """A decoder process that inherits no environment, no import path and no open file of ours."""
    return subprocess.Popen(
        [sys.executable, "-I", decoder.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"},
        cwd=Path(decoder.__file__).parent,
    )


def exchange(
    process: subprocess.Popen[bytes], head: decoder.Head, data: bytes, expected_bytes: int
) -> tuple[Facts | Refusal, bytes]:
    """Ask and hear; ValueError when the answer is not of the agreed form."""
    requests, answers = cast("BinaryIO", process.stdin), cast("BinaryIO", process.stdout)
    decoder.write_frame(requests, head, data)
    answer, body = decoder.read_frame(answers, expected_bytes)
    if "verdict" in answer:
        return Refusal.model_validate(answer), b""
    if len(body) != expected_bytes:
        raise ValueError(f"{len(body)} bytes of pixels came; {expected_bytes} were asked for.")
    return Facts.model_validate(answer), body


def close_quietly(pipe: IO[bytes] | None) -> None:
    """Close a pipe whose other end may be gone, with bytes still in its buffer."""
    if pipe:
        with suppress(BrokenPipeError):
            pipe.close()
