"""Which files of an archive speak of pictures rather than being some, and what they say."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from worker.dataset.archive import Archive, Entry, is_of_the_system
from worker.dataset.captions import TABLES, Captions, TableUnreadable, normalise_name
from worker.dataset.store import Item
from worker.dataset.verdicts import Refused, Verdict


@dataclass(frozen=True)
class Roles:
    """Which files of an archive are to be read as what."""

    tables: list[Entry]
    texts: list[tuple[Entry, list[str]]]  # each .txt with the names of the pictures it captions
    pictures: list[Entry]  # and whatever else may turn out not to be one


def assign_roles(entries: list[Entry]) -> Roles:
    """Tables by their names, .txt files by the pictures beside them; all else is looked at as a picture."""
    beside: dict[str, list[str]] = {}
    for entry in entries:
        name = normalise_name(entry.name)
        if not name.lower().endswith(".txt") and not is_of_the_system(entry.name):
            beside.setdefault(without_extension(name), []).append(name)
    roles = Roles([], [], [])
    for entry in entries:
        name = normalise_name(entry.name)
        captioned = beside.get(without_extension(name), []) if name.lower().endswith(".txt") else []
        if is_of_the_system(entry.name):
            roles.pictures.append(entry)
        elif PurePosixPath(name).name.lower() in TABLES:
            roles.tables.append(entry)
        elif captioned:
            roles.texts.append((entry, captioned))
        else:
            roles.pictures.append(entry)
    return roles


def without_extension(name: str) -> str:
    """folder/name of folder/name.png."""
    path = PurePosixPath(name)
    return str(path.parent / path.stem)


def read_captions(archive: Archive, roles: Roles, add_item: Callable[[Item], None]) -> Captions:
    """What tables and .txt files say, each of them an item too; tables first, for they take precedence."""
    captions = Captions(frozenset(normalise_name(entry.name) for entry in roles.pictures))
    for name, count in Counter(normalise_name(entry.name) for entry in archive.entries).items():
        if count > 1:
            captions.warn(repr(name[:200]), f"is the name of {count} files; each was looked at")
    limits = archive.limits
    for table in roles.tables:
        add_item(read_sidecar(archive, table, limits.table_bytes, partial(captions.add_table, table.name)))
    for text, names in roles.texts:
        add_item(read_sidecar(archive, text, limits.caption_bytes, partial(captions.add_text, text.name, names)))
    return captions


def read_sidecar(archive: Archive, entry: Entry, max_bytes: int, take: Callable[[bytes], None]) -> Item:
    """Hand the file's bytes to `take`, and say how that went."""
    verdict, reason = Verdict.SIDECAR, "Captions and labels, read."
    try:
        take(archive.read(entry, max_bytes))
    except Refused as refusal:
        verdict, reason = refusal.verdict, refusal.reason
    except TableUnreadable as problem:
        verdict, reason = Verdict.CORRUPT, str(problem)
    return Item(index=entry.index, file_name=entry.name, verdict=verdict, reason=reason)
