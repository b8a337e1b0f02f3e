"""Sliders: from the names and amounts of a request to the stored steps that a recipe names."""

import math
from collections.abc import Mapping

from app.api.directory import ModelDirectory, Served
from app.core import directions
from app.core.directions import Standing
from app.core.errors import Conflict, InvalidRequest, Underway
from app.serving.point import MAX_AMOUNT, MAX_SLIDERS, Slider

FORM = 'sliders are written as "rust:1.5,age:-2"'


async def sliders_of(
    directory: ModelDirectory, served: Served, amounts: Mapping[str, float] | None
) -> tuple[Slider, ...]:
    """The sliders that amounts by direction mean in these weights, in one order however they were asked for.

    Raises InvalidRequest for an unknown name, Underway for a direction that is not carried there yet (it is by then
    asked for), Conflict for one that is lost.
    """
    if not amounts:
        return ()
    _check(amounts)
    try:
        return _sliders(served, served.directions, amounts)
    except (InvalidRequest, Conflict):
        standing = await directory.directions_now(served)  # a job may have ended since they were looked up
    try:
        return _sliders(served, standing, amounts)
    except Underway:
        await directory.carry(served)
        raise


def _sliders(served: Served, standing: Mapping[str, Standing], amounts: Mapping[str, float]) -> tuple[Slider, ...]:
    steps = directions.steps(served.model, served.checkpoint, standing, amounts)
    return tuple(Slider(name=step.name, amount=step.amount, offset=step.offset) for step in steps)


async def sliders_of_query(directory: ModelDirectory, served: Served, text: str | None) -> tuple[Slider, ...]:
    """The sliders of a URL: "rust:1.5,age:-2", and pinned ones, "rust~<sha256>:1.5", which keep their place.

    Raises as sliders_of() does. That a pinned step is listed here is for whoever paints to require.
    """
    if text is None:
        return ()
    pinned, amounts = _parse(text)
    return (*pinned, *await sliders_of(directory, served, amounts))


def all_pinned(text: str | None) -> bool:
    """Whether nothing that a URL's sliders mean can ever change."""
    return text is None or all("~" in part for part in text.split(","))


def _parse(text: str) -> tuple[list[Slider], dict[str, float]]:
    parts = text.split(",")
    if len(parts) > MAX_SLIDERS:
        raise _invalid(f"{len(parts)} sliders; a picture takes at most {MAX_SLIDERS}.")
    pinned: list[Slider] = []
    amounts: dict[str, float] = {}
    for part in parts:
        named, colon, number = part.rpartition(":")
        name, tilde, offset = named.partition("~")
        amount = _number(number)
        if not colon or not name or amount is None:
            raise _invalid(f"{part[:80]!r} is no slider; {FORM}.")
        if name in amounts or (not tilde and any(slider.name == name for slider in pinned)):
            raise _invalid(f"{name[:80]!r} stands there twice.")
        if tilde:
            pinned.append(_pinned(name, amount, offset))
        else:
            amounts[name] = amount
    return pinned, amounts


def _pinned(name: str, amount: float, offset: str) -> Slider:
    _check({name: amount})
    try:
        return Slider(name=name, amount=amount, offset=offset)
    except ValueError as error:
        message = f"{name[:80]!r} is pinned to {offset[:80]!r}; a sha256 stands there in the url of a recipe."
        raise _invalid(message) from error


def _check(amounts: Mapping[str, float]) -> None:
    if len(amounts) > MAX_SLIDERS:
        raise _invalid(f"{len(amounts)} sliders; a picture takes at most {MAX_SLIDERS}.")
    for name, amount in amounts.items():
        if not (math.isfinite(amount) and abs(amount) <= MAX_AMOUNT):
            raise _invalid(f"{name[:80]!r} is {amount:g}; a slider goes from {-MAX_AMOUNT:g} to {MAX_AMOUNT:g}.")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="sliders")
