"""The precision of the networks' arithmetic in training; weights, losses, penalties and averages stay in float32."""

from contextlib import AbstractContextManager

import torch

from models.config import TrainConfig


def autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[None]:
    """Around every forward pass of G or D in training. bfloat16 has the range of float32, so losses need no scaling;
    where the processor multiplies it in hardware a step takes about half the time."""
    wanted = config.precision == "bfloat16" or (config.precision == "auto" and multiplies_bfloat16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=wanted)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for it; without them it works too, and takes many times as long."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(instructions) for instructions in ("avx512_bf16", "amx_bf16"))
