"""Presets: complete training recipes by name, for the resolutions they fit."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from models.config import NetworkConfig, Resolution, TextConfig, TrainConfig
from models.errors import ConfigInvalid

Widths = dict[int, tuple[int, ...]]  # by resolution; feature maps at 4, 8, 16 ... pixels

# Radford et al., arXiv:1511.06434: the shape, initialisation and optimiser of the textbook GAN.
CLASSIC: Final[dict[str, Any]] = {
    "loss": "bce",
    "batch_size": 64,
    "learning_rate": 2e-4,
    "final_learning_rate": 2e-4,
    "adam_beta1": 0.5,
    "adam_beta2": 0.999,
    "mirror": False,
    "max_minutes": 30.0,
}
CLASSIC_WIDTHS: Final[Widths] = {32: (256, 128, 64), 64: (512, 256, 128, 64), 128: (1024, 512, 256, 128, 64)}

# The mapping that all presets but `classic` share.
STYLED: Final[dict[str, Any]] = {"z_dim": 128, "w_dim": 128, "mapping_layers": 2}

# Pictures from minutes of two CPU cores: strided convolutions, relativistic pairing with R1 + R2 (arXiv:2501.05441),
# DiffAugment (arXiv:2006.10738) so that a few hundred pictures are enough, and a large step that falls over the budget.
TINY: Final[dict[str, Any]] = {
    "loss": "relativistic",
    "batch_size": 32,
    "learning_rate": 1e-3,
    "final_learning_rate": 2e-4,
    "adam_beta1": 0.0,
    "adam_beta2": 0.99,
    "penalty_interval": 4,
    "augment": ("translation", "cutout"),
    "ema_halflife_kimg": 20.0,
    "max_minutes": 30.0,
}
TINY_WIDTHS: Final[Widths] = {
    32: (256, 128, 64, 32),
    64: (256, 256, 128, 64, 32),
    128: (256, 256, 128, 64, 32, 16),
}
TINY_GAMMA: Final = {32: 0.1, 64: 0.5, 128: 2.0}

# For some tens to some hundreds of pictures: FastGAN (arXiv:2101.04775), whose D redraws what it sees; hinge, batch
# norm in D and no penalty, as in the paper, because without norms this D lost track of G within a hundred steps.
# Colours are left alone: an artist's palette is hers, and recolouring leaks into what G paints. From 256 px on the
# widths are half the paper's; below, what two CPU cores bear.
FEW_SHOT: Final[dict[str, Any]] = {
    "loss": "hinge",
    "batch_size": 16,
    "learning_rate": 4e-4,
    "final_learning_rate": 2e-4,
    "adam_beta1": 0.5,
    "adam_beta2": 0.999,
    "reconstruction_weight": 1.0,
    "augment": ("translation", "cutout"),
    "ema_halflife_kimg": 10.0,
    "max_minutes": 60.0,
}
FEW_SHOT_WIDTHS: Final[Widths] = {
    64: (256, 128, 64, 32, 16),
    128: (256, 192, 96, 48, 24, 16),
    256: (512, 256, 128, 64, 64, 32, 16),
    512: (512, 256, 128, 64, 64, 32, 16, 8),
}
FEW_SHOT_CRITIC_WIDTHS: Final[Widths] = {
    64: (192, 96, 48, 24),
    128: (192, 128, 96, 48, 24),
    256: (256, 256, 128, 64, 32, 16),
    512: (256, 256, 256, 128, 64, 32, 16),
}

# For thousands of pictures and long runs: R3GAN (arXiv:2501.05441) with narrower stages and one block a stage. Its
# schedules end with the budget: the penalty falls to a tenth, Adam's memory grows, the step shrinks. The paper's step
# of 2e-4 is for 250 million pictures; runs of a hundredth of that start with five times as much.
QUALITY: Final[dict[str, Any]] = {
    "loss": "relativistic",
    "batch_size": 32,
    "learning_rate": 1e-3,
    "final_learning_rate": 2e-4,
    "adam_beta1": 0.0,
    "adam_beta2": 0.9,
    "final_adam_beta2": 0.99,
    "augment": ("translation", "cutout"),
    "augment_probability": 0.0,
    "augment_target": 0.6,
    "augment_kimg": 200.0,
    "ema_halflife_kimg": 50.0,
    "max_minutes": 240.0,
}
QUALITY_WIDTHS: Final[Widths] = {
    32: (384, 384, 256, 128),
    64: (384, 384, 256, 128, 64),
    128: (384, 384, 384, 192, 96, 48),
    256: (384, 384, 384, 256, 128, 64, 32),
}
LAST_GAMMA_SHARE: Final = 0.1  # of the first one, as in arXiv:2501.05441, D

# From what another training learnt: its own recipe, at a step that does not tear down what is there, with the part of D
# that sees edges and colours kept (freeze-D, arXiv:2002.10964), and augmentation that reacts five times as fast
# (arXiv:2006.06676, 4.3), for the sets are small and D knows its trade already.
FINE_TUNE: Final[dict[str, Any]] = {
    "learning_rate": 3e-4,
    "final_learning_rate": 1e-4,
    "augment": ("translation", "cutout"),
    "augment_probability": 0.2,
    "augment_target": 0.6,
    "augment_kimg": 100.0,
    "frozen_discriminator_stages": 2,
    "ema_halflife_kimg": 10.0,
    "max_minutes": 20.0,
}


def _gamma(resolution: int) -> float:
    """The paper's at 64 and 256 pixels, and what lies between: 2 at 64, with the cube of the side."""
    return 2.0 * (resolution / 64) ** 3


