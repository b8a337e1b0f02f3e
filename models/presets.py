"""Presets: complete training recipes by name, for the resolutions they fit."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError

from models.config import NetworkConfig, Resolution, TrainConfig
from models.errors import ConfigInvalid

# Radford et al., arXiv:1511.06434: the shape, initialisation and optimiser of the textbook GAN.
CLASSIC: dict[str, Any] = {
    "loss": "bce",
    "batch_size": 64,
    "learning_rate": 2e-4,
    "final_learning_rate": 2e-4,
    "adam_beta1": 0.5,
    "adam_beta2": 0.999,
    "mirror": False,
    "max_minutes": 30.0,
}
CLASSIC_WIDTHS = {32: (256, 128, 64), 64: (512, 256, 128, 64), 128: (1024, 512, 256, 128, 64)}

# Pictures from minutes of two CPU cores: strided convolutions, relativistic pairing with R1 + R2 (arXiv:2501.05441),
# DiffAugment (arXiv:2006.10738) so that a few hundred pictures are enough, and a large step that falls over the budget.
TINY: dict[str, Any] = {
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
TINY_WIDTHS = {32: (256, 128, 64, 32), 64: (256, 256, 128, 64, 32), 128: (256, 256, 128, 64, 32, 16)}
TINY_GAMMA = {32: 0.1, 64: 0.5, 128: 2.0}


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
        z_dim=128,
        w_dim=128,
        mapping_layers=2,
        generator_widths=TINY_WIDTHS[resolution],
        discriminator_widths=TINY_WIDTHS[resolution][:-1],
        upsampling="resize",
    )
    return {**TINY, "network": network, "penalty_gamma": TINY_GAMMA[resolution]}


PRESETS = {"classic": _classic, "tiny": _tiny}
RESOLUTIONS: tuple[Resolution, ...] = get_args(Resolution)


def preset_resolutions(name: str) -> tuple[int, ...]:
    """The picture sides, in pixels, that a preset fits."""
    _require(name)
    return RESOLUTIONS


def preset(name: str, resolution: int, **overrides: Any) -> TrainConfig:
    """A preset's TrainConfig for pictures of one resolution, with fields of TrainConfig put in the place of its own.

    A budget in the overrides (total_kimg, max_minutes or both) takes the place of the preset's whole budget.
    Raises ConfigInvalid for an unknown preset, a resolution it does not fit, or a setting that is not allowed.
    """
    _require(name)
    if resolution not in RESOLUTIONS:
        fits = ", ".join(map(str, RESOLUTIONS))
        raise ConfigInvalid(f"Preset {name!r} does not fit {resolution} px; it fits {fits} px.")
    settings = PRESETS[name](resolution)
    if any(overrides.get(budget) is not None for budget in ("total_kimg", "max_minutes")):
        settings |= {"total_kimg": None, "max_minutes": None}
    settings |= {"preset": name} | _given(overrides)
    try:
        return TrainConfig.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the settings"
        raise ConfigInvalid(f"Preset {name!r}: {where}: {first['msg']}") from error


def _require(name: str) -> None:
    if name not in PRESETS:
        raise ConfigInvalid(f"There is no preset {name!r}; there are {', '.join(sorted(PRESETS))}.")


def _given(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides without the nulls: null means absent throughout the API."""
    return {field: value for field, value in overrides.items() if value is not None}
