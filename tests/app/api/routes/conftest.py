"""Datasets as the real preparation leaves them, and published models with latents of theirs."""

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from app.core import catalogue, latents
from app.serving.encode import Pixels
from app.serving.film import FilmRecipe
from app.serving.films.containers import FilmFormat
from app.serving.films.writing import open_film
from app.serving.frames import Place, frames
from app.serving.loader import Loader
from app.serving.paint import LoadedGenerator
from app.serving.runtime import runtime
from models.checkpoint import CheckpointMeta, save_checkpoint
from models.config import NetworkConfig, TextConfig
from models.presets import preset
from models.registry import build_generator
from worker import tasks

Films = Callable[..., FilmRecipe]
Write = Callable[..., bytes]
Frames = Callable[[FilmRecipe], list[Pixels]]


def archive(count: int, side: int = 32, *, captions: bool = True) -> bytes:
    """A zip of noise, with captions, one picture twice and one file that is no picture."""
    random = np.random.RandomState(0)
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w") as files:
        for index in range(count):
            picture = io.BytesIO()
            Image.fromarray(random.randint(0, 256, (side, side, 3), dtype=np.uint8)).save(picture, "PNG")
            files.writestr(f"{index}.png", picture.getvalue())
            if captions:
                files.writestr(f"{index}.txt", f"noise number {index}")
        files.writestr("again.png", picture.getvalue())
        files.writestr("broken.png", b"\x89PNG\r\n\x1a\n and no more")
    return place.getvalue()


def prepare(client: httpx.Client, monkeypatch: pytest.MonkeyPatch, app: Any, content: bytes, **fields: str) -> str:
    """Upload, and do the worker's part of it here; returns the dataset's id."""
    answer = client.post("/v1/datasets", data={"name": "noise", **fields}, files={"files": ("a.zip", content)})
    assert answer.status_code == 201, answer.text
    monkeypatch.setenv("GANVAS_DATA", str(app.settings.data))
    tasks.prepare(answer.json()["job"])
    dataset: str = answer.json()["id"]
    return dataset


@pytest.fixture(scope="session")
def noise(app: Any, client: httpx.Client) -> str:
    """A ready dataset of 40 pictures at 32 px."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return prepare(client, monkeypatch, app, archive(40), resolution="32")


@pytest.fixture(scope="session")
def silent(app: Any, client: httpx.Client) -> str:
    """The same without captions."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return prepare(client, monkeypatch, app, archive(40, captions=False), resolution="32")


@pytest.fixture
def prepared(app: Any, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Upload and prepare any archive."""

    def made(content: bytes, **fields: str) -> str:
        return prepare(client, monkeypatch, app, content, **fields)

    return made


@pytest.fixture(scope="session")
def make_archive() -> Callable[..., bytes]:
    """Zips of noise."""
    return archive


def publish_random(app: Any, name: str, *, prompted: bool = False, seed: int = 5) -> str:
    """Publish random networks whose pictures are far from grey; returns the sha256."""
    network = NetworkConfig(
        resolution=32,
        z_dim=16,
        w_dim=16,
        mapping_layers=1,
        generator_widths=(16, 8, 8, 4),
        discriminator_widths=(16, 8, 8),
        generator_norm="none",
        text=TextConfig(encoder="hashed-256", features=256, dim=16) if prompted else None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = build_generator(network)
    with torch.no_grad():
        for weight in generator.synthesis.parameters():
            weight.mul_(5)
    config = preset("tiny", 32).model_copy(update={"network": network})
    words = ("face", "red") if prompted else ()
    meta = CheckpointMeta(config=config, kimg=1, minutes=1, captioned=prompted, vocabulary=words)
    data = save_checkpoint(None, generator, meta)
    row = {"name": name, "architecture": "dcgan", "resolution": 32, "z_dim": 16, "w_dim": 16, "num_ws": 4}
    told = {"labels": ["face"], "vocabulary": list(words), "encoder": "hashed-256"} if prompted else {}
    sha256: str = app.storage.put(data)
    with app.db.begin() as session:
        catalogue.publish(session, row | told, sha256=sha256, kimg=1.0, bytes_=len(data), metrics={})
    return sha256


@pytest.fixture(scope="session")
def publish_vivid() -> Callable[..., str]:
    """Publishes random networks whose pictures are far from grey, in any application."""
    return publish_random


@pytest.fixture(scope="session")
def vivid(app: Any) -> str:
    """The checkpoint of the model `vivid`."""
    return publish_random(app, "vivid")


@pytest.fixture(scope="session")
def spoken(app: Any) -> str:
    """The checkpoint of the model `spoken`, which knows texts and the label `face`."""
    return publish_random(app, "spoken", prompted=True)


@pytest.fixture(scope="session")
def stored(app: Any) -> list[str]:
    """Listed latents of the shape of these models' w."""
    numbers = np.random.RandomState(3).randn(4, 4, 16).astype(np.float32)
    names = [latents.store(app.storage, latent) for latent in numbers]
    with app.db.begin() as session:
        for name in names:
            latents.keep(session, app.storage, name, (4, 16))
    return names


@pytest.fixture(scope="session")
def older(app: Any) -> str:
    """Other weights of the same shape as `vivid`."""
    return publish_random(app, "older", seed=9)


@pytest.fixture(scope="session")
def painted_frames(app: Any) -> Iterator[Frames]:
    """The frames of a film, as the worker paints them: with a loader of its own."""
    device = torch.device("cpu")
    loader = Loader(
        app.storage.path, device=device, dtype=runtime(device, "auto").dtype, budget_bytes=2**30, max_batch=8
    )

    def paint(loaded: LoadedGenerator, numbers: Sequence[int], place: Place) -> Iterator[Pixels]:
        yield from loaded.render_w(place(numbers))

    def made(film: FilmRecipe) -> list[Pixels]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return list(frames(film, loader.get, paint, range(film.frames)))
        finally:
            torch.set_num_threads(threads)

    yield made
    loader.close()


@pytest.fixture(scope="session")
def write_film(tmp_path_factory: pytest.TempPathFactory, painted_frames: Frames) -> Write:
    """The file of a film: its own frames unless others are given."""
    place = tmp_path_factory.mktemp("films") / "film"

    def written(
        film: FilmRecipe,
        container: FilmFormat,
        lossless: bool = True,
        pictures: list[Pixels] | None = None,
        **others: Any,
    ) -> bytes:
        told = {"fps": film.fps, "recipe": film.canonical_json()} | others
        shown = painted_frames(film) if pictures is None else pictures
        size = shown[0].shape[1], shown[0].shape[0]
        with open_film(place, container, size=size, lossless=lossless and container != "zip", **told) as writer:
            for picture in shown:
                writer.add(picture)
        return place.read_bytes()

    return written


@pytest.fixture(scope="session")
def make_film(vivid: str) -> Films:
    """A loop through z unless something else is asked for."""

    def made(**fields: Any) -> FilmRecipe:
        loop = {
            "kind": "loop",
            "model": "vivid",
            "checkpoint": vivid,
            "keyframes": [{"seed": 1}, {"seed": 2, "truncation_psi": 1.0}],
            "path": "slerp",
            "space": "z",
            "easing": "linear",
            "frames": 10,
            "fps": 24,
            "size": (32, 32),
            **runtime(torch.device("cpu"), "auto")._asdict(),
        }
        return FilmRecipe.model_validate({name: value for name, value in (loop | fields).items() if value != ""})

    return made
