"""What a decoder's death or stall costs: the picture it had, and no other."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from app.serving.limited import child
from worker.dataset import decode_pool
from worker.dataset.decode_pool import Decoded, DecodePool, Decoder, Framing
from worker.dataset.verdicts import Refused, Verdict

FRAMING = Framing(32, "center", (255, 255, 255))


def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str) -> None:
    """Put another program in the decoder's place; it speaks the decoder's frames through `decoder`."""
    path = tmp_path / "odd_decoder.py"
    path.write_text(f"import os, signal, sys, time\nfrom app.serving.limited import program\n{source}")
    start = subprocess.Popen

    def start_other(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return start([*command[:-1], str(path)], **options)

    monkeypatch.setattr(child.subprocess, "Popen", start_other)


ECHO_OR = """
while True:
    try:
        head, body = program.read_frame(sys.stdin.buffer, 1 << 30)
    except EOFError:
        break
    if body == b"bad":
        {misbehave}
    program.write_frame(sys.stdout.buffer, {{"width": 1, "height": 1}}, bytes(32 * 32 * 3))
"""


def outcomes(pool: DecodePool, bodies: list[bytes]) -> list[str]:
    results = pool.prepare([(body, "PNG") for body in bodies], FRAMING)
    return ["decoded" if isinstance(result, Decoded) else result.reason for result in results]


@pytest.mark.parametrize(
    ("misbehave", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "Its decoder died of it (SIGKILL)."),
        ("os._exit(3)", "Its decoder died of it (exit 3)."),
        ("os.kill(os.getpid(), signal.SIGXCPU)", "It was not decoded within 20 s of processor time."),
        ("time.sleep(60)", "It was not decoded within 1.5 s."),
        ("sys.stdout.buffer.write(b'x' * 5000); sys.stdout.flush()", "It made the decoder talk nonsense."),
        ("program.write_frame(sys.stdout.buffer, {'width': -1})", "It made the decoder talk nonsense."),
        (
            "program.write_frame(sys.stdout.buffer, {'width': 1, 'height': 1}, b'short')",
            "It made the decoder talk nonsense.",
        ),
        (
            "program.write_frame(sys.stdout.buffer, {'verdict': 'ok', 'reason': ''})",
            "It made the decoder talk nonsense.",
        ),
    ],
)
def test_a_misbehaving_decoder_costs_one_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, misbehave: str, reason: str
) -> None:
    program(monkeypatch, tmp_path, ECHO_OR.format(misbehave=misbehave))
    with DecodePool(1, wall_seconds=1.5) as pool:
        assert outcomes(pool, [b"one", b"bad", b"two", b"three"]) == ["decoded", reason, "decoded", "decoded"]


def test_a_decoder_killed_from_outside_in_mid_picture_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(monkeypatch, tmp_path, ECHO_OR.format(misbehave="time.sleep(60)"))
    with DecodePool(1) as pool:
        results = pool.prepare([(b"one", "PNG"), (b"bad", "PNG"), (b"two", "PNG")], FRAMING)
        assert isinstance(next(results), Decoded)
        time.sleep(0.3)  # long enough for the second to be under way; if it is not, an idle death costs nothing
        os.kill(pool.decoders[0].pid, signal.SIGKILL)
        killed, after = results
    assert isinstance(killed, Refused)
    assert killed.verdict == Verdict.CORRUPT
    assert isinstance(after, Decoded)


def test_a_decoder_that_died_idle_costs_nothing(draw: Callable[..., Image.Image], encode: Callable[..., bytes]) -> None:
    one = Decoder()
    data = encode(draw())
    first = one.prepare(data, "PNG", FRAMING)
    os.kill(one.pid, signal.SIGKILL)
    os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
    assert one.prepare(data, "PNG", FRAMING) == first
    one.close()


def test_results_come_in_order_and_refusals_pass_through(
    draw: Callable[..., Image.Image], encode: Callable[..., bytes]
) -> None:
    refusal = Refused(Verdict.UNSUPPORTED, "no")
    pictures = [(encode(draw(seed, 20 + seed, 64)), "PNG") for seed in range(9)]
    with DecodePool(2) as pool:
        results = list(pool.prepare([*pictures[:4], refusal, *pictures[4:]], FRAMING))
    assert results.pop(4) is refusal
    assert [result.facts.width for result in results] == [20 + seed for seed in range(9)]


def test_closing_leaves_no_process_behind(draw: Callable[..., Image.Image], encode: Callable[..., bytes]) -> None:
    with DecodePool(2) as pool:
        list(pool.prepare([(encode(draw()), "PNG")] * 4, FRAMING))
        pids = [one.pid for one in pool.decoders if one.pid]
        assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_decoder_leaves_when_its_parent_is_killed(
    draw: Callable[..., Image.Image], encode: Callable[..., bytes], tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(encode(draw()))
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time, pathlib; from worker.dataset.decode_pool import Decoder; d = Decoder();"
            "d.measure(pathlib.Path(sys.argv[1]).read_bytes(), 'PNG'); print(d.pid, flush=True); time.sleep(60)",
            str(picture),
        ],
        stdout=subprocess.PIPE,
        cwd=Path(decode_pool.__file__).parents[2],
    )
    with parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return
        time.sleep(0.1)
    pytest.fail("The decoder outlived its parent.")


def test_the_decoder_sees_no_environment_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, draw: Callable[..., Image.Image], encode: Callable[..., bytes]
) -> None:
    monkeypatch.setenv("GANVAS_SECRET", "hunter2")
    one = Decoder()
    one.measure(encode(draw()), "PNG")
    assert b"GANVAS" not in Path(f"/proc/{one.pid}/environ").read_bytes()
    one.close()
