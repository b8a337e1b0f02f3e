"""What pictures are painted on: a device, and the numbers it calculates with. Both belong to a picture's identity."""

from typing import Literal, NamedTuple

import torch

from app.core.errors import SettingsInvalid
from app.serving.recipe import DeviceKind, Dtype
from models.objectives.precision import multiplies_bfloat16

TORCH_DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Runtime(NamedTuple):
    """Two pictures of one recipe are equal bit for bit where their runtimes are."""

    device: DeviceKind
    dtype: Dtype


def devices(wanted: str) -> list[torch.device]:
    """The devices that paint: every GPU there is for auto, else the CPU; or the one named."""
    if wanted != "auto":
        return [torch.device(wanted)]
    if torch.cuda.is_available():
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [torch.device("cpu")]


def runtime(device: torch.device, wanted: Literal["auto"] | Dtype = "auto") -> Runtime:
    """auto: bfloat16 where the processor multiplies it, as in training, at about twice the speed; else float32.

    Known from the processor alone and never timed: a measurement could choose otherwise after the next start.
    Raises SettingsInvalid for float16 on a CPU, which has no quick arithmetic for it.
    """
    kind: DeviceKind = "cuda" if device.type == "cuda" else "cpu"
    if kind == "cpu" and wanted == "float16":
        message = "GANVAS_DTYPE is 'float16', which only GPUs paint in; set auto, bfloat16 or float32."
        raise SettingsInvalid(message, param="GANVAS_DTYPE")
    if wanted == "auto":
        return Runtime(kind, "bfloat16" if multiplies_bfloat16(device) else "float32")
    return Runtime(kind, wanted)
