import pytest

from models.errors import ConfigInvalid
from models.presets import PRESETS, preset, preset_resolutions


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_a_valid_config_for_every_resolution_it_says_it_fits(name: str) -> None:
    assert preset_resolutions(name) == (32, 64, 128)
    for resolution in preset_resolutions(name):
        config = preset(name, resolution)
        assert (config.preset, config.network.resolution) == (name, resolution)


def test_classic_is_the_textbook_gan() -> None:
    config = preset("classic", 64)
    assert (config.loss, config.learning_rate, config.final_learning_rate) == ("bce", 2e-4, 2e-4)
    assert (config.adam_beta1, config.adam_beta2, config.batch_size) == (0.5, 0.999, 64)
    assert (config.network.z_dim, config.network.mapping_layers, config.network.num_ws) == (100, 0, 1)
    assert (config.penalty_gamma, config.augment, config.ema_halflife_kimg) == (0.0, (), 0.0)


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
        (("huge", 64), "There is no preset 'huge'; there are classic, tiny."),
        (("tiny", 48), "Preset 'tiny' does not fit 48 px; it fits 32, 64, 128 px."),
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
