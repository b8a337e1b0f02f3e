"""All a training is at one moment: saved as safetensors, and carried on from there as if it had never stopped."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim import Adam

from models.config import TrainConfig
from models.errors import CheckpointInvalid, ConfigInvalid
from models.networks.discriminator import Discriminator
from models.networks.generator import Generator
from models.registry import build_discriminator, build_generator

METADATA_KEY = "ganvas_training"
LENGTH_BYTES = 8  # safetensors: the header's length comes first, little-endian
ADAM_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
COUNTERS = ("steps", "images_seen", "images_drawn", "minutes", "augment_probability", "rate_scale", "micro_batch")


@dataclass
class TrainingState:
    """The networks, their optimisers, the random state and the counters. The schedules follow from the counters."""

    config: TrainConfig
    generator: Generator
    discriminator: Discriminator
    generator_ema: Generator
    generator_optimizer: Adam
    discriminator_optimizer: Adam
    random: dict[str, Tensor]  # device type -> state of torch's random numbers there, uint8
    steps: int = 0
    images_seen: int = 0
    images_drawn: int = 0  # of the shuffled dataset; more than were seen where G's step has reals of its own
    minutes: float = 0.0
    augment_probability: float = 1.0
    rate_scale: float = 1.0  # of the learning rate; halved when the training had to go back
    micro_batch: int = 0  # images a pass; halved when memory ran out

    @classmethod
    def start(cls, config: TrainConfig) -> Self:
        """First weights and first random state, both from config.seed; torch's global random state stays untouched."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            generator = build_generator(config.network)
            discriminator = build_discriminator(config.network)
            random = torch.get_rng_state()
        discriminator.freeze(config.frozen_discriminator_stages)
        return cls(
            config=config,
            generator=generator,
            discriminator=discriminator,
            generator_ema=copy.deepcopy(generator).eval().requires_grad_(False),
            generator_optimizer=_adam(_own_parameters(generator), config),
            # D is asked how pictures fit texts, so it teaches what texts mean.
            discriminator_optimizer=_adam([*discriminator.parameters(), *_text_parameters(generator)], config),
            random={"cpu": random},
            augment_probability=config.augment_probability,
            micro_batch=config.micro_batch or config.batch_size,
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The state that `to_bytes` gave. Raises CheckpointInvalid for anything else."""
        try:
            tensors = safetensors.torch.load(data)
            header = data[LENGTH_BYTES : LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")]
            saved = json.loads(json.loads(header)["__metadata__"][METADATA_KEY])
            state = cls.start(TrainConfig.model_validate(saved["config"]))
            for name, network in state._networks().items():
                network.load_state_dict(_under(name, tensors), strict=True)
            for name, optimizer in state._optimizers().items():
                _load_adam(optimizer, _under(name, tensors))
            state.random = {"cpu": tensors["random.cpu"]} | _under("random", tensors)
            for counter in COUNTERS:
                setattr(state, counter, saved[counter])
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointInvalid(f"This is not the state of a training, or it is damaged: {error}") from error
        return state

    def to_bytes(self) -> bytes:
        """Everything as safetensors, the configuration and the counters as JSON in the header."""
        tensors = {f"random.{device}": random for device, random in self.random.items()}
        for name, network in self._networks().items():
            tensors |= {f"{name}.{key}": tensor for key, tensor in network.state_dict().items()}
        for name, optimizer in self._optimizers().items():
            for index, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}.{index}.{moment}": moments[moment] for moment in ADAM_MOMENTS}
        saved = {"config": self.config.model_dump(mode="json")} | {name: getattr(self, name) for name in COUNTERS}
        return safetensors.torch.save(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            metadata={METADATA_KEY: json.dumps(saved)},
        )

    def under(self, config: TrainConfig) -> Self:
        """This state as the start of another training: all that was learnt, no budget spent, chance as it stands.

        Raises ConfigInvalid where the configuration has other networks.
        """
        if config.network != self.config.network:
            raise ConfigInvalid(
                "A branch goes on with the same networks; to change network.* start a training with this model as its "
                "base."
            )
        state = type(self).from_bytes(self.to_bytes())
        state.config = config
        state.steps = state.images_seen = state.images_drawn = 0
        state.minutes, state.rate_scale = 0.0, 1.0
        state.augment_probability = config.augment_probability
        state.micro_batch = config.micro_batch or config.batch_size
        state.discriminator.requires_grad_(True)
        state.discriminator.freeze(config.frozen_discriminator_stages)
        return state

    @property
    def kimg(self) -> float:
        """Thousands of real images shown."""
        return self.images_seen / 1000

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.generator.w_avg.device

    def weigh(self, features: NDArray[np.float32]) -> None:
        """How much each feature of a text counts, [F]: worked out from the dataset once, a part of G from then on."""
        for generator in (self.generator, self.generator_ema):
            if generator.text is not None:
                generator.text.weight.copy_(torch.from_numpy(features))

    def to(self, device: torch.device, memory_format: torch.memory_format) -> None:
        """Move the networks and their optimisers there, their images laid out in that format."""
        for network in self._networks().values():
            network.to(device, memory_format=memory_format)  # type: ignore[call-overload]
        for optimizer in self._optimizers().values():
            for parameter, moments in optimizer.state.items():
                for moment in ("exp_avg", "exp_avg_sq"):
                    moments[moment] = torch.empty_like(parameter).copy_(moments[moment])

    @contextmanager
    def own_random(self) -> Iterator[None]:
        """Draw torch's random numbers from this training's own stream, and leave the global one as it was."""
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.set_rng_state(self.random["cpu"])
            if cuda and "cuda" in self.random:
                torch.cuda.set_rng_state(self.random["cuda"], self.device)
            elif cuda:
                torch.cuda.manual_seed(self.config.seed)
            yield
            self.random = {"cpu": torch.get_rng_state()}
            if cuda:
                self.random["cuda"] = torch.cuda.get_rng_state(self.device)

    def _networks(self) -> dict[str, nn.Module]:
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_ema": self.generator_ema,
        }

    def _optimizers(self) -> dict[str, Adam]:
        return {
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }


def _text_parameters(generator: Generator) -> list[nn.Parameter]:
    return [] if generator.text is None else list(generator.text.parameters())


def _own_parameters(generator: Generator) -> list[nn.Parameter]:
    """G's parameters but for those that D teaches."""
    return [*generator.mapping.parameters(), *generator.synthesis.parameters()]


def _adam(parameters: list[nn.Parameter], config: TrainConfig) -> Adam:
    return Adam(parameters, lr=config.learning_rate, betas=(config.adam_beta1, config.adam_beta2))


def _load_adam(optimizer: Adam, tensors: dict[str, Tensor]) -> None:
    """Give Adam its moments back; `tensors` names them "index.moment", and is empty before the first step."""
    indices = sorted({int(name.partition(".")[0]) for name in tensors})  # none of a parameter that never had a gradient
    moments = {index: {moment: tensors[f"{index}.{moment}"] for moment in ADAM_MOMENTS} for index in indices}
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors named "prefix.rest", by their rest."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}
