from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from models.metrics import report
from models.metrics.coverage import neighbourhoods
from models.metrics.features import FeatureSpace
from models.metrics.memorisation import split_holdout
from models.metrics.report import REPORT_PROJECTIONS, Reference, quick_report
from models.metrics.swd import sliced_wasserstein

Discs = Callable[..., NDArray[np.uint8]]
MEASURES = {"swd", "swd_32", "swd_16", "precision", "recall", "density", "coverage", "mmd", "duplicates"}
FLOORS = {"swd_floor", "coverage_floor", "mmd_floor"}
MEMORISATION = {"memorisation", "memorisation_z", "copied", "copied_chance"}


def test_pictures_of_the_same_kind_reach_the_floor_and_those_of_one_colour_do_not(discs: Discs) -> None:
    real = discs(200, 1)
    same, poor = quick_report(real, discs(100, 2)), quick_report(real, discs(100, 2, colours=1))
    assert same["coverage"] > same["coverage_floor"] - 0.15
    assert poor["coverage"] < same["coverage"] - 0.1
    assert same["swd"] < 2 * same["swd_floor"]
    assert poor["swd"] > same["swd"]
    assert poor["mmd"] > 10 * abs(same["mmd"])


def test_the_floor_does_not_depend_on_what_was_painted(discs: Discs) -> None:
    reference = Reference.of(discs(120, 1), *split_holdout(120))
    a, b = reference.measure(discs(60, 2)), reference.measure(discs(60, 3, colours=2))
    assert {name: a[name] for name in FLOORS} == {name: b[name] for name in FLOORS}
    assert a["swd"] != b["swd"]


def test_every_measure_is_a_finite_number(discs: Discs) -> None:
    with_holdout, without = quick_report(discs(80, 1), discs(40, 2)), quick_report(discs(40, 1), discs(20, 2))
    assert set(with_holdout) == MEASURES | FLOORS | MEMORISATION
    assert set(without) == MEASURES | FLOORS
    for found in (with_holdout, without):
        assert {type(value) for value in found.values()} == {float}
        assert np.isfinite(list(found.values())).all()


def test_what_was_prepared_once_gives_what_measuring_from_scratch_gives(discs: Discs) -> None:
    images, fakes = discs(100, 1), discs(50, 2)
    reference = Reference.of(images, *split_holdout(100), seed=3)
    found, reals = reference.measure(fakes), images[reference.rows]
    distance = sliced_wasserstein(reals, fakes, seed=3, projections=REPORT_PROJECTIONS)
    assert found["swd"] == pytest.approx(distance.mean)
    assert (found["swd_32"], found["swd_16"]) == pytest.approx((distance.levels[32], distance.levels[16]))
    space = FeatureSpace.fit(reals)
    near = neighbourhoods(space.project(reals), space.project(fakes))
    assert [found[name] for name in near._fields] == pytest.approx(list(near))


def test_memorisation_is_what_loops_over_the_pictures_give(discs: Discs) -> None:
    images, fakes = discs(80, 1), discs(40, 2)
    train, holdout = split_holdout(80)
    reference = Reference.of(images, train, holdout)
    space = FeatureSpace.fit(images[reference.rows])
    either_way = [space.project(images[train]).numpy(), space.project(images[train][:, :, ::-1]).numpy()]

    def to_train(pictures: NDArray[np.uint8]) -> list[float]:
        points = space.project(pictures).numpy()
        return [min(float(np.linalg.norm(point - other)) for seen in either_way for other in seen) for point in points]

    painted, unseen = to_train(fakes), to_train(images[holdout])
    found = reference.measure(fakes)
    assert found["memorisation"] == pytest.approx(np.median(painted) / np.median(unseen), rel=1e-4)
    assert found["copied"] == np.mean(np.array(painted) < min(unseen))
    row, fake = int(np.argmin(painted)), reference.copies(fakes, top=1)[0].fake
    assert row == fake


def test_the_evidence_names_rows_of_the_dataset(discs: Discs) -> None:
    images = discs(90, 1)
    train, holdout = split_holdout(90)
    reference = Reference.of(images, train, holdout)
    copied = train[[5, 40, 60]]
    fakes = np.concatenate([images[copied], discs(40, 2)])
    assert {(pair.fake, pair.other) for pair in reference.copies(fakes, top=3)} == set(enumerate(copied.tolist()))
    assert reference.copies_sheet(fakes) is not None
    (twins,) = reference.twins(np.concatenate([fakes, fakes[9:10]]), top=1)
    assert (twins.fake, twins.other) == (9, 43)
    assert reference.twins_sheet(fakes) is not None


def test_a_held_out_picture_that_is_painted_is_not_a_copy_of_itself(discs: Discs) -> None:
    images = discs(90, 1)
    train, holdout = split_holdout(90)
    pairs = Reference.of(images, train, holdout).copies(images[holdout], top=20)
    assert {pair.other for pair in pairs}.isdisjoint(holdout.tolist())


def test_of_a_large_dataset_some_pictures_stand_for_all(monkeypatch: pytest.MonkeyPatch, discs: Discs) -> None:
    monkeypatch.setattr(report, "MOST_SEARCHED", 50)
    monkeypatch.setattr(report, "MOST_HELD_OUT", 22)
    reference = Reference.of(discs(300, 1), *split_holdout(300))
    assert reference.count == 36
    assert reference.originals is not None
    assert (len(reference.originals.points), len(reference.originals.held_out)) == (100, 22)
    assert reference.measure(discs(36, 2)).keys() >= MEMORISATION


def test_of_too_few_pictures_nothing_is_said(discs: Discs) -> None:
    reference = Reference.of(discs(31, 1), *split_holdout(31))
    fakes = discs(16, 2)
    assert reference.measure(fakes) == {}
    assert (reference.count, reference.copies_sheet(fakes), reference.twins_sheet(fakes)) == (0, None, None)


def test_fewer_pictures_than_the_reference_has_are_refused(discs: Discs) -> None:
    with pytest.raises(ValueError, match="sets of one size"):
        Reference.of(discs(80, 1), *split_holdout(80)).measure(discs(39, 2))
