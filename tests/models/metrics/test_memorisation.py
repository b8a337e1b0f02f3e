from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.metrics import memorisation as metric
from models.metrics.features import FeatureSpace
from models.metrics.memorisation import (
    COPYING_CHANCE,
    Memorisation,
    Nearest,
    closest_copies,
    closest_twins,
    copied_by_chance,
    duplicate_share,
    mann_whitney_z,
    memorisation,
    nearest,
    nearest_of_others,
    pairs_sheet,
    split_holdout,
    very_near,
)

Discs = Callable[..., NDArray[np.uint8]]


@pytest.mark.parametrize(("count", "held"), [(59, 0), (60, 20), (100, 20), (201, 20), (300, 30), (1168, 117)])
def test_a_tenth_and_at_least_twenty_are_held_out_of_sixty_pictures_or_more(count: int, held: int) -> None:
    train, holdout = split_holdout(count)
    assert len(holdout) == held
    assert sorted([*train, *holdout]) == list(range(count))


def test_the_same_pictures_are_held_out_every_time_and_by_chance() -> None:
    (_, first), (_, again), (_, other) = split_holdout(100), split_holdout(100), split_holdout(100, seed=1)
    assert first.tolist() == again.tolist() == sorted(first)
    assert first.tolist() != other.tolist()


