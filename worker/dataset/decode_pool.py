"""Decoder processes and their keeper: a picture that kills or stalls its decoder costs only itself."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from app.serving.limited.child import Child, Died
from app.serving.limited.program import Head
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
        self._child = Child(Path(decoder.__file__), wall_seconds)

    @property
    def pid(self) -> int | None:
        return self._child.pid

    def measure(self, data: bytes, image_format: decoder.Format) -> Facts:
        """Width and height; Refused when the picture has none we accept."""
        return self._ask({"format": image_format, "resolution": None}, data, 0).facts

    def prepare(self, data: bytes, image_format: decoder.Format, framing: Framing) -> Decoded:
        """The picture as training wants it; Refused when it cannot be had."""
        head = {
            "format": image_format,
            "resolution": framing.resolution,
            "crop": framing.crop,
            "background": framing.background,
        }
        return self._ask(head, data, framing.resolution**2 * 3)

    def _ask(self, head: Head, data: bytes, expected_bytes: int) -> Decoded:
        def check(answer: Head, body: bytes) -> Decoded | Refusal:
            if "verdict" in answer:
                return Refusal.model_validate(answer)
            if len(body) != expected_bytes:
                raise ValueError(f"{len(body)} bytes of pixels came; {expected_bytes} were asked for.")
            return Decoded(Facts.model_validate(answer), body)

        try:
            answer = self._child.ask(head, data, cpu_seconds=decoder.CPU_SECONDS, max_bytes=expected_bytes, check=check)
        except Died as death:
            raise Refused(Verdict.CORRUPT, str(death)) from death
        if isinstance(answer, Refusal):
            raise Refused(answer.verdict, answer.reason)
        return answer

    def close(self) -> None:
        """End the process, if there is one."""
        self._child.close()


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
