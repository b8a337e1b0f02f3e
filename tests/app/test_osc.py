"""OSC to live: what addresses mean, what datagrams hold, and a bridge between real sockets."""

import contextlib
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder
from websockets.sync.client import ClientConnection, connect

from app import osc
from app.core.errors import InvalidRequest
from app.osc_mapping import Mapping, parse_mapping, read_mapping
from app.serving.encode import read_recipe

ROOT = Path(__file__).parents[2]
SECONDS = 30


def datagram(address: str, *arguments: Any) -> bytes:
    builder = OscMessageBuilder(address)
    for argument in arguments:
        builder.add_arg(argument)
    return builder.build().dgram


def bundle(*contents: bytes) -> bytes:
    builder = OscBundleBuilder(IMMEDIATELY)
    for content in contents:
        builder.add_content(OscMessage(content))
    return builder.build().dgram


def mapping(**rule: Any) -> Mapping:
    lines = [f"{name} = {json.dumps(value)}" for name, value in ({"address": "/a"} | rule).items()]
    return parse_mapping("\n".join(["[[map]]", *lines]), "test.toml")


@pytest.mark.parametrize(
    ("rule", "sent", "value"),
    [
        ({}, 0.25, 0.25),
        ({"from": [0, 1], "range": [-3, 3]}, 0.25, -1.5),
        ({"from": [0, 127], "range": [1, 0]}, 127, 0.0),
        ({"from": [1, 0], "range": [0, 10]}, 0.2, 8.0),
        ({"from": [0, 1], "range": [0, 8], "curve": "square"}, 0.5, 2.0),
        ({"from": [0, 1], "range": [0, 8], "curve": "sqrt"}, 0.25, 4.0),
        ({"from": [0, 1], "range": [0.01, 100], "curve": "log"}, 0.5, 1.0),
        ({"from": [0, 1], "range": [-3, 3]}, 9, 3.0),
        ({"from": [0, 1], "range": [-3, 3], "clamp": False}, 2, 9.0),
        ({"from": [0, 1], "range": [0, 4], "clamp": False, "curve": "square"}, -0.5, -1.0),
    ],
)
def test_a_number_goes_from_one_range_to_the_other_along_its_curve(
    rule: dict[str, Any], sent: float, value: float
) -> None:
    change = mapping(to="sliders.rust", **rule).change("/a", [sent])
    assert change is not None
    field, came = change
    assert field == ("sliders", "rust")
    assert math.isclose(came, value, rel_tol=1e-12)


