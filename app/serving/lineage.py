"""Where a picture comes from: its recipe tells what it was made of, and what that was made of in turn."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, Literal, NamedTuple

from app.serving.film import AnyRecipe, FilmRecipe
from app.serving.point import Point
from app.serving.recipe import Recipe

Relation = Literal["variation", "edit", "mix", "child", "projection", "loop", "walk", "growth", "grid"]

MAX_PARENTS: Final = 64  # of one artwork: a sheet may show a thousand pictures
MAX_ANCESTORS: Final = 256  # of one artwork
MAX_FAMILY: Final = 512  # pictures and films in one answer


class Origin(NamedTuple):
    """What something was made of, and how."""

    relation: Relation
    parents: tuple[Recipe, ...]


class Edge(NamedTuple):
    """That one was made of the other; both by their keys."""

    parent: str
    child: str
    relation: Relation


class Family(NamedTuple):
    """Who is in a family, by key; what was made of what; and whether that is all there is."""

    recipes: dict[str, AnyRecipe]
    edges: list[Edge]
    complete: bool


def read(fields: dict[str, Any]) -> AnyRecipe:
    """The recipe that an artwork or a render was kept with."""
    return (FilmRecipe if "keyframes" in fields else Recipe).model_validate(fields)


def point_hash(recipe: Recipe) -> str:
    """sha256 of what a picture shows: its weights and its point. The size and the noise it was drawn with, the machine
    that did, and what its model was called make another file of it, and no other relative."""
    like = {"model": "any", "size": (1, 1), "noise_mode": "const", "device": None, "dtype": None}
    return recipe.model_copy(update=like).hash()


def key(recipe: AnyRecipe) -> str:
    """What it is called in its family: point_hash of a picture, the hash of a film."""
    return point_hash(recipe) if isinstance(recipe, Recipe) else recipe.hash()


def parents_of(recipe: AnyRecipe) -> Origin | None:
    """What it was made of by its last step; None for a picture that was drawn from a seed alone.

    A child of two is born with a variation of its own, which is no step by itself.
    """
    if isinstance(recipe, FilmRecipe):
        return Origin(recipe.kind, tuple(islice(dict.fromkeys(_shown(recipe)), MAX_PARENTS)))
    if recipe.variations and (recipe.cross is None or len(recipe.variations) > 1):
        return Origin("variation", (_with(recipe, variations=recipe.variations[:-1]),))
    if recipe.sliders:
        return Origin("edit", (_with(recipe, sliders=()),))
    if recipe.mix is not None:
        return Origin("mix", (_with(recipe, mix=None), _mixed_in(recipe, recipe.mix.seed)))
    if recipe.cross is not None:
        return Origin("child", (_at(recipe, recipe.cross.first), _at(recipe, recipe.cross.second)))
    return None if recipe.latent is None else Origin("projection", ())


def ancestors(recipe: AnyRecipe) -> list[str]:
    """The keys of all that it was made of, the nearest first."""
    return list(_line(recipe).recipes)[1:]


def family(own: AnyRecipe, descendants: Iterable[AnyRecipe]) -> Family:
    """What something was made of, and what came of it; of what else went into the descendants nothing.

    descendants: what was made of it, directly or not, and is known of.
    """
    recipes, own_edges, complete = _line(own)
    edges = dict.fromkeys(own_edges)
    for each in descendants:
        line = _towards(key(own), _line(each))
        new = {name: recipe for name, recipe in line.recipes.items() if name not in recipes}
        if len(recipes) + len(new) > MAX_FAMILY:
            complete = False
            break
        recipes |= new
        edges |= dict.fromkeys(line.edges)
    return Family(recipes, list(edges), complete)


def _line(recipe: AnyRecipe) -> Family:
    """Something and its ancestors, itself first and then the nearest."""
    recipes: dict[str, AnyRecipe] = {key(recipe): recipe}
    edges: dict[Edge, None] = {}
    waiting = deque(recipes.items())
    while waiting:
        child, made = waiting.popleft()
        origin = parents_of(made)
        for parent in () if origin is None else origin.parents:
            name = key(parent)
            if name not in recipes:
                if len(recipes) > MAX_ANCESTORS:
                    return Family(recipes, list(edges), complete=False)
                recipes[name] = parent
                waiting.append((name, parent))
            if origin is not None and name != child:
                edges[Edge(name, child, origin.relation)] = None
    return Family(recipes, list(edges), complete=True)


def _towards(goal: str, line: Family) -> Family:
    """The part of a line that descends from the goal."""
    descending = {goal}
    grown = True
    while grown:
        children = {edge.child for edge in line.edges if edge.parent in descending}
        grown = not children <= descending
        descending |= children
    edges = [edge for edge in line.edges if edge.parent in descending]
    recipes = {name: recipe for name, recipe in line.recipes.items() if name in descending}
    return Family(recipes, edges, line.complete)


def _shown(film: FilmRecipe) -> Iterator[Recipe]:
    """The pictures that a film passes, or a sheet shows; those by its last weights first."""
    checkpoints = film.checkpoints or (film.checkpoint,)
    models = film.models or (film.model,) * len(checkpoints)
    for checkpoint, model in reversed(list(zip(checkpoints, models, strict=True))):
        for point in film.keyframes:
            for seed in film.seeds or (point.seed,):
                picture = _at(film, point.model_copy(update={"seed": seed}))
                yield _with(picture, checkpoint=checkpoint, model=model)


def _mixed_in(recipe: Recipe, seed: int) -> Recipe:
    """The picture whose layers were taken: told the same, but that a hashed prompt moves no seed but the first."""
    hashed = {"prompt": None, "prompt_mode": None} if recipe.prompt_mode else {}
    return _with(recipe, seed=seed, mix=None, latent=None, **hashed)


def _with(recipe: Recipe, **changes: object) -> Recipe:
    return recipe.model_copy(update=changes)


def _at(like: AnyRecipe, point: Point) -> Recipe:
    """The picture of a point, drawn like another: all of it was checked as a part of that."""
    fields = {name: getattr(point, name) for name in Point.model_fields}
    drawn = {name: getattr(like, name) for name in Recipe.model_fields if name not in fields}
    return Recipe.model_construct(**fields, **drawn)
