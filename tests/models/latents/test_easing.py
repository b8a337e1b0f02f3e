import itertools
import math

import pytest

from models.latents.easing import EASINGS

TIMES = [step / 1000 for step in range(1001)]


@pytest.mark.parametrize("name", EASINGS)
def test_every_easing_begins_at_0_and_ends_at_1_exactly_and_stays_between(name: str) -> None:
    eased = [EASINGS[name](t) for t in TIMES]
    assert (eased[0], eased[-1]) == (0, 1)
    assert min(eased) >= 0
    assert max(eased) <= 1


@pytest.mark.parametrize("name", [name for name in EASINGS if name != "bounce_out"])
def test_every_easing_but_the_bounce_only_goes_forward(name: str) -> None:
    eased = [EASINGS[name](t) for t in TIMES]
    assert all(before < after for before, after in itertools.pairwise(eased))


def test_the_bounce_touches_its_end_four_times_and_is_back_between() -> None:
    bounce = EASINGS["bounce_out"]
    assert [round(bounce(t), 12) for t in (4 / 11, 8 / 11, 10 / 11, 1.0)] == [1, 1, 1, 1]
    assert [bounce(t) for t in (6 / 11, 9 / 11, 21 / 22)] == pytest.approx([3 / 4, 15 / 16, 63 / 64])


def test_what_is_slow_at_first_is_the_mirror_image_of_what_is_slow_at_last() -> None:
    for kind in ("sine", "quad", "cubic"):
        for t in TIMES:
            assert EASINGS[f"out_{kind}"](t) == pytest.approx(1 - EASINGS[f"in_{kind}"](1 - t), abs=1e-12)
            assert EASINGS[f"in_out_{kind}"](t) == pytest.approx(1 - EASINGS[f"in_out_{kind}"](1 - t), abs=1e-12)


def test_easings_are_the_curves_they_are_named_for() -> None:
    assert EASINGS["in_quad"](0.3) == pytest.approx(0.09)
    assert EASINGS["out_cubic"](0.3) == pytest.approx(1 - 0.7**3)
    assert EASINGS["in_out_quad"](0.25) == pytest.approx(2 * 0.25**2)
    assert EASINGS["in_out_sine"](0.3) == pytest.approx((1 - math.cos(math.pi * 0.3)) / 2)
    assert EASINGS["circular_out"](0.3) == pytest.approx(math.sqrt(1 - 0.7**2))
    assert EASINGS["circular_in_out"](0.3) == pytest.approx((1 - math.sqrt(1 - 0.6**2)) / 2)
