"""The family of an artwork: what its recipe says it was made of, and which kept artworks were made of it."""

import json

from sqlalchemy.orm import Session

from app.api.schemas.artworks import EdgeOut, FamilyOut, NodeOut, file_path
from app.core import artworks, catalogue
from app.core.records import Artwork
from app.serving import lineage
from app.serving.artwork import title_of
from app.serving.film import AnyRecipe
from app.serving.recipe import Recipe


def family_of(session: Session, artwork: Artwork) -> FamilyOut:
    """Ancestors and descendants of an artwork, kept or not."""
    made = []
    if artwork.point_hash is not None:
        made = artworks.descending(session, artwork.point_hash, lineage.MAX_FAMILY)
    films = {each.recipe_hash: each for each in reversed(made) if each.point_hash is None}
    tree = lineage.family(lineage.read(artwork.recipe), (lineage.read(each.recipe) for each in made))
    kept = artworks.showing(session, [name for name in tree.recipes if name not in films]) | films
    kept[artwork.point_hash or artwork.recipe_hash] = artwork
    here = catalogue.weights(session, {recipe.checkpoint for recipe in tree.recipes.values()})
    nodes = {
        name: _node(recipe, kept.get(name), (recipe.model, recipe.checkpoint) in here)
        for name, recipe in tree.recipes.items()
    }
    return FamilyOut(
        artwork=artwork.id,
        recipe_hash=artwork.recipe_hash,
        nodes=list(nodes.values()),
        edges=[
            EdgeOut(parent=nodes[parent].recipe_hash, child=nodes[child].recipe_hash, relation=relation)
            for parent, child, relation in tree.edges
        ],
        complete=tree.complete,
    )


def _node(recipe: AnyRecipe, kept: Artwork | None, drawable: bool) -> NodeOut:
    origin = lineage.parents_of(recipe)
    url = recipe.url() if drawable and isinstance(recipe, Recipe) else None
    return NodeOut(
        recipe_hash=recipe.hash() if kept is None else kept.recipe_hash,
        artwork=None if kept is None else kept.id,
        title=title_of(recipe) if kept is None else kept.title,
        relation=None if origin is None else origin.relation,
        recipe=json.loads(recipe.canonical_json()) if kept is None else kept.recipe,
        url=url if kept is None else file_path(kept.id),
    )
