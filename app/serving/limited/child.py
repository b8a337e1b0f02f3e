"""The keeper of a process that reads strangers' files: it is given time, watched, and replaced when it dies."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO, Final, TypeVar, cast

from app.serving.limited import program
from app.serving.limited.program import Head

Checked = TypeVar("Checked")

LEAVE_SECONDS: Final = 2.0  # for a process whose stdin has ended


class Died(Exception):
    """A file was too much for the process that read it; in a sentence on the file."""


class Child:
    """One process of a program, started when first needed and again after each death. For one thread at a time.

    files: descriptors that the process inherits, to be kept open as long as this is used; their numbers are its
    arguments.
    """

    def __init__(self, source: Path, wall_seconds: float, files: Sequence[int] = ()) -> None:
        self._source = source
        self._wall_seconds = wall_seconds
        self._files = tuple(files)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, where there is one."""
        return self._process.pid if self._process else None

    def ask(
        self, head: Head, body: bytes, *, cpu_seconds: int, max_bytes: int, check: Callable[[Head, bytes], Checked]
    ) -> Checked:
        """Its answer, a head and at most max_bytes, as `check` has it, which raises ValueError for what it cannot be:
        a file may have taken the process over. Raises Died, and then the process is gone."""
        if self._process and self._process.poll() is not None:
            self.close()  # it died idle: no fault of this file
        process = self._process = self._process or self._start()
        stalled = threading.Event()

        def end_stall() -> None:
            stalled.set()
            process.kill()

        watch = threading.Timer(self._wall_seconds, end_stall)
        watch.start()
        try:
            requests, answers = cast("BinaryIO", process.stdin), cast("BinaryIO", process.stdout)
            program.write_frame(requests, head | {program.CPU_SECONDS: cpu_seconds}, body)
            return check(*program.read_frame(answers, max_bytes))
        except (OSError, EOFError) as death:
            raise Died(self._cause_of_death(stalled, cpu_seconds)) from death
        except (ValueError, RecursionError) as nonsense:
            self.close()
            raise Died("It made the decoder talk nonsense.") from nonsense
        finally:
            watch.cancel()
            watch.join()
            if stalled.is_set():
                self.close()

    def _cause_of_death(self, stalled: threading.Event, cpu_seconds: int) -> str:
        returncode = self.close()
        if stalled.is_set():
            return f"It was not decoded within {self._wall_seconds:g} s."
        if returncode == -signal.SIGXCPU:
            return f"It was not decoded within {cpu_seconds} s of processor time."
        how = signal.Signals(-returncode).name if returncode < 0 else f"exit {returncode}"
        return f"Its decoder died of it ({how})."

    def close(self) -> int:
        """End the process, if there is one, and return its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        for pipe in (process.stdin, process.stdout):
            _close_quietly(pipe)
        try:
            return process.wait(timeout=LEAVE_SECONDS)  # its stdin has ended: it leaves by itself unless it is stuck
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        """A process that inherits no environment, no import path and no other open file of ours."""
        return subprocess.Popen(
            [sys.executable, "-I", str(self._source), *map(str, self._files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=self._files,
            env={"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"},
            cwd=self._source.parent,
        )


def _close_quietly(pipe: IO[bytes] | None) -> None:
    """Close a pipe whose other end may be gone, with bytes still in its buffer."""
    if pipe:
        with suppress(BrokenPipeError):
            pipe.close()
