"""Directions: what the artist names, scales and orders, and where each leads in every checkpoint of its model."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import latents
from app.core.errors import Conflict, InvalidRequest, NotFound, Underway
from app.core.records import Direction, DirectionVector, Latent, Model, new_id
from app.core.storage import Storage

Method = Literal["sefa", "pca"]
State = Literal["found", "carried", "lost", "waiting"]

NAME: Final = re.compile(r"[^\s:~,@/][^:~,@/]{0,59}")  # what separates sliders in a URL is no part of a name
MAX_DIRECTIONS: Final = 200  # of a model
NAMES_TOLD: Final = 20  # in a message


class Standing(NamedTuple):
    """How a direction stands in one checkpoint."""

    state: State
    offset: str | None  # sha256 of the stored step of amount 1; None: lost or waiting


class Step(NamedTuple):
    """A step along a direction: what a recipe's slider says."""

    name: str
    amount: float
    offset: str  # sha256


class Found(NamedTuple):
    """What a method found: one standard deviation of w along it, and its part of w's variance."""

    vector: str  # sha256 of a stored latent
    share: float


def check_name(name: str) -> str:
    """The name without spaces around it, or InvalidRequest saying what a direction may be called."""
    name = name.strip()
    if not NAME.fullmatch(name) or not name.isprintable():
        message = f"{name[:80]!r} cannot name a direction: use 1-60 characters, and none of : ~ , @ and /."
        raise InvalidRequest(message, code="direction_name_invalid", param="name")
    return name


def of_model(session: Session, model: str) -> list[Direction]:
    """A model's directions, in the artist's order."""
    query = select(Direction).where(Direction.model_name == model)
    return list(session.scalars(query.order_by(Direction.position, Direction.created_at, Direction.id)))


def find(session: Session, model: str, name: str) -> Direction:
    """The direction of this name, or NotFound naming those there are."""
    rows = {row.name: row for row in of_model(session, model)}
    if name not in rows:
        raise not_found(model, name, rows)
    return rows[name]


def not_found(model: str, name: str, names: Iterable[str]) -> NotFound:
    """The error for a name that a model has not, naming those it has."""
    return NotFound(_unknown(model, name, list(names)), code="direction_not_found", param="name")


def in_checkpoint(
    session: Session, model: str, checkpoint: str
) -> list[tuple[Direction, DirectionVector | None, Standing]]:
    """A model's directions in the artist's order, each with what one checkpoint has of it."""
    rows = of_model(session, model)
    if not rows:
        return []
    query = select(DirectionVector).where(DirectionVector.direction_id.in_([row.id for row in rows]))
    here = {vector.direction_id: vector for vector in session.scalars(query.filter_by(checkpoint=checkpoint))}
    return [(row, here.get(row.id), _standing(here.get(row.id))) for row in rows]


def standings(session: Session, model: str, checkpoint: str) -> dict[str, Standing]:
    """How a model's directions stand in one checkpoint, by name, in the artist's order."""
    return {row.name: standing for row, _, standing in in_checkpoint(session, model, checkpoint)}


def _standing(vector: DirectionVector | None) -> Standing:
    if vector is None:
        return Standing("waiting", None)
    if vector.offset_sha256 is None:
        return Standing("lost", None)
    return Standing("found" if vector.carried_from is None else "carried", vector.offset_sha256)


def steps(model: str, checkpoint: str, standing: Mapping[str, Standing], amounts: Mapping[str, float]) -> list[Step]:
    """What sliders mean in a checkpoint, in one order however they were asked for, without those that lead nowhere.

    Raises InvalidRequest for a name that the model has not, Underway where a direction has yet to be carried there,
    Conflict where it is lost.
    """
    for name in amounts:
        if name not in standing:
            raise InvalidRequest(_unknown(model, name, list(standing)), code="direction_not_found", param="sliders")
    taken = []
    for name, amount in amounts.items():
        state, offset = standing[name]
        if amount == 0:
            continue
        if offset is None:
            raise _not_there(model, checkpoint, name, state)
        taken.append(Step(name, amount, offset))
    return sorted(taken, key=lambda step: step.offset)  # sums of floats depend on their order


def _not_there(model: str, checkpoint: str, name: str, state: State) -> Conflict:
    where = f"checkpoint {checkpoint[:12]} of {model!r}"
    if state == "waiting":
        message = f"Direction {name!r} is being carried over to {where}; try again in a moment."
        return Underway(message, code="direction_waiting", param="sliders")
    message = (
        f"Direction {name!r} was lost: nothing in {where} changes pictures as it did. Leave it out, or find it again: "
        f"POST /v1/models/{model}@{checkpoint[:12]}/directions, and give its name to the one that does."
    )
    return Conflict(message, code="direction_lost", param="sliders")


def _unknown(model: str, name: str, names: Sequence[str]) -> str:
    told = f"it has none yet, and POST /v1/models/{model}/directions finds some"
    if names:
        told = "it has " + ", ".join(names[:NAMES_TOLD]) + (", ..." if len(names) > NAMES_TOLD else "")
    return f"Model {model!r} has no direction {name[:80]!r}: {told}."


