"""Real pictures and real archives, made on the spot."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Pack = Callable[[dict[str, bytes]], Path]
Draw = Callable[..., Image.Image]
Encode = Callable[..., bytes]


@pytest.fixture
def draw() -> Draw:
    """A colourful picture that no other seed gives: smooth, so that JPEG keeps it."""

    def draw_picture(seed: int = 0, width: int = 64, height: int = 64) -> Image.Image:
        corners = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
        return Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)

    return draw_picture


@pytest.fixture
def encode() -> Encode:
    """A picture as the bytes of a file."""

    def encode_picture(picture: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
        file = io.BytesIO()
        picture.save(file, image_format, **options)
        return file.getvalue()

    return encode_picture


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """A zip of files."""

    def pack_files(files: dict[str, bytes]) -> Path:
        path = tmp_path / "upload.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path

    return pack_files


@pytest.fixture
def good(draw: Draw, encode: Encode) -> dict[str, bytes]:
    """As many fine pictures as a dataset needs."""
    return {f"good{seed}.png": encode(draw(seed)) for seed in range(8)}
