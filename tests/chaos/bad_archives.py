"""Zips that are none, or lie, flood or reach out of their folder, by name; and what becomes of each."""

import io
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator

from tests.chaos.bad_pictures import drawn, saved

Named = Iterator[tuple[str, bytes]]
GOOD = 8  # pictures, as many as a dataset needs
END = struct.Struct("<4s4H2LH")


def pictures(first: int = 100) -> list[tuple[str, bytes]]:
    """As many good ones as a dataset needs."""
    return [(f"good{seed}.png", saved(drawn(seed=seed), "PNG")) for seed in range(first, first + GOOD)]


def packed(*files: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip."""
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that stand twice
        for name, data in files:
            archive.writestr(name, data)
    return place.getvalue()


def linked(kind: int, to: str) -> tuple[zipfile.ZipInfo, bytes]:
    """A link, pipe or device."""
    info = zipfile.ZipInfo("link.png")
    info.external_attr = (kind | 0o777) << 16
    info.create_system = 3
    return info, to.encode()


def hopeless() -> Named:
    """Of which nothing can be trained on."""
    whole = packed(*pictures())
    yield "nothing in it", packed()
    yield "no pictures", packed(*((f"{number}.txt", b"words") for number in range(20)))
    yield "one picture", packed(pictures()[0])
    yield "the same picture a hundred times", packed(*((f"{n}.png", pictures()[0][1]) for n in range(100)))
    yield "cut off", whole[: len(whole) // 2]
    yield "without its list", whole[:-60]
    yield "noise called a zip", b"PK\3\4" + bytes(range(256)) * 20
    yield "a list that claims 2 GiB", whole[:-22] + END.pack(b"PK\5\6", 0, 0, 9, 9, 2**31, 0, 0)
    yield "a list that claims another disk", whole[:-22] + END.pack(b"PK\5\6", 7, 7, 9, 9, 100, 0, 0)
    yield "a list that starts behind the end", whole[:-22] + END.pack(b"PK\5\6", 0, 0, 9, 9, 100, 2**32 - 2, 0)
    yield "65,536 files", flooded(65_536)
    yield "700,000 files", flooded(700_000)
    yield "files in one another", overlapping()
    yield "zips in a zip", packed(*((f"{number}.zip", whole) for number in range(9)))
    yield "bombs alone", packed(*((f"{number}.png", bytes(2**23)) for number in range(9)))


def flooded(files: int) -> bytes:
    """A zip that lists one file of nothing under so many names."""
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    listed = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    size = len(listed) * files
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, files, files, size, len(local))
    place = struct.pack("<4sLQL", b"PK\6\7", 0, len(local) + size, 1)
    end = END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return local + listed * files + large + place + end


def overlapping() -> bytes:
    """A zip whose list names one picture under many names."""
    picture = pictures()[0][1]
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, len(picture), len(picture), 1, 0) + b"a"
    listed = b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, len(picture), len(picture), 5, 0, 0, 0, 0, 0, 0)
        + b"%05d" % number
        for number in range(5_000)
    )
    start = len(local) + len(picture)
    return local + picture + listed + END.pack(b"PK\5\6", 0, 0, 5_000, 5_000, len(listed), start, 0)


def mixed(canary: str) -> Iterator[tuple[str, bytes, str]]:
    """Good pictures and one bad file each, and the verdict on that; canary: a path that must not come to be."""
    picture = saved(drawn(seed=99), "PNG")
    names = {
        "a name that climbs": f"../../../../../../{canary}",
        "a name that climbs the other way": "..\\..\\..\\" + canary.replace("/", "\\"),
        "a name from the root": canary,
        "a name of a drive": "C:\\" + canary,
        "a name of a device": "CON.png",
        "a name that reads backwards": "gnp.\u202egnp.exe.png",
        "a name of 5,000 characters": "x" * 5_000 + ".png",
        "a name of dots": "...",
        "a name with a line break": "a\r\nb.png",
    }
    for what, name in names.items():
        yield what, packed(*pictures(), (name, picture)), "ok"
    yield "a case clash", packed(*pictures(), ("GOOD100.PNG", picture)), "ok"
    yield "a name that stands twice", packed(*pictures(), ("good100.png", picture)), "ok"
    for what, kind, to in (
        ("a symbolic link", stat.S_IFLNK, "/etc/passwd"),
        ("a pipe", stat.S_IFIFO, ""),
        ("a device", stat.S_IFCHR, ""),
    ):
        yield what, packed(*pictures(), linked(kind, to)), "unsupported"
    yield "a bomb of zeros", packed(*pictures(), ("bomb.png", bytes(2**27))), "too_large"
    yield "a zip", packed(*pictures(), ("inner.zip", packed(*pictures()))), "unsupported"
    yield "an odd compression", packed(*pictures(), (lzma(), picture)), "unsupported"
    yield "an encrypted file", last_changed(6, 8, lambda flags: flags | 1), "unsupported"
    yield "a file that claims another size", last_changed(22, 24, lambda size: size + 9), "corrupt"
    yield "a file of another checksum", last_changed(14, 16, lambda checksum: checksum ^ 1), "corrupt"
    yield "a file that claims 4 GiB", last_changed(22, 24, lambda _: 2**32 - 2), "too_large"


def lzma() -> zipfile.ZipInfo:
    """An entry whose dictionary may be as large as it says."""
    info = zipfile.ZipInfo("odd.png")
    info.compress_type = zipfile.ZIP_LZMA
    return info


def last_changed(local_at: int, listed_at: int, change: Callable[[int], int]) -> bytes:
    """Good pictures and one more, of whose two heads a number is another."""
    file = bytearray(packed(*pictures(), ("last.png", saved(drawn(seed=98), "PNG"))))
    for place in (file.rindex(b"PK\3\4") + local_at, file.rindex(b"PK\1\2") + listed_at):
        shape = "<H" if local_at < 8 else "<I"
        struct.pack_into(shape, file, place, change(struct.unpack_from(shape, file, place)[0]))
    return bytes(file)
