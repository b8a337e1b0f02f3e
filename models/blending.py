"""A new generator between two of one lineage: its layers from the one, from the other, or from in between."""

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import nn

from models.checkpoint import CheckpointMeta
from models.errors import ModelsError
from models.latents.samples import sample_w
from models.latents.truncation import update_w_avg
from models.networks.generator import Generator

NORM_BATCHES, NORM_BATCH = 16, 32  # pictures over which the mean and variance of features are measured anew


class Parent(NamedTuple):
    """One of the two: what `load_generator` reads, and the sha256 of the file it was read from."""

    generator: Generator
    meta: CheckpointMeta
    sha256: str


def blend(first: Parent, second: Parent, amounts: Sequence[float], mapping: float) -> tuple[Generator, CheckpointMeta]:
    """A generator whose weights are first + amount * (second - first): layer swapping, Pinkney and Adler,
    arXiv:2010.05334, and with amounts between 0 and 1 interpolation, Wang et al., arXiv:1811.10515. And what its
    checkpoint says of itself.

    amounts: from 0 to 1 for each stage of the synthesis, 4 pixels first; mapping: of the mapping network and the texts'
    vectors. All 0 is the first and all 1 the second, exactly; otherwise the means that depend on the weights are
    measured anew. Texts and labels are those of the parent that more of the mapping is from.
    Raises ModelsError for networks of different shape, and for amounts that do not fit: weights without a common
    beginning have nothing to say to each other, so only checkpoints of one lineage give pictures.
    """
    _require_same_shape(first.meta, second.meta)
    stages = len(first.meta.config.network.generator_widths)
    if len(amounts) != stages or not all(0 <= amount <= 1 for amount in (*amounts, mapping)):
        raise ModelsError(f"Give an amount from 0 to 1 for each of {stages} layers, and one for the mapping.")
    blended = _interpolated(first.generator, second.generator, amounts, mapping)
    heir = first if mapping < 0.5 else second
    blended.captions = heir.generator.captions
    if 0 < mapping < 1:
        update_w_avg(blended)
    if {*amounts, mapping} not in ({0}, {1}):
        _measure_norms(blended)
    return blended, _meta(first, second, heir)


def _require_same_shape(first: CheckpointMeta, second: CheckpointMeta) -> None:
    shapes = (first.config.network.model_dump(), second.config.network.model_dump())
    for field, value in shapes[0].items():
        if value != shapes[1][field]:
            raise ModelsError(
                f"These networks differ in {field}: {value} and {shapes[1][field]}. Only checkpoints of one lineage "
                "can be blended."
            )


@torch.no_grad()
def _interpolated(first: Generator, second: Generator, amounts: Sequence[float], mapping: float) -> Generator:
    blended, others = deepcopy(first), second.state_dict()
    for name, tensor in blended.state_dict().items():
        if tensor.is_floating_point():
            part, _, inside = name.partition(".")
            amount = amounts[first.synthesis.stage_of(inside)] if part == "synthesis" else mapping  # type: ignore[operator]
            tensor.lerp_(others[name].to(tensor.device), amount)
    return blended


@torch.no_grad()
def _measure_norms(generator: Generator) -> None:
    """Set the running means and variances of all batch norms to what their features have now, over some hundred
    pictures; those of either parent are wrong for features that neither had (arXiv:1803.05407, 3.2)."""
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    w = sample_w(generator, NORM_BATCHES * NORM_BATCH)[:, None].expand(-1, generator.num_ws, -1)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches, each weighing the same
        norm.train()
    for start in range(0, len(w), NORM_BATCH):
        generator.synthesis(w[start : start + NORM_BATCH])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def _meta(first: Parent, second: Parent, heir: Parent) -> CheckpointMeta:
    metas = (first.meta, second.meta)
    return heir.meta.model_copy(
        update={
            "kimg": max(meta.kimg for meta in metas),
            "minutes": max(meta.minutes for meta in metas),
            "dataset": _both(*(meta.dataset for meta in metas)),
            "license": _both(*(meta.license for meta in metas)),
            "metrics": {},  # measured of the parents, not of this
            "parents": (first.sha256, second.sha256),
        }
    )


def _both(first: str | None, second: str | None) -> str | None:
    """What is known of either, in the 200 characters of such a field."""
    known = list(dict.fromkeys(name for name in (first, second) if name is not None))
    return " and ".join(known)[:200] or None
