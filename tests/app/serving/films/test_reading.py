"""Films come back frame by frame, within limits; a decoder that dies, stalls or lies costs only its film."""

import itertools
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from app.core.errors import InvalidRequest
from app.serving.films import decoder, reading
from app.serving.films.containers import MEDIA_TYPES, FilmFormat
from app.serving.films.reading import Facts, decoded_frames, facts
from tests.app.serving.films.conftest import FPS, FRAMES, HEIGHT, KINDS, LOSSLESS, WIDTH, AFilm, WriteFilm, make_frames

CONTAINERS: list[FilmFormat] = list(MEDIA_TYPES)
OddDecoder = Callable[[str], str]


@pytest.mark.parametrize(("container", "lossless"), KINDS)
def test_facts_are_those_that_were_asked_for(a_film: AFilm, container: FilmFormat, lossless: bool) -> None:
    found = facts(a_film(container, lossless))

    fps = None if container == "zip" else FPS
    assert found == Facts(frames=FRAMES, fps=fps, size=(WIDTH, HEIGHT), lossless=lossless)


@pytest.mark.parametrize("container", LOSSLESS)
def test_lossless_frames_come_back_as_they_were(a_film: AFilm, container: FilmFormat) -> None:
    path = a_film(container, True)

    assert np.array_equal(list(decoded_frames(path)), make_frames())


def test_a_film_may_be_in_memory(a_film: AFilm) -> None:
    assert np.array_equal(list(decoded_frames(a_film("zip", True).read_bytes())), make_frames())


@pytest.mark.parametrize("container", ["gif", "webp"])
def test_lossy_frames_are_what_others_see(a_film: AFilm, container: FilmFormat) -> None:
    path = a_film(container)
    with Image.open(path) as image:
        expected = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]

    assert np.array_equal(list(decoded_frames(path)), expected)


@pytest.mark.parametrize("container", ["webp", "zip"])
def test_transparency_is_a_channel_of_the_frames_that_have_some(write_film: WriteFilm, container: FilmFormat) -> None:
    clear, opaque = make_frames(2, channels=4)
    clear[:, :, 3], opaque[:, :, 3] = np.minimum(clear[:, :, 3], 254), 255
    first, second = decoded_frames(write_film(container, True, [clear, opaque]))

    assert np.array_equal(first, clear)
    assert np.array_equal(second, opaque[:, :, :3])


@pytest.mark.parametrize("container", CONTAINERS)
def test_more_frames_or_pixels_than_are_allowed_are_refused(a_film: AFilm, container: FilmFormat) -> None:
    path = a_film(container, container in LOSSLESS)

    assert facts(path, max_frames=FRAMES, max_pixels=WIDTH * HEIGHT).frames == FRAMES
    with pytest.raises(InvalidRequest, match=f"more than {FRAMES - 1} frames"):
        list(decoded_frames(path, max_frames=FRAMES - 1))
    with pytest.raises(InvalidRequest, match=f"{WIDTH}x{HEIGHT}"):
        list(decoded_frames(path, max_pixels=WIDTH * HEIGHT - 1))


def test_who_stops_asking_leaves_no_process(write_film: WriteFilm, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def watched(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(start(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(reading.subprocess, "Popen", watched)
    frames = decoded_frames(write_film("zip", frames=make_frames(200)))
    assert len(list(itertools.islice(frames, 3))) == 3
    frames.close()  # type: ignore[attr-defined]

    assert [process.poll() is not None for process in started] == [True]


@pytest.fixture
def odd_decoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> OddDecoder:
    """Put another program in the decoder's place, and tell what is then said against a film."""

    def run(program: str) -> str:
        odd = tmp_path / "odd_decoder.py"
        odd.write_text(
            f"import sys; sys.path.insert(0, {str(Path(decoder.__file__).parent)!r})\n"
            "import os, time\nfrom decoder import *\nout = os.fdopen(1, 'wb')\nconfine(); allow_cpu(0.5)\n" + program
        )
        monkeypatch.setattr(decoder, "__file__", str(odd))
        monkeypatch.setattr(decoder, "START_SECONDS", 0.7)
        started = time.perf_counter()
        with pytest.raises(InvalidRequest) as caught:
            list(decoded_frames(b"GIF89a", max_frames=4, max_pixels=4))
        assert time.perf_counter() - started < 5
        assert (caught.value.error_code, caught.value.param) == ("film_invalid", "file")
        return caught.value.message

    return run


FRAME = 'send(out, b"F", bytes(12))'
HEAD = 'send(out, b"H", b\'{"size":[2,2],"channels":3}\')'
END = 'send(out, b"E", b\'{"frames":1,"fps":24,"size":[2,2],"lossless":false}\')'


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import time; time.sleep(60)", "takes too long"),
        (f"{HEAD}; {FRAME}; time.sleep(60)", "takes too long"),
        ("os.kill(os.getpid(), 11)", "breaks its decoder"),
        ("bytearray(2 << 30)", "breaks its decoder"),
        ("out.write(b'F' + b'\\xff' * 9); out.flush()", "nonsense"),
        (f"{FRAME}", "nonsense"),
        (f"{HEAD}; send(out, b'F', b'short')", "nonsense"),
        (f"{HEAD}; {FRAME}; {FRAME}; {END}", "nonsense"),
        (f"{HEAD}; {END}", "nonsense"),
        (f"{HEAD}; [{FRAME} for _ in range(9)]", "nonsense"),
        ("send(out, b'H', b'{\"size\":[9999,9999],\"channels\":3}')", "nonsense"),
        ("send(out, b'H', b'{\"size\":[2,2],\"channels\":7}')", "nonsense"),
        ("send(out, b'H', b'[')", "nonsense"),
        ("send(out, b'X', b'it is \\xff\\n')", "it is"),
    ],
)
def test_a_decoder_that_was_taken_over_is_not_believed(odd_decoder: OddDecoder, program: str, words: str) -> None:
    assert words in odd_decoder(program)


def test_a_decoder_that_spins_is_ended_by_its_processor_time(
    odd_decoder: OddDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BUSY", 50.0)

    assert "takes too much" in odd_decoder("while True: pass")


def test_the_time_that_frames_are_looked_at_is_not_the_decoders(a_film: AFilm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BUSY", 1.0)
    frames = decoded_frames(a_film("zip", True))
    next(frames)
    time.sleep(decoder.START_SECONDS + 0.5)

    assert len(list(frames)) == FRAMES - 1