def _classic(resolution: Resolution) -> dict[str, Any]:
    network = NetworkConfig(
        resolution=resolution,
        z_dim=100,
        w_dim=100,
        mapping_layers=0,
        generator_widths=CLASSIC_WIDTHS[resolution],
        discriminator_widths=CLASSIC_WIDTHS[resolution],
        discriminator_norm="batch",
    )
    return {**CLASSIC, "network": network}


def _tiny(resolution: Resolution) -> dict[str, Any]:
    network = NetworkConfig(
        resolution=resolution,
        **STYLED,
        generator_widths=TINY_WIDTHS[resolution],
        discriminator_widths=TINY_WIDTHS[resolution][:-1],
        upsampling="resize",
    )
    return {**TINY, "network": network, "penalty_gamma": TINY_GAMMA[resolution]}


def _few_shot(resolution: Resolution) -> dict[str, Any]:
    network = NetworkConfig(
        architecture="fastgan",
        resolution=resolution,
        **STYLED,
        generator_widths=FEW_SHOT_WIDTHS[resolution],
        discriminator_widths=FEW_SHOT_CRITIC_WIDTHS[resolution],
        upsampling="resize",
        discriminator_norm="batch",
    )
    return {**FEW_SHOT, "network": network}


def _quality(resolution: Resolution) -> dict[str, Any]:
    network = NetworkConfig(
        architecture="r3gan",
        resolution=resolution,
        **STYLED,
        generator_widths=QUALITY_WIDTHS[resolution],
        discriminator_widths=QUALITY_WIDTHS[resolution],
        generator_norm="none",
    )
    gammas = {"penalty_gamma": _gamma(resolution), "final_penalty_gamma": _gamma(resolution) * LAST_GAMMA_SHARE}
    return {**QUALITY, "network": network, **gammas}


def _fine_tune(network: NetworkConfig) -> dict[str, Any]:
    resolution = network.resolution
    recipes: dict[str, dict[str, Any]] = {
        "dcgan": TINY | {"penalty_gamma": 0.5 * (resolution / 64) ** 2},
        "fastgan": FEW_SHOT,
        # The weights are past the end of their own schedules, so these do not begin anew.
        "r3gan": QUALITY | {"penalty_gamma": _gamma(resolution) * LAST_GAMMA_SHARE, "adam_beta2": 0.99},
    }
    textbook = network.architecture == "dcgan" and network.discriminator_norm == "batch"
    own = CLASSIC if textbook else recipes[network.architecture]
    return {**own, **FINE_TUNE, "network": network}


FROM_NOTHING: Final[dict[str, tuple[Callable[[Any], dict[str, Any]], tuple[Resolution, ...]]]] = {
    "classic": (_classic, (32, 64, 128)),
    "tiny": (_tiny, (32, 64, 128)),
    "few-shot": (_few_shot, (64, 128, 256, 512)),
    "quality": (_quality, (32, 64, 128, 256)),
}
FROM_A_BASE: Final = "fine-tune"
PRESETS: Final = (*FROM_NOTHING, FROM_A_BASE)
RESOLUTIONS: Final[tuple[Resolution, ...]] = (32, 64, 128, 256, 512)


def preset_resolutions(name: str) -> tuple[Resolution, ...]:
    """The picture sides, in pixels, that a preset fits; that which starts from a base fits its base's alone."""
    _require(name)
    return RESOLUTIONS if name == FROM_A_BASE else FROM_NOTHING[name][1]


def takes_text(network: NetworkConfig) -> bool:
    """Whether these networks can be conditioned on texts: captions reach G through its mapping layers."""
    return network.mapping_layers > 0


def preset(
    name: str,
    resolution: int,
    *,
    network: NetworkConfig | None = None,
    text: TextConfig | None = None,
    **overrides: Any,
) -> TrainConfig:
    """A preset's TrainConfig for pictures of one resolution, with fields of TrainConfig put in the place of its own.

    network: in the place of the preset's; fine-tune has none and takes its base's. text: what the networks are
    conditioned on, where they can be; None: nothing. A budget in the overrides (total_kimg, max_minutes or both) takes
    the place of the preset's whole budget.
    Raises ConfigInvalid for an unknown preset, a resolution it does not fit, or a setting that is not allowed.
    """
    _require_fit(name, resolution, network)
    settings = _recipe(name, resolution, network)
    shape = network or settings["network"]
    settings["network"] = shape.model_copy(update={"text": text if takes_text(shape) else None})
    if any(overrides.get(budget) is not None for budget in ("total_kimg", "max_minutes")):
        settings |= {"total_kimg": None, "max_minutes": None}
    settings |= {"preset": name} | _given(overrides)
    try:
        return TrainConfig.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the settings"
        raise ConfigInvalid(f"Preset {name!r}: {where}: {first['msg']}") from error


def _recipe(name: str, resolution: int, network: NetworkConfig | None) -> dict[str, Any]:
    if name in FROM_NOTHING or network is None:
        return FROM_NOTHING[name][0](resolution)
    return _fine_tune(network)


def _require(name: str) -> None:
    if name not in PRESETS:
        raise ConfigInvalid(f"There is no preset {name!r}; there are {', '.join(sorted(PRESETS))}.")


def _require_fit(name: str, resolution: int, network: NetworkConfig | None) -> None:
    sizes = preset_resolutions(name)
    if resolution not in sizes:
        fits = ", ".join(map(str, sizes))
        raise ConfigInvalid(f"Preset {name!r} does not fit {resolution} px; it fits {fits} px.")
    if name == FROM_A_BASE and network is None:
        raise ConfigInvalid(f"Preset {name!r} starts from a base and takes its networks; name one.")
    if network is not None and network.resolution != resolution:
        raise ConfigInvalid(f"The networks are for {network.resolution} px; the pictures have {resolution} px.")


def _given(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides without the nulls: null means absent throughout the API."""
    return {field: value for field, value in overrides.items() if value is not None}
