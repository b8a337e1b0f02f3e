import subprocess
import sys

import pytest
from pydantic import ValidationError

from models.config import NetworkConfig, TextConfig, TrainConfig
from models.presets import preset


def test_a_config_survives_the_journey_through_json() -> None:
    config = preset("tiny", 64, total_kimg=3.5, max_minutes=7, seed=2**32 - 1)
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


def test_the_config_and_the_presets_do_not_import_torch() -> None:
    program = "import sys, models.presets, models.latents.seeds; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_field_says_what_it_is() -> None:
    for model in (TrainConfig, NetworkConfig, TextConfig):
        assert all(field.description for field in model.model_fields.values())


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        preset("tiny", 32).batch_size = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"generator_widths": (8, 8)}, "generator_widths has 2 entries; dcgan at 32 px takes 3/4"),
        ({"discriminator_widths": (8, 8, 8, 8)}, "discriminator_widths has 4 entries; dcgan at 32 px takes 3"),
        ({"architecture": "fastgan", "generator_widths": (8, 8, 8)}, "3 entries; fastgan at 32 px takes 4"),
        ({"architecture": "r3gan"}, "discriminator_widths has 3 entries; r3gan at 32 px takes 4"),
        ({"architecture": "stylegan"}, "'dcgan', 'fastgan' or 'r3gan'"),
        ({"mapping_layers": 0, "text": {}}, "Captions reach G through its mapping network"),
        ({"text": {"encoder": "hashed-8192", "size": 8192}}, "Extra inputs are not permitted"),
        ({"mapping_layers": 0, "w_dim": 64}, "w_dim 64 must equal z_dim 128"),
        ({"resolution": 48}, "32, 64, 128, 256 or 512"),
        ({"generator_widths": (8, 8, 100_000)}, "less than or equal to 1024"),
        ({"colour": "red"}, "Extra inputs are not permitted"),
    ],
)
def test_networks_that_cannot_be_built_are_refused(change: dict[str, object], complaint: str) -> None:
    network = preset("tiny", 32).network.model_dump()
    with pytest.raises(ValidationError, match=complaint):
        NetworkConfig.model_validate(network | change)


def test_a_training_without_a_budget_is_refused() -> None:
    settings = preset("tiny", 32).model_dump() | {"total_kimg": None, "max_minutes": None}
    with pytest.raises(ValidationError, match="Give a budget"):
        TrainConfig.model_validate(settings)


def test_num_ws_is_one_a_modulated_stage_and_one_where_nothing_is_modulated() -> None:
    assert preset("tiny", 64).network.num_ws == 5  # 4, 8, 16, 32, 64 px
    assert preset("classic", 64).network.num_ws == 1
