"""From a film's recipe to its frames: the way through latent space, and what a frame shows of it.

A frame has the same bits in whatever order and company it is asked for, by the worker that draws a film and by the
service that proves one: ways are worked out element by element (see models.latents.interpolation), mappings in blocks
of one size (see placing.py), and the synthesis in batches that were seen to agree (see reproduce.py).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.serving.encode import Pixels, resample
from app.serving.film import FilmRecipe
from app.serving.paint import LoadedGenerator
from app.serving.placing import Placed, truncated
from app.serving.point import Point
from models.latents.interpolation import INTERPOLATIONS, positions
from models.latents.noise_loop import noise_loop
from models.latents.seeds import z_from_seeds
from models.sampling import GAP, contact_sheet

FADE_STEPS: Final = 256  # from one checkpoint's sheet to the next: whole numbers, so that a frame is exact

Place = Callable[[Sequence[int]], Tensor]  # w of some pictures by their numbers, [n, num_ws, w_dim]
Load = Callable[[str], LoadedGenerator]  # by the sha256 of the weights
Paint = Callable[[LoadedGenerator, Sequence[int], Place], Iterator[Pixels]]  # pictures by their numbers, in order


def frame_ws(loaded: LoadedGenerator, film: FilmRecipe, indices: Sequence[int]) -> Tensor:
    """w of frames of a loop or a walk, by their numbers from 0, [n, num_ws, w_dim]."""
    return Course(loaded, film).ws(indices)


def frames(film: FilmRecipe, load: Load, paint: Paint, indices: Sequence[int]) -> Iterator[Pixels]:
    """Frames of any film, by their rising numbers, [H, W, C] of frame_size; of a sheet the one.

    Raises what loading and painting raise.
    """
    if film.kind in {"loop", "walk"}:
        loaded = load(film.checkpoint)
        for picture in paint(loaded, indices, Course(loaded, film).ws):
            yield resample(picture, film.size)
    elif film.kind == "growth":
        yield from _growth(film, load, paint, indices)
    else:
        shown: list[Pixels] = []
        for checkpoint in checkpoints(film):
            shown += sheet_pictures(film, load(checkpoint), paint)
        yield lay_out(film, shown)


def frame_size(film: FilmRecipe) -> tuple[int, int]:
    """Width and height of a frame, or of the whole sheet, pixels."""
    if film.columns is None or film.pictures == 1:
        return film.size
    columns, rows = min(film.columns, film.pictures), -(-film.pictures // film.columns)
    return columns * (film.size[0] + GAP) + GAP, rows * (film.size[1] + GAP) + GAP


def checkpoints(film: FilmRecipe) -> tuple[str, ...]:
    """sha256 of all weights that it shows, in turn."""
    return film.checkpoints or (film.checkpoint,)


def sheet_points(film: FilmRecipe) -> list[Point]:
    """What a growth or a grid shows of each checkpoint, row by row."""
    if not film.seeds:
        return list(film.keyframes)
    return [keyframe.model_copy(update={"seed": seed}) for keyframe in film.keyframes for seed in film.seeds]


def sheet_pictures(film: FilmRecipe, loaded: LoadedGenerator, paint: Paint) -> Iterator[Pixels]:
    """The pictures of a growth or a grid at one checkpoint, each of the film's size."""
    points = sheet_points(film)
    for picture in paint(loaded, range(len(points)), lambda numbers: loaded.place([points[each] for each in numbers])):
        yield resample(picture, film.size)


def lay_out(film: FilmRecipe, pictures: Sequence[Pixels]) -> Pixels:
    """Pictures in the rows of a sheet, or as many as there are by now; a lone one as it is."""
    if film.pictures == 1:
        return pictures[0]
    sheet = np.asarray(contact_sheet(np.stack(pictures), min(film.columns or 1, film.pictures)))
    return sheet[:, :, None] if sheet.ndim == 2 else sheet


