"""Captions and labels of a dataset, from the five ways artists and tools write them down."""

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

CAPTION_CHARACTERS = 1_000
LABEL_CHARACTERS = 100
MAX_WARNINGS = 100
TABLES = ("metadata.jsonl", "metadata.csv", "dataset.json")

# What one line of a table says: (file name relative to the table's folder, caption, label)
Row = tuple[str, str | None, str | None]


class TableUnreadable(Exception):
    """A captions file none of which can be used; the message says why."""


@dataclass
class Captions:
    """What is known of each picture, by its name in the archive, and what was odd about how it was said.

    Sources are read in the order of precedence: tables, then same-name .txt, then folders; the first to speak wins.
    """

    names: frozenset[str]
    captions: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add_table(self, table_name: str, data: bytes) -> None:
        """Take metadata.jsonl, metadata.csv or dataset.json; TableUnreadable when nothing in it can be used."""
        path = PurePosixPath(table_name)
        text = decode_text(data)
        for file_name, caption, label in READERS[path.name.lower()](text, lambda said: self.warn(table_name, said)):
            name = normalise_name(str(path.parent / file_name.replace("\\", "/")))
            if name not in self.names:
                self.warn(table_name, f"names {file_name[:200]!r}, which was not sent")
                continue
            self.add(table_name, name, caption, label)

    def add_text(self, text_name: str, picture_names: Iterable[str], data: bytes) -> None:
        """Take a .txt that captions the pictures of its name; TableUnreadable when it is not text."""
        text = decode_text(data)
        for name in picture_names:
            self.add(text_name, name, text, None)

    def add_folders(self, picture_names: Iterable[str]) -> None:
        """Take the folders as labels, once the folders that hold everything are set aside."""
        by_folder = labels_by_folder(sorted(picture_names))
        if by_folder and self.labels:
            self.warn("The folders", "were not taken as labels, because a table gives labels")
            return
        for name, label in by_folder.items():
            self.add("The folders", name, None, label)

    def add(self, source: str, name: str, caption: str | None, label: str | None) -> None:
        """Note what `source` says of a picture, unless something before it said otherwise."""
        for known, said, limit in (
            (self.captions, caption, CAPTION_CHARACTERS),
            (self.labels, label, LABEL_CHARACTERS),
        ):
            text = clean(said or "", limit)
            if text and known.setdefault(name, text) != text:
                self.warn(source, f"says {text[:80]!r} of {name!r}, already {known[name][:80]!r}: kept the first")

    def warn(self, source: str, said: str) -> None:
        """Report something odd; a flood is cut short, saying so."""
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(f"{source} {said}.")
        elif len(self.warnings) == MAX_WARNINGS:
            self.warnings.append(f"More than {MAX_WARNINGS} such remarks; the rest are left out.")


def decode_text(data: bytes) -> str:
    """UTF-8, with or without a byte order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableUnreadable(f"It is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error


def normalise_name(name: str) -> str:
    """One spelling for one file: macOS writes é as two characters in zips, tables hold one."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    return unicodedata.normalize("NFC", "/".join(parts))


def clean(text: str, limit: int) -> str:
    """Single-spaced, printable, at most `limit` characters."""
    # half a surrogate pair, which JSON may hold, cannot be written as UTF-8
    whole = text[: limit * 10].encode("utf-8", "replace").decode("utf-8")
    printable = "".join(character if character.isprintable() else " " for character in whole)
    return " ".join(unicodedata.normalize("NFC", printable).split())[:limit].rstrip()


def labels_by_folder(names: list[str]) -> dict[str, str]:
    """The first folder that tells pictures apart, for each picture that is in one."""
    folders = {name: PurePosixPath(name).parent.parts for name in names}
    depth = 0
    while len({parts[depth] if len(parts) > depth else None for parts in folders.values()}) == 1:
        if any(len(parts) <= depth for parts in folders.values()):
            break
        depth += 1
    return {name: parts[depth] for name, parts in folders.items() if len(parts) > depth and parts[depth] != ".."}


def read_jsonl(text: str, warn: Callable[[str], None]) -> Iterator[Row]:
    """Hugging Face's ImageFolder: one object a line, {"file_name", "text", "label"?}."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except TableUnreadable:
            warn(f"line {number} is not JSON and was passed over")
            continue
        found = read_row(row) if isinstance(row, dict) else None
        if found:
            yield found
        else:
            warn(f"line {number} has no file_name, or a text or label that is no text, and was passed over")


def read_csv(text: str, warn: Callable[[str], None]) -> Iterator[Row]:
    """A table with the columns file_name, text and perhaps label."""
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = rows.fieldnames or []
        if "file_name" not in columns:
            raise TableUnreadable(f"Its first line lacks the column file_name; it says {','.join(columns)[:200]!r}.")
        if extra := [column for column in columns if column not in ("file_name", "text", "label")]:
            warn(f"has columns we do not use: {', '.join(extra)[:200]}")
        for row in rows:
            found = read_row(row)
            if found:
                yield found
            else:
                warn(f"line {rows.line_num} has no file_name and was passed over")
    except csv.Error as error:
        warn(f"cannot be read from line {rows.line_num} on: {error}")


def read_stylegan(text: str, _warn: Callable[[str], None]) -> Iterator[Row]:
    """StyleGAN's dataset.json: {"labels": [[file name, class number], ...]}, or null for none."""
    content = parse_json(text)
    pairs = content.get("labels") if isinstance(content, dict) else content
    for pair in pairs if isinstance(pairs, list) else [pairs] if pairs is not None else []:
        match pair:
            case [str(name), int(label)] | [str(name), str(label)]:
                yield name, None, str(label)
            case _:
                raise TableUnreadable('It is not {"labels": [["file name", class number], ...]}.')


def read_row(row: Mapping[Any, Any]) -> Row | None:
    """The three fields of a line, None when they are not there or not text."""
    file_name, text, label = row.get("file_name"), row.get("text"), row.get("label")
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    if not isinstance(file_name, str) or not file_name:
        return None
    if not isinstance(text, str | None) or not isinstance(label, str | None):
        return None
    return file_name, text, label


def parse_json(text: str) -> Any:
    """A JSON value; TableUnreadable for anything else, endless nesting included."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TableUnreadable(f"It is not JSON: {str(error)[:200]}.") from error


READERS: dict[str, Callable[[str, Callable[[str], None]], Iterator[Row]]] = {
    "metadata.jsonl": read_jsonl,
    "metadata.csv": read_csv,
    "dataset.json": read_stylegan,
}
