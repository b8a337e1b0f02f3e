"""What a file breaks is one process: it is told in words, and the next file finds another."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.serving.limited.child import Child, Died
from app.serving.limited.program import Head

PROGRAM = """
import os, signal, time
from app.serving.limited.program import serve

def answer(head, body):
    if head["do"] == "die":
        os.kill(os.getpid(), head["signal"])
    if head["do"] == "leave":
        os._exit(3)
    if head["do"] == "work":
        while True:
            pass
    if head["do"] == "sleep":
        time.sleep(60)
    if head["do"] == "flood":
        return {}, bytes(head["bytes"])
    if head["do"] == "read":
        return {"read": os.pread(int(__import__("sys").argv[1]), 100, 0).decode()}, b""
    return {"said": len(body)}, body[::-1]

serve(answer)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A program that does as it is told."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def child(source: Path) -> Iterator[Child]:
    """A process of it."""
    made = Child(source, 30.0)
    yield made
    made.close()


def ask(child: Child, do: str, body: bytes = b"", *, seconds: int = 5, max_bytes: int = 1000, **more: int) -> object:
    """What it answers."""

    def check(head: Head, answer: bytes) -> tuple[Head, bytes]:
        return head, answer

    return child.ask({"do": do, **more}, body, cpu_seconds=seconds, max_bytes=max_bytes, check=check)


def test_it_answers_one_request_after_another(child: Child) -> None:
    assert ask(child, "reverse", b"abc") == ({"said": 3}, b"cba")
    first = child.pid
    assert ask(child, "reverse", b"de") == ({"said": 2}, b"ed")
    assert child.pid == first


@pytest.mark.parametrize(
    ("do", "more", "reason"),
    [
        ("die", {"signal": signal.SIGSEGV}, "died of it (SIGSEGV)"),
        ("leave", {}, "died of it (exit 3)"),
        ("work", {"seconds": 1}, "within 1 s of processor time"),
        ("flood", {"bytes": 1001}, "talk nonsense"),
    ],
)
def test_its_death_is_told_and_costs_one_file(child: Child, do: str, more: dict[str, int], reason: str) -> None:
    with pytest.raises(Died) as died:
        ask(child, do, **more)
    assert reason in str(died.value)
    assert ask(child, "reverse", b"abc") == ({"said": 3}, b"cba")


def test_one_that_sleeps_is_ended_by_the_clock(source: Path) -> None:
    child = Child(source, 1.0)
    started = time.monotonic()
    with pytest.raises(Died, match="within 1 s"):
        ask(child, "sleep")
    assert time.monotonic() - started < 15
    assert child.pid is None


def test_an_answer_that_cannot_be_ends_the_process(child: Child) -> None:
    def refuse(head: Head, body: bytes) -> None:
        raise ValueError("nonsense")

    ask(child, "reverse")
    first = child.pid
    with pytest.raises(Died, match="talk nonsense"):
        child.ask({"do": "reverse"}, b"", cpu_seconds=1, max_bytes=10, check=refuse)
    with pytest.raises(ProcessLookupError):
        os.kill(first or 0, 0)


def test_a_file_that_it_inherits_can_be_read(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("words")
    with place.open("rb") as file:
        child = Child(source, 3.0, (file.fileno(),))
        assert ask(child, "read") == ({"read": "words"}, b"")
        child.close()


def test_it_sees_no_environment_of_ours(monkeypatch: pytest.MonkeyPatch, child: Child) -> None:
    monkeypatch.setenv("GANVAS_SECRET", "hunter2")
    ask(child, "reverse")
    assert b"GANVAS" not in Path(f"/proc/{child.pid}/environ").read_bytes()


@pytest.mark.parametrize("times", [1, 2])
def test_closing_leaves_no_process(child: Child, times: int) -> None:
    ask(child, "reverse")
    pid = child.pid
    for _ in range(times):
        child.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid or 0, 0)
