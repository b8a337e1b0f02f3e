"""Hostile files in every container: each is refused in words, soon and at no great cost, and the service goes on."""

import io
import json
import random
import resource
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from app.core import latents
from app.serving.encode import encode, sheet_png
from app.serving.film import FilmRecipe
from app.serving.films.containers import FilmFormat
from app.serving.films.writing import open_film
from app.serving.recipe import MAX_RECIPE_BYTES, Recipe

ROUTE = "/v1/recipes/verify"
SOON_SECONDS = 5.0
MEMORY_BYTES = 700 * 2**20  # that the process may grow by at most, and a process that decodes may have
CONTAINERS: list[FilmFormat] = ["mp4", "webm", "webp", "gif", "zip"]
REFUSALS = {
    "recipe_missing",
    "picture_invalid",
    "film_invalid",
    "film_too_long",
    "checkpoint_not_found",
    "latent_not_found",
    "latent_does_not_fit",
    "invalid_request",
}
Hostile = Iterator[tuple[str, bytes]]


@pytest.fixture(scope="module")
def film(vivid: str) -> FilmRecipe:
    return FilmRecipe.model_validate(
        {
            "kind": "loop",
            "model": "vivid",
            "checkpoint": vivid,
            "keyframes": [{"seed": 1}, {"seed": 2}],
            "path": "linear",
            "space": "w",
            "easing": "linear",
            "frames": 6,
            "fps": 20,
            "size": [32, 32],
        }
    )


@pytest.fixture(scope="module")
def odd(app: Any) -> str:
    """A listed latent of another model's shape."""
    name = latents.store(app.storage, np.ones((3, 5), np.float32))
    with app.db.begin() as session:
        latents.keep(session, app.storage, name, (3, 5))
    return name


def texts(film: FilmRecipe, odd: str) -> Iterator[tuple[str, str]]:
    """What stands in the place of a film's recipe."""
    text = film.canonical_json()
    changes: dict[str, list[str]] = {
        '"frames":6': ["1000000000", "-6", "NaN", "1e9", "6.5", '"6"', "null", "9" * 20_000],
        '"fps":20': ["0", "Infinity", "-Infinity", "61"],
        '"size":[32,32]': ["[1e5,1e5]", "[32]", "{}", '"32x32"', "[[32],[32]]", "[2147483648,1]"],
        '"easing":"linear"': ['"__import__"', "[]", '"\\ud800"', '"x\\u0000"'],
        '"seed":1': ["NaN", "-1", "[" * 20_000, '{"a":' * 5_000, "true", '1,"seed":2', '1,"__class__":1'],
        '"kind":"loop"': ['"batch"', "{}", '"loop","kind":"walk"'],
        '"path":"linear"': ['"../../etc/passwd"', "7"],
        f'"checkpoint":"{film.checkpoint}"': [json.dumps("0" * 64), json.dumps("../" * 21 + "a")],
    }
    for said, values in changes.items():
        name = said.split(":")[0]
        for value in values:
            yield f"{name}:{value[:20]}", text.replace(said, f"{name}:{value}")
    for latent in ("f" * 64, odd, film.checkpoint, "A" * 64):
        yield f"latent {latent[:4]}", text.replace('"seed":1', f'"latent":"{latent}","seed":1')
    crossing = '{"seed":0,"cross":{"amount":0.5,"second":{"seed":1},"first":'
    yield "crossings", text.replace('{"seed":1', crossing * 1_000 + "0" + "}}" * 1_000 + ',{"seed":1')
    giants = film.model_copy(update={"keyframes": film.keyframes * 32, "frames": 7200, "size": (2048, 2048)})
    yield "giants", giants.canonical_json()
    many = film.keyframes * 500
    yield "keyframes", film.model_copy(update={"keyframes": many}).canonical_json()
    yield "twice", text[:-1] + "," + text[1:]
    yield "openings", '{"checkpoint":"' * 4_000


