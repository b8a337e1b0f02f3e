"""Architecture name to networks."""

from models.config import NetworkConfig
from models.networks import dcgan, fastgan, r3gan
from models.networks.discriminator import Discriminator
from models.networks.generator import Generator

ARCHITECTURES = {
    "dcgan": (dcgan.Synthesis, dcgan.Critic),
    "fastgan": (fastgan.Synthesis, fastgan.Critic),
    "r3gan": (r3gan.Synthesis, r3gan.Critic),
}


def build_generator(config: NetworkConfig) -> Generator:
    """G with its first weights, drawn from torch's global random state."""
    synthesis, _ = ARCHITECTURES[config.architecture]
    return Generator(config, synthesis)


def build_discriminator(config: NetworkConfig) -> Discriminator:
    """D with its first weights, drawn from torch's global random state."""
    _, critic = ARCHITECTURES[config.architecture]
    return Discriminator(config, critic)