def names_for(session: Session, model: str, checkpoint: str, found: Sequence[Found], method: Method) -> list[str]:
    """What the directions that were found in a checkpoint are called: method-rank, or the next number where that is
    another one of the artist's, or as the artist calls what is the same there."""
    kept = [each for each in in_checkpoint(session, model, checkpoint) if not _untouched(each[0], method)]
    known = {vector.vector_sha256: row.name for row, vector, _ in kept if vector is not None}
    taken = {row.name for row, _, _ in kept}
    spare = (name for number in itertools.count(len(found)) if (name := f"{method}-{number}") not in taken)
    names = []
    for rank, each in enumerate(found):
        name = f"{method}-{rank}"
        names.append(known.get(each.vector) or (next(spare) if name in taken else name))
    return names


def publish_found(
    session: Session,
    storage: Storage,
    model: Model,
    checkpoint: str,
    found: Sequence[Found],
    *,
    method: Method,
    layers: Sequence[int] | None,
    job_id: str,
) -> list[str]:
    """List what was found in a checkpoint, in its order, behind what the artist has; the names of all.

    What the method found before goes, but for what the artist named or scaled. Raises Conflict where it is too much.
    """
    session.refresh(model, with_for_update=True)  # two searches take turns
    names = names_for(session, model.name, checkpoint, found, method)
    rows = of_model(session, model.name)
    kept = [row for row in rows if not _untouched(row, method)]
    for row in rows:
        if row not in kept:
            session.delete(row)
    session.flush()
    new = [pair for pair in zip(names, found, strict=True) if pair[0] not in {row.name for row in kept}]
    if len(kept) + len(new) > MAX_DIRECTIONS:
        message = f"Model {model.name!r} has {len(kept)} directions of the artist's; at most {MAX_DIRECTIONS} fit."
        raise Conflict(message, code="directions_full", param="count")
    _number(kept)
    for position, (name, each) in enumerate(new, start=len(kept)):
        latents.keep(session, storage, each.vector, (model.num_ws, model.w_dim), job_id)
        row = Direction(id=new_id("dir"), model_name=model.name, name=name, method=method, position=position)
        row.layers = None if layers is None else list(layers)
        session.add(row)
        session.flush()
        same = {"vector_sha256": each.vector, "offset_sha256": each.vector}
        session.add(DirectionVector(direction_id=row.id, checkpoint=checkpoint, share=each.share, **same))
    session.flush()
    return names


def _untouched(row: Direction, method: Method) -> bool:
    """Whether it is as this method found it: neither named nor scaled."""
    return row.method == method and row.scale == 1 and re.fullmatch(rf"{method}-\d+", row.name) is not None


def rename(session: Session, storage: Storage, row: Direction, name: str) -> Direction:
    """Call it by another name; Conflict where that is taken.

    Of a direction that is lost wherever this one was found it takes the place, and that one is returned: it was found
    again.
    """
    name = check_name(name)
    other = next((each for each in of_model(session, row.model_name) if each.name == name), row)
    if other is row:
        row.name = name
    else:
        _give(session, storage, row, other)
    session.flush()
    return other


def _give(session: Session, storage: Storage, row: Direction, lost: Direction) -> None:
    """Give a direction's vectors to the one that was lost there, and forget it."""
    mine, theirs = ({vector.checkpoint: vector for vector in vectors(session, each)} for each in (row, lost))
    standing = [theirs[where].vector_sha256 if where in theirs else None for where in mine]
    if row.layers != lost.layers or any(standing) or not mine.keys() & theirs.keys():
        message = f"Model {row.model_name!r} has a direction {lost.name!r} already; rename or delete that one first."
        raise Conflict(message, code="direction_exists", param="name")
    for where in mine.keys() & theirs.keys():
        session.delete(theirs[where])
    session.flush()
    for vector in mine.values():
        vector.direction_id = lost.id
        scale(session, storage, lost, vector)
    session.flush()
    session.delete(row)


def rescale(session: Session, storage: Storage, row: Direction, factor: float) -> None:
    """How many standard deviations an amount of 1 goes from now on, in every checkpoint; recipes keep what they say."""
    row.scale = factor
    for vector in vectors(session, row):
        scale(session, storage, row, vector)


def scale(session: Session, storage: Storage, row: Direction, vector: DirectionVector) -> None:
    """Store a vector's step anew: some kilobytes, so that it may be done in the transaction that names it."""
    if vector.vector_sha256 is None:
        return
    latent = session.get_one(Latent, vector.vector_sha256)
    numbers = np.frombuffer(storage.get(latent.sha256), latents.NUMBERS).reshape(latent.num_ws, latent.w_dim)
    vector.offset_sha256 = latents.store(storage, numbers * np.float32(row.scale))
    latents.keep(session, storage, vector.offset_sha256, numbers.shape, latent.job_id)


def move(session: Session, row: Direction, position: int) -> None:
    """Put it at this place of the artist's order, from 0; behind the last where there are fewer."""
    others = [each for each in of_model(session, row.model_name) if each is not row]
    others.insert(position, row)
    _number(others)


def delete(session: Session, row: Direction) -> None:
    """Forget a direction; recipes that took it stay as they are."""
    session.delete(row)
    session.flush()
    _number(of_model(session, row.model_name))


def _number(rows: Sequence[Direction]) -> None:
    for place, row in enumerate(rows):
        row.position = place


def vectors(session: Session, row: Direction) -> list[DirectionVector]:
    """What all checkpoints have of a direction."""
    return list(session.scalars(select(DirectionVector).where(DirectionVector.direction_id == row.id)))