def _growth(film: FilmRecipe, load: Load, paint: Paint, indices: Sequence[int]) -> Iterator[Pixels]:
    """From checkpoint to checkpoint, each sheet fading into the next; of all sheets two are kept."""
    at = positions(len(film.checkpoints), film.frames, closed=False, easing=film.easing or "linear")
    sheets: dict[int, Pixels] = {}

    def sheet(number: int) -> Pixels:
        if number not in sheets:
            for old in [kept for kept in sheets if kept < number - 1]:
                del sheets[old]
            loaded = load(film.checkpoints[number])
            sheets[number] = lay_out(film, list(sheet_pictures(film, loaded, paint)))
        return sheets[number]

    for index in indices:
        first, step = int(at.segments[index]), round(at.fractions[index] * FADE_STEPS)
        second = sheet(first) if step == 0 else sheet(first + 1)
        yield second if step in {0, FADE_STEPS} else fade(sheet(first), second, step)


def fade(first: Pixels, second: Pixels, step: int) -> Pixels:
    """Between two pictures: so many of FADE_STEPS from the first to the second."""
    mixed = first.astype(np.uint32) * (FADE_STEPS - step) + second.astype(np.uint32) * step
    return ((mixed + FADE_STEPS // 2) // FADE_STEPS).astype(np.uint8)


class Course:
    """The way of a loop or a walk through the w of one generator, to be read at any frame."""

    @torch.inference_mode()
    def __init__(self, loaded: LoadedGenerator, film: FilmRecipe) -> None:
        self._loaded = loaded
        self._film = film
        self._at = positions(
            len(film.keyframes), film.frames, closed=film.kind == "loop", easing=film.easing or "linear"
        )
        z_dim = loaded.generator.z_dim
        if film.space == "w":
            self._keyframes = loaded.place(film.keyframes).cpu().numpy()  # [K, num_ws, w_dim]
        elif film.path == "noise":
            self._keyframes = noise_loop(film.keyframes[0].latent_seed, z_dim, film.frames, film.radius or 0.0)
        else:
            self._keyframes = z_from_seeds([point.latent_seed for point in film.keyframes], z_dim)  # [K, z_dim]

    @torch.inference_mode()
    def ws(self, indices: Sequence[int]) -> Tensor:
        """w of frames, [n, num_ws, w_dim]."""
        places = [(index + self._film.phase) % self._film.frames for index in indices]
        if self._film.path == "noise":
            return self._mapped(self._keyframes[places], [(0, 0, 0.0)] * len(places))
        at = self._at._replace(segments=self._at.segments[places], fractions=self._at.fractions[places])
        latents = INTERPOLATIONS[self._film.path or "linear"](self._keyframes, at)
        if self._film.space == "w":
            return torch.from_numpy(latents).to(self._loaded.generator.w_avg.device)
        count = len(self._film.keyframes)
        ends = [(int(segment), (int(segment) + 1) % count) for segment in at.segments]
        return self._mapped(latents, [(*pair, float(t)) for pair, t in zip(ends, at.fractions, strict=True)])

    def _mapped(self, z: NDArray[np.float32], between: Sequence[tuple[int, int, float]]) -> Tensor:
        """w of latents [n, z_dim], each between two keyframes: mapped by what either tells, and as far truncated."""
        keyframes = self._film.keyframes
        firsts = self._loaded.map(z, [keyframes[first] for first, _, _ in between])
        seconds = firsts
        if self._loaded.meaning is not None and any(first != second for first, second, _ in between):
            seconds = self._loaded.map(z, [keyframes[second] for _, second, _ in between])
        rows = zip(firsts, seconds, between, strict=True)
        return torch.stack(
            [self._final(a, b, keyframes[first], keyframes[second], t) for a, b, (first, second, t) in rows]
        )

    def _final(self, a: Placed, b: Placed, first: Point, second: Point, t: float) -> Tensor:
        """w of a z that two keyframes tell a and b, so far from the one to the other in all that is said of them."""
        placed = a if a is b else Placed(torch.lerp(a.w, b.w, t), torch.lerp(a.center, b.center, t))
        psi = (1 - t) * first.truncation_psi + t * second.truncation_psi
        w = truncated(placed, psi, first.truncation_cutoff)
        for offset, amount in _amounts(first, second, t).items():
            w = w + amount * self._loaded.stored(offset)
        return w


def _amounts(first: Point, second: Point, t: float) -> dict[str, float]:
    """How far to go along each stored step, by its sha256."""
    amounts: dict[str, float] = {}
    for point, share in ((first, 1 - t), (second, t)):
        for slider in point.sliders:
            amounts[slider.offset] = amounts.get(slider.offset, 0.0) + share * slider.amount
    return {offset: amount for offset, amount in amounts.items() if amount}