@pytest.mark.parametrize(
    ("address", "arguments", "change"),
    [
        ("/slider/rust", [1.5, 2.0], (("sliders", "rust"), 1.5)),
        ("/psi", [1], (("psi",), 1.0)),
        ("/seed", [41.7], (("seed",), 42)),
        ("/cutoff", [3.0], (("cutoff",), 3)),
        ("/cross", [0.5], (("cross", "amount"), 0.5)),
        ("/prompt", ["a red cat"], (("prompt",), "a red cat")),
        ("/reset", [], (("reset",), True)),
        ("/reset", [1.0], (("reset",), True)),
        ("/reset", [0.0], None),  # the button comes up again
        ("/slider/a/b", [1.0], None),
        ("/slider", [1.0], None),
        ("/elsewhere", [1.0], None),
        ("/psi", [], None),
        ("/psi", ["fast"], None),
        ("/psi", [math.nan], None),
        ("/prompt", [1.0], None),
    ],
)
def test_without_a_file_addresses_mean_what_they_say(address: str, arguments: list[Any], change: Any) -> None:
    assert read_mapping(None).change(address, arguments) == change


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[[map]]\naddress = /psi\n", 2, "Invalid"),
        ('[[map]]\naddress = "/psi"\nto = "psi"\n\n[[map]]\naddress = "/x"\nto = "exec"\n', 7, "exec"),
        ('[[map]]\naddress = "/psi"\nto = "psi"\n\n\n[[map]]\nto = "psi"\n', 6, "address: Field required"),
        ('[[map]]\naddress = "psi"\nto = "psi"\n', 2, "address"),
        ('[[map]]\naddress = "/p*i"\nto = "psi"\n', 2, "address"),
        ('[[map]]\naddress = "/a"\nto = "psi"\nrun = "rm"\n', 4, "run"),
        ('[[map]]\naddress = "/a"\nto = "psi"\nrange = [0, 1]\n', 1, "from and range go together"),
        ('[[map]]\naddress = "/a"\nto = "psi"\nfrom = [1, 1]\nrange = [0, 1]\n', 4, "the same"),
        ('[[map]]\naddress = "/a"\nto = "psi"\nfrom = [0, 1]\nrange = [0, 1]\ncurve = "log"\n', 5, "above 0"),
        ('[[map]]\naddress = "/a"\nto = "psi"\ncurve = "sqrt"\n', 4, "give both"),
        ('[[map]]\naddress = "/a"\nto = "psi"\ncurve = "import os"\n', 4, "linear"),
        ('[[map]]\naddress = "/a"\nto = "psi"\nfrom = [0, nan]\nrange = [0, 1]\n', 4, "finite"),
        ('[[map]]\naddress = "/a"\nto = "prompt"\nfrom = [0, 1]\nrange = [0, 1]\n', 5, "no number"),
        ('[[map]]\naddress = "/a/*"\nto = "psi"\n', 2, "both"),
        ('title = "mine"\n[[map]]\naddress = "/a"\nto = "psi"\n', 1, "title"),
        ("", 1, "map"),
    ],
)
def test_a_bad_mapping_is_refused_with_its_line_and_the_reason(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(InvalidRequest) as refused:
        read_mapping(file)
    assert refused.value.error_code == "mapping_invalid"
    assert f"mine.toml{'' if 'at line' in refused.value.message else f', line {line}'}" in refused.value.message
    assert f"line {line}" in refused.value.message
    assert words in refused.value.message


def test_a_mapping_that_is_not_there_ends_the_command_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.cli", "osc", "tiny", "--mapping", str(tmp_path / "no.toml")]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert re.fullmatch(r"ganvas: .*no\.toml: it cannot be read: .*\n", said.stderr)


def test_bundles_are_taken_apart_and_junk_is_left_out() -> None:
    psi, seed = datagram("/psi", 0.5), datagram("/seed", 7)
    inner = bundle(psi, seed)
    nested = b"#bundle\0" + bytes(8) + len(inner).to_bytes(4) + inner + len(seed).to_bytes(4) + seed
    assert list(osc.messages(psi)) == [("/psi", [0.5])]
    assert list(osc.messages(nested)) == [("/psi", [0.5]), ("/seed", [7]), ("/seed", [7])]
    for junk in (b"", b"\0", b"/psi", b"hello", b"#bundle\0", b"#bundle\0" + b"\xff" * 40, b"\xff" * 60_000):
        assert list(osc.messages(junk)) == []
    forever = b"#bundle\0" + bytes(8) + b"\xff\xff\xff\xfc" * 3  # elements of -4 bytes
    assert list(osc.messages(forever)) == []
    deep = psi
    for _ in range(1000):
        deep = b"#bundle\0" + bytes(8) + len(deep).to_bytes(4) + deep
    assert list(osc.messages(deep)) == []


@pytest.mark.parametrize(
    ("studio", "url"),
    [
        ("http://127.0.0.1:8000", "ws://127.0.0.1:8000/v1/models/a%20b@c/live?performance=osc"),
        ("https://studio.example/ganvas/", "wss://studio.example/ganvas/v1/models/a%20b@c/live?performance=osc"),
    ],
)
def test_the_url_of_a_performance(studio: str, url: str) -> None:
    bridge = osc.Bridge(read_mapping(None), ("127.0.0.1", 0), studio, "a b@c", "osc")
    assert osc.live_url(bridge) == url


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:9000", ("127.0.0.1", 9000)), ("[::1]:1", ("::1", 1)), (":9000", ("0.0.0.0", 9000))],  # noqa: S104
)
def test_where_to_listen(text: str, address: tuple[str, int]) -> None:
    assert osc.parse_listen(text) == address


@pytest.mark.parametrize("text", ["9000", "localhost", "a:b", "a:70000", ""])
def test_where_nobody_can_listen(text: str) -> None:
    with pytest.raises(InvalidRequest):
        osc.parse_listen(text)


