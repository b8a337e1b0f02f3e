from itertools import pairwise

import pytest

from models.config import NetworkConfig, TextConfig
from models.errors import ConfigInvalid
from models.presets import FROM_A_BASE, FROM_NOTHING, PRESETS, preset, preset_resolutions, takes_text
from models.registry import build_discriminator, build_generator


@pytest.mark.parametrize(
    ("name", "resolutions"),
    [
        ("classic", (32, 64, 128)),
        ("tiny", (32, 64, 128)),
        ("few-shot", (64, 128, 256, 512)),
        ("quality", (32, 64, 128, 256)),
    ],
)
def test_every_preset_gives_a_valid_config_for_every_resolution_it_says_it_fits(
    name: str, resolutions: tuple[int, ...]
) -> None:
    assert preset_resolutions(name) == resolutions
    for resolution in resolutions:
        config = preset(name, resolution)
        assert (config.preset, config.network.resolution) == (name, resolution)


def test_the_presets_are_those_from_nothing_and_the_one_from_a_base() -> None:
    assert PRESETS == (*FROM_NOTHING, FROM_A_BASE) == ("classic", "tiny", "few-shot", "quality", "fine-tune")


@pytest.mark.parametrize("name", FROM_NOTHING)
def test_the_networks_of_every_preset_can_be_built_and_frozen_as_a_fine_tune_does(name: str) -> None:
    network = preset(name, 64).network
    frozen = preset("fine-tune", 64, network=network).frozen_discriminator_stages
    build_generator(network)
    discriminator = build_discriminator(network)
    discriminator.freeze(frozen)
    learning = [parameter.requires_grad for parameter in discriminator.parameters()]
    assert any(learning)
    assert not all(learning)


def test_classic_is_the_textbook_gan() -> None:
    config = preset("classic", 64)
    assert (config.loss, config.learning_rate, config.final_learning_rate) == ("bce", 2e-4, 2e-4)
    assert (config.adam_beta1, config.adam_beta2, config.batch_size) == (0.5, 0.999, 64)
    assert (config.network.z_dim, config.network.mapping_layers, config.network.num_ws) == (100, 0, 1)
    assert (config.penalty_gamma, config.augment, config.ema_halflife_kimg) == (0.0, (), 0.0)


def test_few_shot_has_a_discriminator_that_redraws_and_leaves_colours_alone() -> None:
    config = preset("few-shot", 128)
    assert (config.network.architecture, config.reconstruction_weight) == ("fastgan", 1.0)
    assert "color" not in config.augment


def test_quality_follows_the_papers_schedules() -> None:
    papers = {64: 2.0, 256: 150.0}  # gamma at the start, arXiv:2501.05441, D
    for resolution, gamma in papers.items():
        config = preset("quality", resolution)
        assert config.penalty_gamma == pytest.approx(gamma, rel=0.2)
        assert config.final_penalty_gamma == pytest.approx(config.penalty_gamma / 10)
        assert (config.adam_beta1, config.adam_beta2, config.final_adam_beta2) == (0.0, 0.9, 0.99)
    gammas = [preset("quality", resolution).penalty_gamma for resolution in preset_resolutions("quality")]
    assert [wide / narrow for narrow, wide in pairwise(gammas)] == pytest.approx([8.0] * 3)


@pytest.mark.parametrize("name", FROM_NOTHING)
def test_a_fine_tune_is_gentler_than_its_base_and_has_its_networks_and_loss(name: str) -> None:
    base = preset(name, 64)
    config = preset("fine-tune", 64, network=base.network)
    assert (config.network, config.loss) == (base.network, base.loss)
    assert config.frozen_discriminator_stages > 0
    assert config.final_learning_rate < base.final_learning_rate
    assert config.reconstruction_weight == base.reconstruction_weight


def test_a_fine_tune_without_a_base_or_of_another_resolution_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="starts from a base"):
        preset("fine-tune", 64)
    with pytest.raises(ConfigInvalid, match="64 px; the pictures have 32 px"):
        preset("fine-tune", 32, network=preset("tiny", 64).network)


def test_networks_are_conditioned_where_they_can_be() -> None:
    text = TextConfig(encoder="hashed-64", features=64)
    for name in ("tiny", "few-shot", "quality"):
        assert preset(name, 64, text=text).network.text == text
        assert preset(name, 64).network.text is None
    classic = preset("classic", 64, text=text)
    assert classic.network.text is None
    assert not takes_text(classic.network)


def test_a_fine_tune_is_conditioned_as_it_is_told_whatever_its_base_is() -> None:
    text = TextConfig(encoder="hashed-64", features=64)
    spoken, silent = preset("tiny", 64, text=text).network, preset("tiny", 64).network
    assert preset("fine-tune", 64, network=silent, text=text).network == spoken
    assert preset("fine-tune", 64, network=spoken).network == silent


def test_other_networks_take_the_place_of_the_presets() -> None:
    network = NetworkConfig(
        resolution=32,
        z_dim=8,
        w_dim=8,
        mapping_layers=1,
        generator_widths=(8, 8, 8, 8),
        discriminator_widths=(8, 8, 8),
    )
    assert preset("tiny", 32, network=network).network == network


def test_overrides_take_the_place_of_the_preset_and_null_means_absent() -> None:
    config = preset("tiny", 32, batch_size=8, seed=None)
    assert (config.batch_size, config.seed) == (8, preset("tiny", 32).seed)


def test_a_budget_takes_the_place_of_the_whole_budget_of_the_preset() -> None:
    assert preset("tiny", 32).max_minutes is not None
    by_kimg = preset("tiny", 32, total_kimg=5)
    assert (by_kimg.total_kimg, by_kimg.max_minutes) == (5, None)
    both = preset("tiny", 32, total_kimg=5, max_minutes=1)
    assert (both.total_kimg, both.max_minutes) == (5, 1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("huge", 64), "There is no preset 'huge'; there are classic, few-shot, fine-tune, quality, tiny."),
        (("tiny", 48), "Preset 'tiny' does not fit 48 px; it fits 32, 64, 128 px."),
        (("few-shot", 32), "Preset 'few-shot' does not fit 32 px; it fits 64, 128, 256, 512 px."),
    ],
)
def test_an_unknown_preset_or_resolution_is_refused_with_what_fits(arguments: tuple[str, int], complaint: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        preset(*arguments)
    assert str(refused.value) == complaint


@pytest.mark.parametrize(
    ("overrides", "field"),
    [({"batch_size": 0}, "batch_size"), ({"learning_rat": 1}, "learning_rat"), ({"total_kimg": -1}, "total_kimg")],
)
def test_an_override_that_is_not_allowed_is_refused_by_name(overrides: dict[str, int], field: str) -> None:
    with pytest.raises(ConfigInvalid, match=f"Preset 'tiny': {field}: "):
        preset("tiny", 32, **overrides)


def test_resolutions_of_an_unknown_preset_are_refused() -> None:
    with pytest.raises(ConfigInvalid, match="There is no preset"):
        preset_resolutions("huge")
