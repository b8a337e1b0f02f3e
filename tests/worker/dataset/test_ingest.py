"""The whole way from an archive to a dataset: every verdict, and numbers that add up."""

import json
import os
import signal
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.core.errors import InvalidRequest
from worker.dataset import ingest as ingest_module
from worker.dataset.decode_pool import DecodePool
from worker.dataset.ingest import MIN_ITEMS, Ingested, IngestStopped, NotEnoughPictures, ingest
from worker.dataset.store import Item, Manifest, open_images, read_manifest

EMOJI = Path(__file__).parents[3] / "examples" / "emoji.zip"


def by_name(ingested: Ingested) -> dict[str, Item]:
    """The manifest's items, once its numbers were found to add up."""
    manifest = read_manifest(ingested.manifest_path)
    kept = [item for item in manifest.items if item.position is not None]
    images = open_images(ingested.array_path)
    assert [item.index for item in manifest.items] == list(range(ingested.sent))
    assert sum(ingested.counts.values()) == ingested.sent == manifest.sent
    assert [item.position for item in kept] == list(range(ingested.kept))
    assert images.shape == (ingested.kept, ingested.resolution, ingested.resolution, 3)
    assert all(item.reason.endswith(".") for item in manifest.items)
    return {item.file_name: item for item in manifest.items}


