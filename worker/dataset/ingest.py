"""From an archive of anything to a dataset: every file gets a verdict, every usable picture a row."""

import hashlib
import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import ImageColor

from app.core.errors import InvalidRequest
from worker.dataset.archive import Archive, Entry, Limits, open_archive
from worker.dataset.captions import Captions, normalise_name
from worker.dataset.decode_pool import Decoded, DecodePool, Decoder, Framing
from worker.dataset.decoder import Format
from worker.dataset.formats import picture_format
from worker.dataset.judge import judge, readiness
from worker.dataset.sidecars import assign_roles, read_captions
from worker.dataset.store import ArrayWriter, Item, Manifest, replacing, write_manifest
from worker.dataset.verdicts import Refused, Verdict

MIN_ITEMS = 8  # coverage looks at the 5 nearest neighbours of each picture: below this there hardly are any
AUTO_RESOLUTIONS = (64, 32)  # larger is for who asks: each doubling makes training four times as long
SAMPLE = 200  # pictures measured to choose a resolution
DECODERS = min(2, os.cpu_count() or 1)
Crop = Literal["center", "none"]


class IngestStopped(Exception):
    """`should_stop` said so; no array was left behind."""


@dataclass(frozen=True)
class Ingested:
    """A dataset on disk and its numbers; `counts` add up to `sent`."""

    array_path: Path
    manifest_path: Path
    resolution: int
    sent: int
    kept: int
    counts: dict[str, int]
    captions: int
    labels: list[str]
    readiness: str
    warnings: list[str]


class NotEnoughPictures(InvalidRequest):
    """Too little came through to train on; `ingested` still says what became of each file."""

    def __init__(self, message: str, *, code: str, ingested: Ingested) -> None:
        super().__init__(message, code=code, param="files")
        self.ingested = ingested


class Ledger:
    """One item for each file of the archive, reported as they come."""

    def __init__(self, total: int, on_progress: Callable[[int, int], None]) -> None:
        self._total = total
        self._on_progress = on_progress
        self._items: dict[int, Item] = {}

    def add(self, item: Item) -> None:
        self._items[item.index] = item
        self._on_progress(len(self._items), self._total)

    def in_order(self) -> list[Item]:
        """The items as the archive has them."""
        return [self._items[index] for index in sorted(self._items)]