def broken(film: FilmRecipe, files: dict[FilmFormat, bytes]) -> Hostile:
    """Containers that are none, or not the one they seem."""
    text = film.canonical_json().encode()
    for container, file in files.items():
        chance = random.Random(container)
        yield f"{container} cut", file[: len(file) * 2 // 3]
        yield f"{container} twice", file + file[len(file) // 2 :]
        changed = bytearray(file)
        for _ in range(40):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        yield f"{container} mutated", bytes(changed)
    for head in (
        b"\0\0\0\x18ftypisom",
        b"\x1aE\xdf\xa3",
        b"GIF89a",
        b"PK\3\4",
        b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\0\0\0\2",
    ):
        yield f"{head[:8]!r} alone", head
        yield f"{head[:8]!r} and noise", head + text + random.Random(1).randbytes(300_000)
    boxes = b"".join(struct.pack(">I4s", 8 * (20_000 - depth), b"moov") for depth in range(20_000))
    yield "mp4 of boxes in boxes", b"\0\0\0\x10ftypisom\0\0\0\0" + boxes + text
    yield "mp4 of empty boxes", b"\0\0\0\x10ftypisom\0\0\0\0" + struct.pack(">I4s", 8, b"free") * 500_000 + text
    yield "webm of unknown sizes", b"\x1aE\xdf\xa3\x80" + b"\x18S\x80g\x01\xff\xff\xff\xff\xff\xff\xff" * 20_000 + text
    yield "riff in riff", b"RIFF\xff\xff\xff\0WEBPVP8X\x0a\0\0\0\2" + b"RIFF\xff\xff\0\0WEBP" * 50_000 + text


def bombs(film: FilmRecipe, files: dict[FilmFormat, bytes]) -> Hostile:
    """Little that unpacks to much."""
    text, gif, webp = film.canonical_json().encode(), files["gif"], files["webp"]
    yield "gif of a giant canvas", gif[:6] + b"\xff\xff\xff\xff" + gif[10:]
    yield "webp of a giant canvas", webp[:24] + b"\xff\x3f\0\xff\x3f\0" + webp[30:]
    frame = b"!\xf9\4\0\1\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0"
    comment = b"".join(bytes([len(text[at : at + 255])]) + text[at : at + 255] for at in range(0, len(text), 255))
    flood = gif[:13] + gif[13 : 13 + 768] + b"!\xfe" + comment + b"\0" + frame * 200_000 + b";"
    yield "gif of a flood of frames", flood
    header = chunk(b"IHDR", struct.pack(">2I5B", 4096, 4096, 8, 2, 0, 0, 0))
    rows = zlib.compress(bytes(4096 * (1 + 3 * 4096)), 1)
    giant = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    yield "png of a giant", giant + text
    yield "zip of giants", zipped([("recipe.json", text), *((f"{number:06d}.png", giant) for number in range(6))])
    packed = zipped([("recipe.json", text), ("000000.png", bytes(64 * 2**20))], zipfile.ZIP_DEFLATED)
    yield "zip of zeros", packed
    yield "zip in a zip", zipped([("inner.zip", files["zip"]), ("recipe.json", text)])
    yield "zip of overlapping files", overlapping(files["zip"], text)
    yield "zip of very many files", zipped([(f"{number}.png", b"") for number in range(25_000)])
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65_535, 65_535, 2**32 - 1, 2**32 - 1, 0)
    yield "zip that goes on elsewhere", b"PK\3\4" + text + end
    yield "zip that lists itself", b"PK\3\4" + text + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, 99, 0, 0)


def zipped(entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return place.getvalue()


def overlapping(file: bytes, text: bytes) -> bytes:
    """A zip whose list names its first picture ten thousand times."""
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        picture = archive.read("000000.png") + bytes(4 * 2**20) + text
    head = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, len(picture), len(picture), 5, 0) + b"a.png"
    listed = b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, len(picture), len(picture), 5, 0, 0, 0, 0, 0, 0)
        + b"%05d" % number
        for number in range(10_000)
    )
    start = len(head) + len(picture)
    return head + picture + listed + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 10_000, 10_000, len(listed), start, 0)