def test_every_verdict_is_given_and_reasoned(
    tmp_path: Path,
    pack: Callable[..., Path],
    draw: Callable[..., Image.Image],
    encode: Callable[..., bytes],
    good: dict[str, bytes],
) -> None:
    jpeg = encode(draw(20), "JPEG")
    bomb = bytearray(encode(draw(21)))
    bomb[16:24] = (30_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    frames = [draw(22).quantize(), draw(23).quantize()]
    hole = draw(24).convert("RGBA")
    hole.putalpha(Image.linear_gradient("L").resize(hole.size))
    files = {
        **good,
        "soft.png": encode(draw(25, 40, 40)),
        "tiny.png": encode(draw(26, 31, 31)),
        "again.png": good["good3.png"],
        "glass.png": encode(hole),
        "wide.jpg": encode(draw(27, 300, 100), "JPEG"),
        "pencil.png": encode(draw(28).convert("L")),
        "cut.jpg": jpeg[: len(jpeg) - 300],
        "moving.gif": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "bomb.png": bytes(bomb),
        "inner.zip": pack({"x.png": b"x"}).read_bytes(),
        "__MACOSX/._good1.png": b"\0\5\x16\7",
        ".DS_Store": b"Bud1",
        "metadata.csv": b"file_name,text\ngood0.png,zero\n",
    }
    ingested = ingest(pack(files), tmp_path / "out", resolution=64)
    items = by_name(ingested)
    verdicts = {
        name: (str(item.verdict), item.position is not None) for name, item in items.items() if name not in good
    }
    assert verdicts == {
        "soft.png": ("small", True),
        "tiny.png": ("small", False),
        "again.png": ("duplicate", False),
        "glass.png": ("alpha", True),
        "wide.jpg": ("odd_ratio", True),
        "pencil.png": ("grey", True),
        "cut.jpg": ("corrupt", False),
        "moving.gif": ("animated", True),
        "bomb.png": ("too_large", False),
        "inner.zip": ("unsupported", False),
        "__MACOSX/._good1.png": ("unsupported", False),
        ".DS_Store": ("unsupported", False),
        "metadata.csv": ("sidecar", False),
    }
    assert {str(items[name].verdict) for name in good} == {"ok"}
    assert "good3.png" in items["again.png"].reason
    assert "centre-cropped from 300 x 100" in items["wide.jpg"].fixes
    assert ingested.kept == 13
    assert ingested.readiness == (
        "13 pictures at 64 px, 1 caption, no labels: very few: the model will mostly copy them; add more if you can. "
        "7 files left out: 3 unsupported, 1 small, 1 duplicate, 1 corrupt, 1 too large."
    )


def test_the_sample_artwork_comes_through_whole(tmp_path: Path) -> None:
    ingested = ingest(EMOJI, tmp_path)
    items = by_name(ingested)
    assert ingested.counts == {"ok": 1_148, "grey": 20, "sidecar": 1}
    assert (ingested.resolution, ingested.kept, ingested.captions, len(ingested.labels)) == (64, 1_168, 1_168, 12)
    assert ingested.warnings == []
    face = items["1f600.png"]
    assert (face.caption, face.label) == ("grinning face", "face")
    with zipfile.ZipFile(EMOJI) as archive, archive.open("1f600.png") as file:
        assert np.array_equal(open_images(ingested.array_path)[face.position], np.asarray(Image.open(file)))


def test_captions_come_from_all_five_sources(
    tmp_path: Path, pack: Callable[..., Path], draw: Callable[..., Image.Image], encode: Callable[..., bytes]
) -> None:
    def pictures(folder: str, seeds: range) -> dict[str, bytes]:
        return {f"{folder}{seed}.png": encode(draw(seed, 32, 32)) for seed in seeds}

    tables = {
        "jsonl/metadata.jsonl": json.dumps({"file_name": "0.png", "text": "from jsonl"}).encode(),
        "csv/metadata.csv": b"file_name,text\n2.png,from csv\n",
        "texts/4.txt": b"from a text file",
    }
    files = {**pictures("jsonl/", range(2)), **pictures("csv/", range(2, 4)), **pictures("texts/", range(4, 8))}
    ingested = ingest(pack({**files, **tables}), tmp_path / "out")
    items = by_name(ingested)
    assert [items[name].caption for name in ("jsonl/0.png", "csv/2.png", "texts/4.png", "texts/5.png")] == [
        "from jsonl",
        "from csv",
        "from a text file",
        None,
    ]
    assert ingested.labels == ["csv", "jsonl", "texts"]
    assert items["texts/5.png"].label == "texts"
    assert ingested.counts == {"ok": 8, "sidecar": 3}
    stylegan = {
        "dataset.json": json.dumps({"labels": [[name, index % 3] for index, name in enumerate(files)]}).encode()
    }
    ingested = ingest(pack({**files, **stylegan}), tmp_path / "out")
    assert ingested.labels == ["0", "1", "2"]
    assert by_name(ingested)["csv/3.png"].label == "0"


def test_a_broken_table_is_reported_and_the_pictures_stay(
    tmp_path: Path, pack: Callable[..., Path], good: dict[str, bytes]
) -> None:
    ingested = ingest(pack({**good, "metadata.csv": b"\xff\xfe", "README.txt": b"hello"}), tmp_path / "out")
    items = by_name(ingested)
    assert items["metadata.csv"].verdict == "corrupt"
    assert items["README.txt"].verdict == "unsupported"
    assert ingested.kept == len(good)


def test_captions_over_their_limit_are_refused(
    tmp_path: Path, pack: Callable[..., Path], good: dict[str, bytes]
) -> None:
    text = "".join(str(number) for number in range(20_000)).encode()
    items = by_name(ingest(pack({**good, "good1.txt": text}), tmp_path / "out"))
    assert items["good1.txt"].verdict == "too_large"
    assert items["good1.png"].caption is None


def test_two_files_of_one_name_are_both_looked_at(
    tmp_path: Path,
    pack: Callable[..., Path],
    draw: Callable[..., Image.Image],
    encode: Callable[..., bytes],
    good: dict[str, bytes],
) -> None:
    upload = pack({**good, "metadata.csv": b"file_name,text\ngood0.png,twice\n"})
    with zipfile.ZipFile(upload, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("good0.png", encode(draw(99)))
    ingested = ingest(upload, tmp_path / "out")
    assert (ingested.kept, ingested.captions) == (len(good) + 1, 2)
    assert "name of 2 files" in ingested.warnings[0]


@pytest.mark.parametrize(
    ("sizes", "resolution"), [([(64, 64)] * 8, 64), ([(500, 63)] * 8, 32), ([(40, 40)] * 4 + [(900, 800)] * 4, 64)]
)
def test_the_resolution_is_what_half_of_the_pictures_fill(
    tmp_path: Path,
    pack: Callable[..., Path],
    draw: Callable[..., Image.Image],
    encode: Callable[..., bytes],
    sizes: list[tuple[int, int]],
    resolution: int,
) -> None:
    files = {f"{seed}.png": encode(draw(seed, *size)) for seed, size in enumerate(sizes)}
    assert ingest(pack(files), tmp_path / "out").resolution == resolution


def test_the_background_and_the_crop_are_as_asked(
    tmp_path: Path, pack: Callable[..., Path], encode: Callable[..., bytes]
) -> None:
    glass = {f"{n}.png": encode(Image.new("RGBA", (64, 32 + n), (0, n, 0, 255 - n))) for n in range(10)}
    ingested = ingest(pack(glass), tmp_path / "out", resolution=32, crop="none", background="#0000ff")
    images = open_images(ingested.array_path)
    assert (images[:, 0] == (0, 0, 255)).all()
    assert by_name(ingested)["9.png"].fixes == ["laid over the background", "padded to a square from 64 x 41"]


@pytest.mark.parametrize(
    "wrong", [{"background": "vanilla"}, {"resolution": 48}, {"resolution": 0}, {"resolution": 2048}]
)
def test_what_cannot_be_asked_is_refused_by_name(
    tmp_path: Path, pack: Callable[..., Path], good: dict[str, bytes], wrong: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ingest(pack(good), tmp_path / "out", **wrong)
    assert refused.value.param == next(iter(wrong))


def refused_for(upload: Path, workdir: Path) -> tuple[str, str, Manifest]:
    with pytest.raises(NotEnoughPictures) as refused:
        ingest(upload, workdir)
    ingested = refused.value.ingested
    assert sum(ingested.counts.values()) == ingested.sent
    return refused.value.error_code, refused.value.message, read_manifest(ingested.manifest_path)


def test_a_zip_of_nothing_is_refused(tmp_path: Path, pack: Callable[..., Path]) -> None:
    code, message, manifest = refused_for(pack({}), tmp_path / "out")
    assert (code, manifest.sent) == ("dataset_empty", 0)
    assert message == "The zip holds no files. Send PNG, JPEG or WebP pictures."


def test_one_picture_is_refused(tmp_path: Path, pack: Callable[..., Path], good: dict[str, bytes]) -> None:
    code, message, manifest = refused_for(pack({"one.png": good["good1.png"]}), tmp_path / "out")
    assert (code, manifest.kept) == ("dataset_too_small", 1)
    assert message == f"Of 1 files sent, 1 can be trained on; at least {MIN_ITEMS} must. Add more."


def test_ten_corrupt_pictures_are_refused_with_a_reason(
    tmp_path: Path, pack: Callable[..., Path], good: dict[str, bytes]
) -> None:
    code, message, manifest = refused_for(
        pack({f"{n}.png": good["good1.png"][: 60 + n] for n in range(10)}), tmp_path / "out"
    )
    assert (code, manifest.counts) == ("dataset_empty", {"corrupt": 10})
    assert "0.png: It cannot be decoded" in message


def test_the_same_picture_ten_times_is_one_picture(
    tmp_path: Path, pack: Callable[..., Path], good: dict[str, bytes]
) -> None:
    code, message, _ = refused_for(pack({f"{n}.png": good["good1.png"] for n in range(10)}), tmp_path / "out")
    assert code == "dataset_too_small"
    assert "the same picture as 0.png" in message


def test_a_decoder_killed_in_the_middle_costs_at_most_its_picture(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    draw: Callable[..., Image.Image],
    encode: Callable[..., bytes],
    pack: Callable[..., Path],
) -> None:
    pools: list[DecodePool] = []
    monkeypatch.setattr(ingest_module, "DecodePool", lambda size: pools.append(DecodePool(1)) or pools[0])
    files = {f"{n}.png": encode(draw(n, 300, 300)) for n in range(30)}
    killed: list[int] = []

    def kill_at_ten(done: int, _total: int) -> None:
        if done == 10 and (pid := pools[0].decoders[0].pid):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    ingested = ingest(pack(files), tmp_path / "out", on_progress=kill_at_ten)
    by_name(ingested)
    assert killed
    assert ingested.counts in ({"ok": 29, "corrupt": 1}, {"ok": 30})


def test_progress_counts_every_file_once(tmp_path: Path, pack: Callable[..., Path], good: dict[str, bytes]) -> None:
    seen: list[tuple[int, int]] = []
    ingest(pack({**good, "good1.txt": b"one"}), tmp_path / "out", on_progress=lambda *progress: seen.append(progress))
    assert seen == [(done, 9) for done in range(1, 10)]


def test_stopping_leaves_no_array_behind(tmp_path: Path, pack: Callable[..., Path], good: dict[str, bytes]) -> None:
    stops = iter([False, False, False, True])
    with pytest.raises(IngestStopped):
        ingest(pack(good), tmp_path / "out", should_stop=lambda: next(stops))
    assert list((tmp_path / "out").iterdir()) == []


def test_the_same_archive_gives_the_same_bytes(
    tmp_path: Path, pack: Callable[..., Path], good: dict[str, bytes]
) -> None:
    upload = pack(good)
    one, other = ingest(upload, tmp_path / "one"), ingest(upload, tmp_path / "other")
    assert one.array_path.read_bytes() == other.array_path.read_bytes()
    assert one.manifest_path.read_bytes() == other.manifest_path.read_bytes()