def ingest(
    archive: Path,
    workdir: Path,
    *,
    resolution: int | None = None,
    crop: Crop = "center",
    background: str = "white",
    limits: Limits = Limits(),  # noqa: B008 - frozen
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Ingested:
    """Prepare the zip at `archive` into `workdir`: images.npy (uint8 [N, R, R, 3]) and manifest.json.

    `resolution` None takes the largest of `AUTO_RESOLUTIONS` that half of the pictures fill; `crop` "none" keeps whole
    pictures, with the background beside them. Raises InvalidRequest or TooLarge for an archive that cannot be read,
    NotEnoughPictures for fewer than `MIN_ITEMS`, IngestStopped when told to stop.
    """
    refuse_resolution(resolution)
    colour = background_colour(background)
    workdir.mkdir(parents=True, exist_ok=True)
    array_path = workdir / "images.npy"
    with open_archive(archive, limits) as opened:
        ledger = Ledger(len(opened.entries), on_progress)
        roles = assign_roles(opened.entries)
        captions = read_captions(opened, roles, ledger.add)
        framing = Framing(resolution or choose_resolution(opened, roles.pictures), crop, colour)
        with replacing(array_path) as file, DecodePool(DECODERS) as pool:
            writer = ArrayWriter(file, framing.resolution)
            decoded = pool.prepare(read_pictures(opened, roles.pictures, should_stop), framing)
            for item in judge_pictures(zip(roles.pictures, decoded, strict=True), framing, writer):
                ledger.add(item)
            writer.finish()
    items = with_captions(ledger.in_order(), captions)
    manifest = summarise(items, framing, background, captions.warnings)
    return publish(manifest, array_path, workdir / "manifest.json")


def refuse_resolution(resolution: int | None) -> None:
    """InvalidRequest for a side that networks cannot have."""
    if resolution is not None and (resolution.bit_count() != 1 or not 16 <= resolution <= 1024):
        message = f"resolution is {resolution}; it must be a power of two from 16 to 1024, such as 64."
        raise InvalidRequest(message, param="resolution")


def background_colour(name: str) -> tuple[int, int, int]:
    """Red, green and blue of a colour's name or #rrggbb."""
    try:
        red, green, blue, *_ = ImageColor.getrgb(name)
    except ValueError as error:
        message = f"background is {name[:40]!r}; it must be a colour, such as white or #rrggbb."
        raise InvalidRequest(message, param="background") from error
    return red, green, blue


def read_picture(archive: Archive, entry: Entry) -> tuple[bytes, Format]:
    """A file's bytes and format; Refused when it is no picture."""
    data = archive.read(entry, archive.limits.file_bytes)
    return data, picture_format(data, entry.name)


def read_pictures(
    archive: Archive, entries: list[Entry], should_stop: Callable[[], bool]
) -> Iterator[tuple[bytes, Format] | Refused]:
    """Each picture, or why it is none."""
    for entry in entries:
        if should_stop():
            raise IngestStopped
        try:
            yield read_picture(archive, entry)
        except Refused as refusal:
            yield refusal


def choose_resolution(archive: Archive, entries: list[Entry]) -> int:
    """The largest of `AUTO_RESOLUTIONS` that at least half of the pictures fill without being enlarged."""
    sides = []
    with closing(Decoder()) as decoder:
        for entry in entries[:: max(1, len(entries) // SAMPLE)]:
            try:
                facts = decoder.measure(*read_picture(archive, entry))
            except Refused:
                continue
            sides.append(min(facts.width, facts.height))
    median = statistics.median_high(sides) if sides else 0
    return next((resolution for resolution in AUTO_RESOLUTIONS if median >= resolution), AUTO_RESOLUTIONS[-1])


def judge_pictures(
    results: Iterable[tuple[Entry, Decoded | Refused]], framing: Framing, writer: ArrayWriter
) -> Iterator[Item]:
    """An item for each result, its pixels written when they are to be kept."""
    first_with: dict[bytes, str] = {}
    for entry, result in results:
        if isinstance(result, Refused):
            yield Item(index=entry.index, file_name=entry.name, verdict=result.verdict, reason=result.reason)
            continue
        judgement = judge(result.facts, framing)
        verdict, reason, position = judgement.verdict, judgement.reason, None
        if judgement.keep:
            digest = hashlib.sha256(result.pixels).digest()
            if digest in first_with:
                verdict, reason = Verdict.DUPLICATE, f"Left out: the same picture as {first_with[digest]}."
            else:
                first_with[digest] = entry.name
                position = writer.append(result.pixels)
        yield Item(
            index=entry.index,
            file_name=entry.name,
            verdict=verdict,
            reason=reason,
            fixes=judgement.fixes if position is not None else [],
            position=position,
            width=result.facts.width,
            height=result.facts.height,
        )


def with_captions(items: list[Item], captions: Captions) -> list[Item]:
    """The items, those kept with what is said of them."""
    captions.add_folders(normalise_name(item.file_name) for item in items if item.position is not None)
    described = []
    for item in items:
        name = normalise_name(item.file_name)
        said = {"caption": captions.captions.get(name), "label": captions.labels.get(name)}
        described.append(item.model_copy(update=said if item.position is not None else {}))
    return described


def summarise(items: list[Item], framing: Framing, background: str, warnings: list[str]) -> Manifest:
    """The items with their totals."""
    kept = [item for item in items if item.position is not None]
    return Manifest(
        resolution=framing.resolution,
        crop=framing.crop,
        background=background,
        sent=len(items),
        kept=len(kept),
        counts=dict(Counter(item.verdict for item in items)),
        captions=sum(item.caption is not None for item in kept),
        labels=sorted({item.label for item in kept if item.label is not None}),
        readiness=readiness(items, framing.resolution),
        warnings=warnings,
        items=items,
    )


def publish(manifest: Manifest, array_path: Path, manifest_path: Path) -> Ingested:
    """Write the manifest; NotEnoughPictures when what it tells of is too little to train on."""
    write_manifest(manifest_path, manifest)
    ingested = Ingested(
        array_path=array_path,
        manifest_path=manifest_path,
        counts={str(verdict): count for verdict, count in manifest.counts.items()},
        **manifest.model_dump(include={"resolution", "sent", "kept", "captions", "labels", "readiness", "warnings"}),
    )
    if manifest.kept >= MIN_ITEMS:
        return ingested
    code = "dataset_too_small" if manifest.kept else "dataset_empty"
    raise NotEnoughPictures(why_too_few(manifest), code=code, ingested=ingested)


def why_too_few(manifest: Manifest) -> str:
    """What came, the first reason against it, and what to do."""
    said = f"Of {manifest.sent} files sent, {manifest.kept} can be trained on; at least {MIN_ITEMS} must."
    if not manifest.sent:
        return "The zip holds no files. Send PNG, JPEG or WebP pictures."
    for item in manifest.items:
        if item.position is None and item.verdict != Verdict.SIDECAR:
            return f"{said} For example {item.file_name[:200]}: {item.reason}"
    return f"{said} Add more."