@pytest.mark.parametrize("batch", [1, 50, 1 << 22])
def test_nearest_is_what_loops_find(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(metric, "BATCH_DISTANCES", batch)
    points, others = torch.randn(13, 5), torch.randn(21, 5)
    found = nearest(points, others)
    for point, distance, row in zip(points, found.distances, found.rows, strict=True):
        by_loop = [float(torch.linalg.vector_norm(point - other)) for other in others]
        assert float(distance) == pytest.approx(min(by_loop))
        assert int(row) == int(np.argmin(by_loop))


def test_the_nearest_other_of_a_point_is_not_itself() -> None:
    points = torch.tensor([[0.0], [1.0], [1.5], [9.0]])
    found = nearest_of_others(points)
    np.testing.assert_allclose(found.distances, [1, 0.5, 0.5, 7.5])
    assert found.rows.tolist() == [1, 2, 1, 2]


@pytest.mark.parametrize("decimals", [0, 8])
def test_z_is_what_comparing_every_pair_gives(decimals: int) -> None:
    chance = np.random.RandomState(0)
    a, b = chance.rand(17).round(decimals), (0.8 * chance.rand(11)).round(decimals)  # with ties, and without
    u = sum(1.0 if x > y else 0.5 if x == y else 0.0 for x in a for y in b)
    assert mann_whitney_z(a, b) == pytest.approx((u - 17 * 11 / 2) / (17 * 11 * 29 / 12) ** 0.5)


def test_z_of_one_kind_of_numbers_is_a_standard_normal() -> None:
    chance = np.random.RandomState(0)
    z = np.array([mann_whitney_z(chance.rand(40), chance.rand(25)) for _ in range(2000)])
    assert abs(z.mean()) < 4 / np.sqrt(2000)
    assert z.std() == pytest.approx(1, abs=0.07)


@pytest.mark.parametrize(("fakes", "held_out"), [(50, 20), (390, 78), (512, 117), (512, 300), (512, 1024)])
def test_the_share_copied_by_chance_is_exceeded_as_seldom_as_stated(fakes: int, held_out: int) -> None:
    """By drawing the rank-th of held-out pictures, a Beta variable, and then how many painted ones are nearer."""
    chance, rank = np.random.RandomState(0), -(-held_out // 100)
    shares = chance.binomial(fakes, chance.beta(rank, held_out + 1 - rank, 400_000)) / fakes
    limit = copied_by_chance(fakes, held_out)
    exceeded, one_less = (shares > limit).mean(), (shares >= limit).mean()
    assert exceeded < 1.15 * COPYING_CHANCE
    assert one_less > COPYING_CHANCE / 1.15


def test_distances_give_the_ratio_of_medians_and_the_share_below_the_first_percentile() -> None:
    found = memorisation(np.array([0.5, 1.0, 3.0, 5.0]), np.arange(1.0, 102.0))  # its first percentile is 2
    assert found.ratio == pytest.approx(2.0 / 51.0)
    assert found.copied == 0.5


def test_a_dataset_of_twins_gives_numbers_still() -> None:
    found = memorisation(np.zeros(50), np.zeros(20))
    assert (found.ratio, found.copied, found.z, found.copying) == (1, 0, 0, False)


def judged(train: NDArray[np.uint8], holdout: NDArray[np.uint8], fake: NDArray[np.uint8]) -> Memorisation:
    space = FeatureSpace.fit(train)
    points = torch.cat([space.project(train), space.project(train[:, :, ::-1])])
    return memorisation(*(nearest(space.project(images), points).distances for images in (fake, holdout)))


def noisy(images: NDArray[np.uint8], deviation: float) -> NDArray[np.uint8]:
    noise = np.random.RandomState(9).randn(*images.shape) * deviation
    return np.clip(images + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_fresh_pictures_are_no_copies(discs: Discs, seed: int) -> None:
    found = judged(discs(300, 10 + seed), discs(40, 20 + seed), discs(200, 30 + seed))
    assert not found.copying
    assert found.ratio == pytest.approx(1, abs=0.3)


def test_copies_are_found_whether_noisy_or_mirrored(discs: Discs) -> None:
    train, holdout = discs(300, 1), discs(40, 2)
    for copies in (noisy(train[:200], 6), noisy(train[:200, :, ::-1], 6)):
        found = judged(train, holdout, copies)
        assert found.copying
        assert (found.ratio < 0.7, found.z < -3) == (True, True)


def test_some_copies_among_fresh_pictures_are_found_by_their_share(discs: Discs) -> None:
    train = discs(300, 1)
    found = judged(train, discs(100, 2), np.concatenate([discs(160, 3), train[:40]]))
    assert found.ratio > 0.7
    assert found.copying


def test_copies_are_shown_with_their_training_picture(discs: Discs) -> None:
    train = discs(50, 1)
    fakes = np.concatenate([discs(5, 2), noisy(train[7:8], 2), noisy(train[[31], :, ::-1], 2)])
    space = FeatureSpace.fit(train)
    points = torch.cat([space.project(train), space.project(train[:, :, ::-1])])
    pairs = closest_copies(nearest(space.project(fakes), points), len(train), top=2)
    assert {(pair.fake, pair.other, pair.mirrored) for pair in pairs} == {(5, 7, False), (6, 31, True)}
    assert pairs[0].distance <= pairs[1].distance


def test_the_sheet_shows_the_painted_picture_above_the_other_as_it_resembles_it(discs: Discs) -> None:
    train = discs(3, 1)
    fakes = train[2:, :, ::-1]
    (pair,) = closest_copies(Nearest(np.array([0.1]), np.array([5])), originals=3, top=1)
    sheet = np.asarray(pairs_sheet(fakes, train, [pair]))
    above, below = sheet[6:134, 6:134], sheet[140:268, 6:134]
    np.testing.assert_array_equal(above, below)
    np.testing.assert_array_equal(above[::4, ::4], fakes[0])


def test_grey_pictures_make_a_sheet_too(discs: Discs) -> None:
    grey = discs(2, 1)[..., :1]
    sheet = pairs_sheet(grey, grey, closest_twins(nearest_of_others(torch.randn(2, 3)), top=1))
    assert sheet.mode == "RGB"


def clusters(count: int, centres: Tensor) -> Tensor:
    return centres[torch.arange(count) % len(centres)] + 0.01 * torch.randn(count, centres.shape[1])


def test_a_collapse_shows_as_duplicates_and_variety_does_not() -> None:
    near = very_near(nearest_of_others(torch.randn(200, 8)).distances)
    assert duplicate_share(torch.randn(200, 8), near) < 0.06
    assert duplicate_share(clusters(200, torch.randn(10, 8)), near) == 1


def test_twins_are_named_once_nearest_first() -> None:
    points = torch.tensor([[0.0], [10.0], [10.1], [0.3], [50.0]])
    pairs = closest_twins(nearest_of_others(points), top=8)
    assert [(pair.fake, pair.other) for pair in pairs] == [(1, 2), (0, 3), (4, 2)]
