"""Are files what their recipes say? Hundreds of them, of every container, drawn by a studio and proved by it.

A studio as `ganvas up` starts it draws pictures, sheets, films and zips of the bundled model in every way that keeps
pixels whole, and some in ways that do not; each file is sent to POST /v1/recipes/verify. Then the recipes in as many
files are altered, and each has to be told.

    python benchmarks/proofs.py --files 200
"""

import argparse
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from beside_training import Studio, running

MODEL = "emoji"
SIZES = ("auto", "96x40", "256x256")
PATHS = ("slerp", "spline", "linear", "noise")
FILMS = ("mp4", "webm", "webp")
LOSSY = ("mp4", "webm", "webp", "gif")
LOSSY_SHARE = 0.1
POLL_SECONDS = 0.1

Draw = Callable[["Files"], bytes]


class Files:
    """Files of a studio, no two alike."""

    def __init__(self, studio: Studio, chance: random.Random) -> None:
        self.studio = studio
        self.chance = chance

    def seeds(self, count: int) -> list[int]:
        """So many seeds."""
        return [self.chance.randrange(2**32) for _ in range(count)]

    def still(self, output_format: str, compression: int | None) -> bytes:
        """One picture."""
        body: dict[str, Any] = {"model": MODEL, "seed": self.seeds(1)[0], "truncation_psi": self.chance.uniform(-1, 1)}
        body |= {"size": self.chance.choice(SIZES), "output_format": output_format, "output_compression": compression}
        if self.chance.random() < 0.5:
            body["prompt"] = self.chance.choice(("red heart", "cat face", "house"))
        if self.chance.random() < 0.5:
            body["mix"] = {"seed": self.seeds(1)[0], "layers": "0-1"}
        return self._file(body, f"image/{output_format}")

    def pictures(self) -> bytes:
        """A zip of pictures."""
        body = {
            "model": MODEL,
            "n": 8,
            "seed": self.seeds(1)[0] // 2,
            "output_format": self.chance.choice(("png", "webp")),
        }
        return self._file(body | {"output_compression": 100}, "application/zip")

    def sheet(self) -> bytes:
        """A contact sheet."""
        seeds, columns = self.seeds(self.chance.randint(2, 12)), self.chance.randint(1, 5)
        return self._render({"kind": "grid", "seeds": seeds, "columns": columns})

    def film(self, film_format: str, *, lossless: bool) -> bytes:
        """A loop or a walk."""
        kind = self.chance.choice(("loop", "loop", "walk"))
        path = self.chance.choice(PATHS if kind == "loop" else PATHS[:3])
        seeds = self.seeds(1 if path == "noise" else self.chance.choice((2, 3, 4)))
        body = {
            "kind": kind,
            "seeds": seeds,
            "path": path,
            "format": film_format,
            "size": self.chance.choice(("auto", "128x96")),
        }
        body |= {"seconds": self.chance.choice((0.5, 1)), "fps": self.chance.choice((12, 24, 25))}
        return self._render(body | ({"lossless": True} if lossless and film_format != "zip" else {}))

    def _file(self, body: dict[str, Any], accept: str) -> bytes:
        answer = self.studio.http.post("/v1/images/generations", json=body, headers={"accept": accept})
        return answer.raise_for_status().content

    def _render(self, body: dict[str, Any]) -> bytes:
        job = str(self.studio.read("POST", "/v1/renders", json={"model": MODEL} | body)["id"])
        while (shown := self.studio.read("GET", f"/v1/jobs/{job}"))["status"] in {"queued", "running"}:
            time.sleep(POLL_SECONDS)
        if shown["status"] != "succeeded":
            raise SystemExit(f"{body}: {shown['message']}")
        return self.studio.http.get(f"/v1/renders/{job}/file").raise_for_status().content


KINDS: dict[str, Draw] = {
    "png": lambda files: files.still("png", None),
    "webp, lossless": lambda files: files.still("webp", 100),
    "zip of pictures": lambda files: files.pictures(),
    "sheet": lambda files: files.sheet(),
    "zip of frames": lambda files: files.film("zip", lossless=True),
} | {f"{name} film, lossless": lambda files, name=name: files.film(name, lossless=True) for name in FILMS}  # type: ignore[misc]
LOSSY_KINDS: dict[str, Draw] = {
    f"{name} film, lossy": lambda files, name=name: files.film(name, lossless=False)  # type: ignore[misc]
    for name in LOSSY
} | {"jpeg": lambda files: files.still("jpeg", 80), "webp, lossy": lambda files: files.still("webp", 80)}


def altered(file: bytes) -> bytes:
    """The same file with another psi in its recipe, as long as before."""
    place = file.index(b'"truncation_psi":') + len(b'"truncation_psi":')
    digit = next(
        at for at in range(place, place + 20) if chr(file[at]) in "123456789" and chr(file[at - 1]) in ".0123456789"
    )
    return file[:digit] + (b"8" if file[digit : digit + 1] != b"8" else b"3") + file[digit + 1 :]


def verify(studio: Studio, file: bytes) -> tuple[str, float]:
    """What is said of a file, and the seconds it took."""
    started = time.perf_counter()
    answer = studio.http.post("/v1/recipes/verify", files={"file": file}, timeout=120)
    if answer.is_error:
        return str(answer.status_code), time.perf_counter() - started
    return ("identical" if answer.json()["identical"] else "differs"), time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was said of each kind of file; 1 where any of it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200, help="that keep pixels whole; a tenth as many do not")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    said: defaultdict[str, Counter[str]] = defaultdict(Counter)
    slowest: Counter[str] = Counter()
    with running() as studio:
        studio.wait_for_artwork()
        files = Files(studio, random.Random(options.seed))  # noqa: S311 - the same files each time
        lossy = max(len(LOSSY_KINDS), round(LOSSY_SHARE * options.files))
        for kinds, count in ((KINDS, options.files), (LOSSY_KINDS, lossy)):
            for number in range(count):
                name = list(kinds)[number % len(kinds)]
                file = kinds[name](files)
                verdict, seconds = verify(studio, file)
                said[name][verdict] += 1
                slowest[name] = max(slowest[name], seconds)  # type: ignore[assignment]
                if name in {"png", "sheet"}:
                    said[f"{name}, its recipe altered"][verify(studio, altered(file))[0]] += 1
    for name, verdicts in said.items():
        print(f"{name}: {dict(verdicts)}" + (f", slowest {slowest[name]:.1f} s" if name in slowest else ""))
    wrong = sum(
        count
        for name, verdicts in said.items()
        for verdict, count in verdicts.items()
        if (verdict == "identical") == name.endswith("altered")  # a number written otherwise is no recipe: refused
    )
    proved = sum(said[name]["identical"] for name in KINDS)
    print(f"{proved} of {options.files} lossless files identical; {wrong} wrong answers in all")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
