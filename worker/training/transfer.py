"""Starting from what another training learnt: its weights where they fit, and a word on every tensor that does not."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoint import holds_discriminator, load_discriminator, load_generator
from models.errors import ConfigInvalid
from models.networks.discriminator import Discriminator
from models.networks.generator import Generator
from worker.training.state import TrainingState

FEWEST_SHARED = 0.1  # of G's own weights; with less in common, starting from nothing is the same, only less honest
FIRST_MAPPING = "mapping.layers.0.weight"  # [w_dim, z_dim], and as many columns more as a text has numbers
TEXT = "text."  # what the names of the tensors that read texts begin with: D's to learn

Network = Generator | Discriminator


@dataclass(frozen=True)
class Transfer:
    """What came over from a base."""

    taken: tuple[str, ...]  # names of tensors
    left: tuple[str, ...]  # a sentence for every tensor that starts from its own first weights

    @property
    def message(self) -> str:
        """Both in a sentence."""
        if not self.left:
            return f"Started from the base: all of its {len(self.taken)} tensors fit."
        return f"Started from the base: took {len(self.taken)} tensors, left {len(self.left)}. {' '.join(self.left)}"


def start_from(state: TrainingState, base: Path) -> Transfer:
    """Give a state that has not trained yet the weights of a checkpoint; Adam's moments start anew.

    G and G_ema both begin as the base's G_ema; D as the base's D where the checkpoint holds it. Raises
    CheckpointInvalid for a file that is not ours, ConfigInvalid where hardly anything of G fits.
    """
    generator, _meta = load_generator(base)
    taken, left = _copy(generator, state.generator, "generator")
    _copy(generator, state.generator_ema, "generator")
    own = {name: tensor.numel() for name, tensor in state.generator.state_dict().items() if not name.startswith(TEXT)}
    shared = sum(own.get(name.removeprefix("generator."), 0) for name in taken)
    if shared < FEWEST_SHARED * sum(own.values()):
        raise ConfigInvalid(
            f"Nothing much of the base fits this configuration. {' '.join(left[:5])} Choose the base's architecture, "
            "resolution and widths, or train without a base."
        )
    if not holds_discriminator(base):
        return Transfer(tuple(taken), (*left, "The base has no discriminator; D starts from its first weights."))
    discriminator = load_discriminator(base)
    more_taken, more_left = _copy(discriminator, state.discriminator, "discriminator")
    return Transfer((*taken, *more_taken), (*left, *more_left))


@torch.no_grad()
def _copy(source: Network, target: Network, called: str) -> tuple[list[str], list[str]]:
    """Copy every tensor that has the same name and shape: the names, and a sentence for each of the others."""
    theirs, ours = source.state_dict(), target.state_dict()
    taken, left = [], []
    for name in sorted(theirs.keys() | ours.keys()):
        reason = _misfit(theirs.get(name), ours.get(name))
        if name == FIRST_MAPPING and _takes_texts_now(source, target):
            ours[name].zero_()[:, : theirs[name].shape[1]] = theirs[name]  # at first it draws as the base does
            taken.append(f"{called}.{name}")
        elif reason is None and name.startswith(TEXT) and not _read_alike(source, target):
            left.append(f"{called}.{name}: the base's texts were read by another encoder.")
        elif reason is None:
            ours[name].copy_(theirs[name])
            taken.append(f"{called}.{name}")
        else:
            left.append(f"{called}.{name}: {reason}.")
    return taken, left


def _misfit(theirs: Tensor | None, ours: Tensor | None) -> str | None:
    if ours is None:
        return "only the base has it"
    if theirs is None:
        return "the base has none"
    if theirs.shape != ours.shape:
        return f"the base's is {_by(theirs)}, this one's {_by(ours)}"
    return None


def _takes_texts_now(source: Network, target: Network) -> bool:
    """Whether the mapping of the one is that of the other but for inputs added behind z's: those of a text."""
    theirs, ours = source.config, target.config
    same = theirs.z_dim == ours.z_dim and theirs.w_dim == ours.w_dim and min(theirs.mapping_layers, ours.mapping_layers)
    return bool(same) and theirs.text is None and ours.text is not None


def _read_alike(source: Network, target: Network) -> bool:
    theirs, ours = source.config.text, target.config.text
    return theirs is not None and ours is not None and theirs.encoder == ours.encoder


def _by(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
