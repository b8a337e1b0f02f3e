import random
from collections.abc import Callable

import pytest
import torch

from models.config import TrainConfig
from models.objectives.adaptive import adjust, overfitting_signal


@pytest.mark.parametrize("loss", ["bce", "hinge"])
def test_the_signal_is_the_share_of_reals_taken_for_real_less_that_of_reals_taken_for_painted(loss: str) -> None:
    real = torch.tensor([[3.0, 0.1], [-2.0, 0.5], [7.0, 1.0], [-0.1, 0.2]])
    assert overfitting_signal(real, torch.full((4, 2), 5.0), loss).item() == pytest.approx((6 - 2) / 8)


@pytest.mark.parametrize("loss", ["relativistic", "wasserstein"])
def test_where_only_differences_count_the_signal_is_of_the_pairs_told_apart(loss: str) -> None:
    real, fake = torch.tensor([5.0, 5.0, 5.0, 5.0]), torch.tensor([4.0, 6.0, 4.9, -5.0])
    assert overfitting_signal(real, fake, loss).item() == pytest.approx((3 - 1) / 4)
    shifted = overfitting_signal(real - 100, fake - 100, loss)
    assert shifted.item() == pytest.approx((3 - 1) / 4)


@pytest.mark.parametrize("loss", ["bce", "hinge", "relativistic", "wasserstein"])
def test_the_signal_goes_from_minus_one_to_one_and_trains_nothing(loss: str) -> None:
    certain = torch.full((4, 1), 1e4, requires_grad=True)
    signal = overfitting_signal(certain, -certain, loss)
    assert signal.shape == ()
    assert not signal.requires_grad
    assert signal.item() == 1.0
    assert overfitting_signal(-certain, certain, loss).item() == -1.0
    assert overfitting_signal(0 * certain, 0 * certain, loss).item() == 0.0


def test_a_trajectory_worked_out_by_hand(small_config: Callable[..., TrainConfig]) -> None:
    config = small_config(augment_target=0.6, augment_kimg=1.0)
    signals = [1.0, 0.61, 0.6, 0.59, -1.0, -1.0, 0.9, 0.9, 0.9, 0.9, 0.9]
    expected = [0.2, 0.4, 0.4, 0.2, 0.0, 0.0, 0.2, 0.4, 0.6, 0.8, 0.8]
    probability, found = 0.0, []
    for signal in signals:
        probability = adjust(probability, signal, config, images=200)
        found.append(probability)
    assert found == pytest.approx(expected)


def test_the_whole_way_takes_augment_kimg_however_it_is_divided(small_config: Callable[..., TrainConfig]) -> None:
    config = small_config(augment_target=0.6, augment_kimg=100.0)
    for images in (128, 1_000, 10_000):
        probability, shown = 0.0, 0
        while probability < 0.5:
            probability = adjust(probability, 1.0, config, images)
            shown += images
        assert 50_000 <= shown <= 50_000 + images


def test_the_probability_stays_from_0_to_four_fifths(small_config: Callable[..., TrainConfig]) -> None:
    config = small_config(augment_target=0.6, augment_kimg=1.0)
    chance, probability = random.Random(0), 1.0  # a config may start above, as one without a target does
    for _ in range(1_000):
        probability = adjust(probability, chance.uniform(-1, 1), config, chance.randrange(1, 100_000))
        assert 0.0 <= probability <= 0.8


def test_without_a_target_the_probability_stays(small_config: Callable[..., TrainConfig]) -> None:
    assert adjust(1.0, 1.0, small_config(augment_target=None), images=10_000_000) == 1.0


def test_a_discriminator_that_augmentation_makes_less_certain_is_held_at_the_target(
    small_config: Callable[..., TrainConfig],
) -> None:
    config = small_config(augment_target=0.6, augment_kimg=10.0)
    probability, last = 0.0, []
    for step in range(200):
        signal = 0.9 - 0.75 * probability  # the target is met at 0.4
        probability = adjust(probability, signal, config, images=128)
        if step >= 100:
            last.append(probability)
    assert min(last) >= 0.4 - 0.0128
    assert max(last) <= 0.4 + 0.0128
