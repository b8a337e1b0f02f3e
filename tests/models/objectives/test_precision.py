from collections.abc import Callable

import pytest
import torch

from models.config import TrainConfig
from models.objectives.precision import autocast, multiplies_bfloat16
from models.registry import build_discriminator, build_generator

CPU = torch.device("cpu")


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_networks_run_in_the_precision_of_the_config(
    small_config: Callable[..., TrainConfig], precision: str, dtype: torch.dtype
) -> None:
    config = small_config(precision=precision)
    with autocast(config, CPU):
        discriminator, generator = build_discriminator(config.network), build_generator(config.network)
        images = generator(torch.randn(2, config.network.z_dim))
        assert discriminator.critic.get_submodule("features")(images).dtype == dtype
        assert (images.dtype, discriminator(images).logits.dtype) == (torch.float32, torch.float32)


def test_auto_is_bfloat16_where_the_processor_has_it(
    small_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    for capabilities, dtype in (({"avx512_bf16": True}, torch.bfloat16), ({"avx2": True}, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert multiplies_bfloat16(CPU) == (dtype == torch.bfloat16)
        with autocast(small_config(precision="auto"), CPU):
            assert (torch.rand(2, 2) @ torch.rand(2, 2)).dtype == dtype