class Faders:
    """A running `ganvas osc`, and what is sent to it."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self._address = ("127.0.0.1", port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send(self, datagram_: bytes) -> None:
        self._socket.sendto(datagram_, self._address)

    def until(self, words: str) -> str:
        """The next line of the bridge that holds these words."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if words in line:
                return line
        raise AssertionError(f"it ended without saying {words!r}")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Callable[..., Faders]]:
    """Starts `ganvas osc` on a free port."""
    with contextlib.ExitStack() as running:

        def start(url: str, *arguments: str) -> Faders:
            command = [sys.executable, "-m", "app.cli", "osc", "tiny", "--url", url, "--listen", "127.0.0.1:0"]
            environment = os.environ | {"PYTHONUNBUFFERED": "1"}
            process = running.enter_context(
                subprocess.Popen([*command, *arguments], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
            )
            running.callback(process.kill)
            assert process.stderr is not None
            port = int(process.stderr.readline().rpartition(":")[2])
            faders = Faders(process, port)
            running.callback(faders.close)
            return faders

        yield start


@contextlib.contextmanager
def watching(app: Any, performance: str = "osc") -> Iterator[ClientConnection]:
    url = f"{app.url.replace('http', 'ws', 1)}/v1/models/tiny/live?watch={performance}"
    with connect(url, proxy=None) as viewer:
        viewer.send('{"metadata": "full"}')
        yield viewer


def see(viewer: ClientConnection, **wanted: Any) -> None:
    """Frames until one has this recipe."""
    deadline = time.monotonic() + SECONDS
    while True:
        file = viewer.recv(deadline - time.monotonic())
        assert isinstance(file, bytes), file
        recipe = read_recipe(file)
        if recipe is not None and all(getattr(recipe, name) == value for name, value in wanted.items()):
            return


def test_faders_play_a_performance_and_one_bad_one_stills_no_other(app: Any, bridge: Callable[..., Faders]) -> None:
    faders = bridge(app.url, "--rate")
    faders.until("playing")
    with watching(app) as viewer:
        for step in range(50):
            faders.send(datagram("/psi", step / 100))
        faders.send(bundle(datagram("/seed", 7), datagram("/cutoff", 0)))
        see(viewer, truncation_psi=0.49, seed=7, truncation_cutoff=0)
        faders.send(bundle(datagram("/slider/none", 1.0), datagram("/seed", 8), datagram("/psi", 0.9)))
        see(viewer, seed=8, truncation_psi=0.9, truncation_cutoff=0)
        assert "'none'" in faders.until("refused")
        faders.send(bundle(datagram("/reset"), datagram("/seed", 9)))
        see(viewer, seed=9, truncation_psi=0.7, truncation_cutoff=None)
    assert re.search(r": \d+ messages in, [1-9]\d* frames\n", faders.until("messages in"))
    faders.process.send_signal(signal.SIGINT)
    assert faders.process.wait(SECONDS) == 0


class Relay:
    """A port that leads to an application while it is open, and to nobody while it is not."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._to = host, int(port)
        self._is_open = False
        self._ends: list[socket.socket] = []
        self._listener = socket.socket()  # bound alone, it refuses whoever comes
        self._listener.bind(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def open(self) -> None:
        if not self._is_open and not self._ends:
            self._listener.listen()
            threading.Thread(target=self._accept, daemon=True).start()
        self._is_open = True

    def cut(self) -> None:
        self._is_open = False
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for each in (self._listener, *self._ends):
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                if not self._is_open:
                    here.close()
                    continue
                there = socket.create_connection(self._to)
                self._ends += here, there
                for one, other in ((here, there), (there, here)):
                    threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    @staticmethod
    def _copy(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
            other.shutdown(socket.SHUT_RDWR)


def test_a_bridge_waits_for_its_studio_and_tells_it_all_again(app: Any, bridge: Callable[..., Faders]) -> None:
    with contextlib.closing(Relay(app.url)) as relay:
        faders = bridge(f"http://127.0.0.1:{relay.port}")
        faders.until("no studio")
        faders.send(datagram("/seed", 5))
        with watching(app) as viewer:
            relay.open()
            see(viewer, seed=5)
        relay.cut()
        faders.until("studio")
        faders.send(datagram("/psi", 0.1))
        with watching(app) as viewer:
            relay.open()
            see(viewer, seed=5, truncation_psi=0.1)
