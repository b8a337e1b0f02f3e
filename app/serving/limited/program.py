"""What a program is made of that reads strangers' files: frames in and out, and limits that it cannot lift again.

Such a program is started by its file, alone and without an environment, and imports nothing of ours but this, which
imports nothing beyond Python. It reads requests on stdin and writes answers on stdout. A frame is two lengths, a JSON
head and a body.
"""

import json
import math
import os
import resource
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO, Final

MEMORY_BYTES: Final = 1024**3
HEAD_MAX_BYTES: Final = 65_536
LENGTHS: Final = struct.Struct("!II")
CPU_SECONDS: Final = "cpu_seconds"  # in the head of a request: processor time that its answer may take

Head = dict[str, Any]


def write_frame(stream: BinaryIO, head: Head, body: bytes = b"") -> None:
    """Send one frame."""
    encoded = json.dumps(head).encode()
    stream.write(LENGTHS.pack(len(encoded), len(body)))
    stream.write(encoded)
    stream.write(body)
    stream.flush()


def read_frame(stream: BinaryIO, max_body: int) -> tuple[Head, bytes]:
    """Receive one frame; EOFError when the other side is gone, ValueError when it does not speak this."""
    head_bytes, body_bytes = LENGTHS.unpack(read_exactly(stream, LENGTHS.size))
    if head_bytes > HEAD_MAX_BYTES or body_bytes > max_body:
        raise ValueError(f"A frame of {head_bytes} + {body_bytes} bytes is not ours.")
    head = json.loads(read_exactly(stream, head_bytes))
    if not isinstance(head, dict):
        raise ValueError("A frame's head is an object.")
    return head, read_exactly(stream, body_bytes)


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """`size` bytes, or EOFError."""
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def confine() -> None:
    """Give up what reading a file does not need: memory, core dumps, writing, and whatever takes a new descriptor, be
    it a file or a socket. All that is to be imported must have been."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))  # those that are open stay so
    if sys.platform != "darwin":  # macOS refuses this limit; the wall and processor limits hold there
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def allow_cpu(seconds: float) -> None:
    """Let this process live up to so many seconds of processor time in all; then SIGXCPU ends it."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), hard))


def serve(answer: Callable[[Head, bytes], tuple[Head, bytes]]) -> None:
    """Answer one request after another until stdin ends."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not speak into the frames
    confine()
    while True:
        try:
            head, body = read_frame(requests, MEMORY_BYTES)
        except EOFError:
            return
        allow_cpu(math.ceil(time.process_time()) + head.pop(CPU_SECONDS))
        write_frame(answers, *answer(head, body))
