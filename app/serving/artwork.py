"""From a recipe and the file that was drawn of it to an artwork."""

import json
from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy.orm import Session

from app.core import artworks
from app.core.records import Artwork, Latent, new_id
from app.core.storage import Storage
from app.serving import lineage
from app.serving.film import AnyRecipe, FilmRecipe, Kind
from app.serving.recipe import Recipe

PROMPT_SHOWN: Final = 60  # characters, in a title
NAMES: Final[dict[Kind, str]] = {"loop": "loop", "walk": "walk", "growth": "growth", "grid": "sheet"}


class File(NamedTuple):
    """What was drawn; it is in storage."""

    sha256: str
    media_type: str
    size: tuple[int, int]  # width, height, pixels
    bytes: int
    job_id: str | None = None  # that drew it


class About(NamedTuple):
    """What an artist says of an artwork when it is kept; title: None is what its recipe says."""

    title: str | None = None
    tags: Sequence[str] = ()
    starred: bool = False


UNSAID: Final = About()


def keep(session: Session, storage: Storage, recipe: AnyRecipe, file: File, about: About = UNSAID) -> Artwork:
    """Keep a picture, sheet or film in the caller's transaction. Unavailable where its file is no longer there."""
    origin = lineage.parents_of(recipe)
    artwork = Artwork(
        id=new_id("art"),
        kind=_kind(recipe),
        title=(about.title or title_of(recipe))[: artworks.TITLE_CHARACTERS],
        starred=about.starred,
        model=recipe.model,
        checkpoint=recipe.checkpoint,
        recipe=json.loads(recipe.canonical_json()),
        recipe_hash=recipe.hash(),
        point_hash=lineage.point_hash(recipe) if isinstance(recipe, Recipe) else None,
        relation=None if origin is None else origin.relation,
        job_id=file.job_id or _found_by(session, recipe),
        file_sha256=file.sha256,
        media_type=file.media_type,
        width=file.size[0],
        height=file.size[1],
        bytes=file.bytes,
    )
    return artworks.keep(session, storage, artwork, lineage.ancestors(recipe), about.tags)


def title_of(recipe: AnyRecipe) -> str:
    """What an artwork is called until the artist calls it something else, such as "emoji, seed 42"."""
    if isinstance(recipe, FilmRecipe):
        return f"{recipe.model}, {NAMES[recipe.kind]} of {_passed(recipe)}"
    parts = [recipe.model]
    if recipe.prompt is not None:
        prompt = " ".join("".join(letter if letter.isprintable() else " " for letter in recipe.prompt).split())
        parts.append(f'"{prompt if len(prompt) <= PROMPT_SHOWN else prompt[: PROMPT_SHOWN - 1] + "…"}"')
    if recipe.label is not None:
        parts.append(recipe.label)
    start = "child" if recipe.cross is not None else "seed"
    parts.append("projection" if recipe.latent is not None else f"{start} {recipe.seed}")
    if recipe.variations and (recipe.cross is None or len(recipe.variations) > 1):
        parts.append(f"variation {recipe.variations[-1].seed}")
    return ", ".join(parts)


def _passed(film: FilmRecipe) -> str:
    if len(film.seeds) > 1:
        return f"{len(film.seeds)} seeds"
    if len(film.keyframes) > 1:
        return f"{len(film.keyframes)} keyframes"
    return f"seed {(*film.seeds, film.keyframes[0].seed)[0]}"


def _kind(recipe: AnyRecipe) -> str:
    if isinstance(recipe, Recipe):
        return "picture"
    return "sheet" if recipe.kind == "grid" else "film"


def _found_by(session: Session, recipe: AnyRecipe) -> str | None:
    """The job that found the latent a picture starts from."""
    if isinstance(recipe, FilmRecipe) or recipe.latent is None:
        return None
    found = session.get(Latent, recipe.latent)
    return None if found is None else found.job_id
