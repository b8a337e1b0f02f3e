"""From what was asked to a job that draws one recipe at many seeds."""

from itertools import groupby
from typing import Any

from app.api import drawing, keyframes
from app.api.deps import Services
from app.api.schemas.renders import RenderIn
from app.core import jobs
from app.core.errors import InvalidRequest
from app.serving.bulk import LISTED_CHARACTERS, MAX_BULK, BulkOrder
from app.serving.recipe import listed_seeds


async def order(services: Services, body: RenderIn) -> tuple[jobs.Kind, dict[str, Any]]:
    """The job of a batch. Raises InvalidRequest, NotFound, and what sliders raise."""
    for name in ("keyframes", "keep"):
        if getattr(body, name):
            message = f"{name} says nothing to a kind batch; leave it out."
            raise InvalidRequest(message, code="field_does_not_fit", param=name)
    if body.format not in {None, "zip"}:
        raise InvalidRequest(f"A batch is a zip, not {body.format}; output_format is of its files.", param="format")
    if body.seeds is None:
        raise InvalidRequest("Say which pictures: seeds such as 0-9999.", code="missing_field", param="seeds")
    served = await services.directory.resolve(body.model)
    base = await keyframes.base_of(services, body, served)
    recipe = drawing.recipe_of(
        served,
        seed=0,
        psi=base.truncation_psi,
        cutoff=base.truncation_cutoff,
        noise_mode=body.noise_mode or "const",
        size=body.size,
        label=base.label,
        prompt=base.prompt,
        mix=None,
        sliders=base.sliders,
    )
    wanted = BulkOrder(
        recipe=recipe.model_copy(update={"device": None, "dtype": None}),
        seeds=_written(listed_seeds(body.seeds, MAX_BULK)),
        output_format=body.output_format or "png",
        output_compression=body.output_compression,
        metadata=body.metadata or "full",
    )
    return "render", wanted.model_dump(mode="json")


def _written(seeds: list[int]) -> str:
    """Seeds as "0,1,4-6", rising, each once."""
    rising = enumerate(sorted(set(seeds)))
    runs = [[seed for _, seed in run] for _, run in groupby(rising, key=lambda pair: pair[1] - pair[0])]
    text = ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    if len(text) > LISTED_CHARACTERS:
        message = (
            f"{len(seeds):,} seeds of so many ranges are too many to write down; give longer ranges, as in 0-9999."
        )
        raise InvalidRequest(message, param="seeds")
    return text
