"""The live examples and their page of the docs: they name what is there, and what they say is understood."""

import io
import json
import re
import shutil
import subprocess
import sys
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from websockets.sync.client import connect

from app.osc_mapping import BUILT_IN, Mapping, parse_mapping, read_mapping

ROOT = Path(__file__).parents[2]
LIVE = ROOT / "examples" / "live"
NODE = shutil.which("node")
DOCS = (ROOT / "docs" / "live.md").read_text()


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.unlabelled: list[str] = []
        self._in_label = 0
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.sources += [named[name] or "" for name in ("src", "href") if name in named]
        self._in_label += tag == "label"
        if tag in ("input", "select", "textarea") and not self._in_label:
            self.unlabelled.append(str(named.get("id")))

    def handle_endtag(self, tag: str) -> None:
        self._in_label -= tag == "label"


def test_the_page_needs_nothing_from_elsewhere_and_labels_what_can_be_moved() -> None:
    page = Page(LIVE / "index.html")
    assert [source for source in page.sources if "//" in source] == []
    assert [source for source in page.sources if source[:5] != "data:" and not (LIVE / source).is_file()] == []
    assert page.unlabelled == []
    ids = set(re.findall(r'id="(\w+)"', (LIVE / "index.html").read_text()))
    used = set(re.findall(r'by\("(\w+)"\)', (LIVE / "page.js").read_text()))
    assert used <= ids


def test_the_sketch_takes_only_p5_from_elsewhere() -> None:
    sources = Page(LIVE / "p5" / "index.html").sources
    assert [urllib.parse.urlsplit(source).path.rpartition("/")[2] for source in sources if "//" in source] == [
        "p5.min.js"
    ]
    assert [source for source in sources if "//" not in source and not (LIVE / "p5" / source).is_file()] == []


@pytest.mark.skipif(NODE is None, reason="node is not installed")
@pytest.mark.parametrize("script", ["live.js", "page.js", "p5/sketch.js"])
def test_the_scripts_can_be_read(script: str) -> None:
    subprocess.run([str(NODE), "--check", str(LIVE / script)], check=True)


def test_every_message_of_the_docs_is_understood(app: Any) -> None:
    (block,) = re.findall(r"```json\n(.+?)```", DOCS, re.S)
    with connect(f"{app.url.replace('http', 'ws', 1)}/v1/models/tiny/live", proxy=None) as live:
        for line in block.splitlines():
            message = json.loads(line) | {"id": line}
            if message.get("mix"):
                message["mix"]["layers"] = "0"  # the model of the tests has one
            live.send(json.dumps(message))
            told = json.loads(live.recv(30))
            assert told == {"id": line, "passes": told.get("passes")}, told
            file = live.recv(30)
            assert isinstance(file, bytes)
            Image.open(io.BytesIO(file)).verify()


def test_every_mapping_of_docs_and_examples_works_and_the_docs_tell_what_is_built_in() -> None:
    (block,) = re.findall(r"```toml\n(.+?)```", DOCS, re.S)
    assert parse_mapping(block, "docs").change("/1/fader2", [127.0]) == (("psi",), 1.2)
    faders = read_mapping(LIVE / "faders.toml")
    assert faders.change("/1/fader3", [0.0]) == (("sliders", "rust"), -3.0)
    told = next(line for line in DOCS.splitlines() if line.startswith("Without a file"))
    paragraph = DOCS[DOCS.index(told) :].partition("\n\n")[0]
    built_in: Mapping = parse_mapping(BUILT_IN, "built in")
    assert {rule.address.replace("*", "NAME") for rule in built_in.map} == set(re.findall(r"`(/[^`]+)`", paragraph))


def test_the_client_plays_counts_and_keeps_its_frames(app: Any, tmp_path: Path) -> None:
    command = [sys.executable, str(LIVE / "client.py"), "tiny", "--studio", app.url.replace("http", "ws", 1)]
    options = ["--seconds", "1.3", "--leg", "0.5", "--size", "48x48", "--save", str(tmp_path)]
    said = subprocess.run([*command, *options], capture_output=True, text=True, check=True, timeout=60)
    assert re.search(r"\d frames a second, [\d,]+ bytes each", said.stdout)
    frames = [Image.open(io.BytesIO(frame.read_bytes())) for frame in sorted(tmp_path.glob("*.webp"))]
    assert {frame.size for frame in frames} == {(48, 48)}
    assert len({frame.tobytes() for frame in frames}) > 1
