"""What a process that reads strangers' files can no longer do."""

import io
import os
import resource
import signal
import subprocess
import sys

import pytest

from app.serving.limited.program import MEMORY_BYTES, read_frame, write_frame

CONFINED = "import os, socket, sys; from app.serving.limited.program import allow_cpu, confine; confine()\n"


def run(program: str) -> subprocess.CompletedProcess[str]:
    """A confined program's end."""
    return subprocess.run([sys.executable, "-I", "-c", CONFINED + program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "attempt", ["open('/etc/passwd')", "open('/tmp/new', 'w')", "socket.socket()", "os.pipe()", "os.listdir('/')"]
)
def test_nothing_new_can_be_opened(attempt: str) -> None:
    done = run(attempt)
    assert done.returncode == 1
    assert "Too many open files" in done.stderr


def test_what_is_open_can_still_be_written_to_where_it_is_a_pipe() -> None:
    assert run("print('an answer')").stdout == "an answer\n"


def test_a_file_that_was_open_cannot_grow() -> None:
    program = f"fd = os.memfd_create('file'); {CONFINED}\nos.write(fd, b'x')".replace("import os, socket, sys;", "")
    done = subprocess.run([sys.executable, "-I", "-c", f"import os; {program}"], capture_output=True, check=False)
    assert done.returncode != 0


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not limit address space")
def test_memory_ends_at_the_limit() -> None:
    assert MEMORY_BYTES <= 2**30
    assert "MemoryError" in run(f"bytearray({MEMORY_BYTES})").stderr


def test_work_without_end_is_ended_by_the_processor_limit() -> None:
    assert run("allow_cpu(1)\nwhile True: pass").returncode == -signal.SIGXCPU


def test_the_limits_cannot_be_lifted_by_who_is_not_root() -> None:
    if os.geteuid() == 0:
        pytest.skip("root may lift its limits")
    done = run(f"import resource; resource.setrlimit({resource.RLIMIT_NOFILE}, (64, 64))")
    assert done.returncode == 1


def test_frames_come_as_they_were_sent_and_no_larger_than_is_asked_for() -> None:
    stream = io.BytesIO()
    write_frame(stream, {"a": [1, "ä"]}, b"body")
    sent = stream.getvalue()
    assert read_frame(io.BytesIO(sent), 4) == ({"a": [1, "ä"]}, b"body")
    with pytest.raises(ValueError, match="not ours"):
        read_frame(io.BytesIO(sent), 3)
    with pytest.raises(EOFError):
        read_frame(io.BytesIO(sent[:-1]), 4)
    with pytest.raises(ValueError, match="object"):
        read_frame(io.BytesIO(sent[:8].replace(sent[3:4], b"\2") + b"[]body"), 4)
