"""Strips: what a direction does to one picture, from far back to far on."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from app.serving.encode import Pixels

SEED = 35  # of the picture that is changed, unless another one is asked for
STEPS = 5  # pictures
REACH = 2.0  # the largest amount, to both sides; further on most pictures fall apart
GAP = 2  # pixels between pictures, and around words
PAPER, INK = (255, 255, 255), (40, 40, 40)


def amounts(steps: int, reach: float) -> list[float]:
    """Of a strip of so many pictures: evenly from -reach to reach, with exactly 0 in the middle of an odd number."""
    return [reach * (2 * step - (steps - 1)) / (steps - 1) for step in range(steps)]


def strip(pictures: Sequence[Pixels]) -> Pixels:
    """Pictures [H, W, C] in a row, [H, N * W + gaps, C], with white between them."""
    height, _, channels = pictures[0].shape
    gap = np.full((height, GAP, channels), 255, dtype=np.uint8)
    spaced = [part for picture in pictures for part in (gap, picture)]
    return np.concatenate(spaced[1:], axis=1)


def sheet(rows: Sequence[Pixels], names: Sequence[str], heads: Sequence[float]) -> Pixels:
    """Strips [H, W, C] one below the other, their names before them and their amounts above: uint8 [H', W', 3]."""
    font = ImageFont.load_default()
    height, width = rows[0].shape[:2]
    left = max(round(font.getlength(name)) for name in names) + 3 * GAP
    line = round(sum(font.getmetrics())) if isinstance(font, ImageFont.FreeTypeFont) else 11
    top = line + 2 * GAP
    page = Image.new("RGB", (left + width + GAP, top + len(rows) * (height + GAP)), PAPER)
    draw = ImageDraw.Draw(page)
    each = (width + GAP) / len(heads)
    for column, amount in enumerate(heads):
        text = "0" if amount == 0 else f"{amount:+g}"
        middle = left + (column + 0.5) * each - GAP / 2
        draw.text((middle - font.getlength(text) / 2, GAP), text, INK, font)
    for row, (name, pixels) in enumerate(zip(names, rows, strict=True)):
        upper = top + row * (height + GAP)
        draw.text((GAP, upper + (height - line) / 2), name, INK, font)
        picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
        page.paste(picture, (left, upper))
    return np.asarray(page)