def stills(film: FilmRecipe, odd: str) -> Hostile:
    """Pictures and sheets."""
    recipe = Recipe(model="vivid", checkpoint=film.checkpoint, seed=1, size=(16, 16))
    pixels = np.zeros((16, 16, 3), np.uint8)
    whole = {kind: encode(pixels, output_format=kind, recipe=recipe) for kind in ("png", "jpeg", "webp")}
    for kind, file in whole.items():
        yield f"{kind} of an odd latent", file.replace(b'"label":null', b'"label":null,"latent":"%s"' % odd.encode())
        yield f"{kind} of a wrong key", file.replace(b'"seed":1', b'"seek":1')
        yield f"{kind} of no utf-8", file.replace(b'"vivid"', b'"\xff\xfe\0d"')
        for value in (b"NaN", b"-1", b"[]", b'""', b"{}"):
            yield f"{kind} of seed {value!r}", file.replace(b'"seed":1', b'"seed":' + value)
    text = recipe.canonical_json().encode()
    half = len(text) // 2
    chunks = b"".join(chunk(b"tEXt", b"ganvas\0" + part) for part in (text[:half], text[half:]))
    empty = encode(pixels, output_format="png", recipe=recipe, metadata="minimal")
    yield "png of a recipe in two halves", empty[:33] + chunks + empty[33:]
    yield "png of a packed recipe", empty[:33] + chunk(b"zTXt", b"ganvas\0\0" + zlib.compress(text)) + empty[33:]
    yield "png of a recipe of 16 MB", empty[:33] + chunk(b"tEXt", text[:-12] + b" " * 2**24 + text[-12:]) + empty[33:]
    yield "png of a bomb beside it", empty[:33] + chunk(b"tEXt", text) + chunk(b"IDAT", zlib.compress(bytes(2**26), 1))
    sheet = {"kind": "grid", "columns": 1024, "frames": 1, "seeds": list(range(1024)), "keyframes": [{"seed": 1}]}
    sheet |= {"model": "vivid", "checkpoint": film.checkpoint, "size": [2048, 2048]}
    yield "sheet of giants", sheet_png(pixels, FilmRecipe.model_validate(sheet))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.fixture(scope="module")
def hostile(film: FilmRecipe, odd: str, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, bytes]]:
    place = tmp_path_factory.mktemp("hostile") / "film"

    def filmed(container: FilmFormat, text: str) -> bytes:
        with open_film(place, container, size=(32, 32), fps=20, recipe=text) as writer:
            for level in range(6):
                writer.add(np.full((32, 32, 3), 40 * level, np.uint8))
        return place.read_bytes()

    honest = film.canonical_json()
    files = {container: filmed(container, honest) for container in CONTAINERS}
    made = []
    for number, (name, text) in enumerate(texts(film, odd)):
        container = CONTAINERS[number % 4]
        if container == "gif" and len(text) <= MAX_RECIPE_BYTES:  # its pieces tell how long they are
            made.append((f"gif of {name}", filmed(container, text)))
        else:
            made.append((f"{container} of {name}", files[container].replace(honest.encode(), text.encode())))
        frames = [(f"{frame:06d}.png", sheet_png(np.zeros((32, 32, 3), np.uint8), None)) for frame in range(6)]
        made.append((f"zip of {name}", zipped([("recipe.json", text.encode()), *frames])))
    return [*made, *broken(film, files), *bombs(film, files), *stills(film, odd)]


def test_more_than_a_hundred_hostile_files_are_refused_soon_at_little_cost(
    client: httpx.Client, hostile: list[tuple[str, bytes]]
) -> None:
    assert len(hostile) > 150
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slowest, told = [], []
    for name, file in hostile:
        started = time.perf_counter()
        answer = client.post(ROUTE, files={"file": (name[:20], file)})
        slowest.append((time.perf_counter() - started, name))
        if answer.status_code == 200:
            assert answer.json()["identical"] is False, name
            told.append(name)
            continue
        assert 400 <= answer.status_code < 500, (name, answer.text)
        assert answer.headers["content-type"] == "application/problem+json", name
        assert answer.json()["error"]["code"] in REFUSALS, (name, answer.text)
    assert max(slowest)[0] < SOON_SECONDS, sorted(slowest)[-3:]
    assert len(told) < 20  # an honest recipe in another file is told apart
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < MEMORY_BYTES
    assert client.get("/v1/models/vivid/image?seed=1").status_code == 200
