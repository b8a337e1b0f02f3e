"""Architecture name to networks."""

from torch import nn

from models.config import NetworkConfig
from models.networks import dcgan
from models.networks.generator import Generator

ARCHITECTURES = {"dcgan": (dcgan.Synthesis, dcgan.Discriminator)}


def build_generator(config: NetworkConfig) -> Generator:
    """G with its first weights, drawn from torch's global random state."""
    synthesis, _ = ARCHITECTURES[config.architecture]
    return Generator(config, synthesis)


def build_discriminator(config: NetworkConfig) -> nn.Module:
    """D with its first weights, drawn from torch's global random state: x [N, C, R, R] -> logits [N]."""
    _, discriminator = ARCHITECTURES[config.architecture]
    return discriminator(config)
