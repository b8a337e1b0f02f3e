"""The report of a snapshot: how far its pictures are from the real ones, beside what is possible."""

import numpy as np
from numpy.typing import NDArray

from models.metrics.coverage import neighbourhoods
from models.metrics.features import FeatureSpace
from models.metrics.swd import sliced_wasserstein

REPORT_IMAGES = 512  # of each set: seconds on a CPU, and enough for a trend
REPORT_PROJECTIONS = 128


def quick_report(
    real: NDArray[np.uint8], fake: NDArray[np.uint8], seed: int = 0, images: int = REPORT_IMAGES
) -> dict[str, float]:
    """Measures of painted pictures against real ones, both uint8 [N, R, R, C], by name.

    A measure ending in _floor is what other real pictures reach in the painted ones' place: half of the reals is the
    reference, the other half gives the floor, and as many painted pictures are measured.
    """
    count = min(images, len(real) // 2, len(fake))
    drawn = np.random.RandomState(seed).permutation(len(real))[: 2 * count]
    reference, others, painted = real[np.sort(drawn[:count])], real[np.sort(drawn[count:])], fake[:count]
    space = FeatureSpace.fit(reference)
    here, floor = (neighbourhoods(space.project(reference), space.project(x)) for x in (painted, others))
    return {
        "swd": sliced_wasserstein(reference, painted, seed, REPORT_PROJECTIONS).mean,
        "swd_floor": sliced_wasserstein(reference, others, seed, REPORT_PROJECTIONS).mean,
        "precision": here.precision,
        "recall": here.recall,
        "density": here.density,
        "coverage": here.coverage,
        "coverage_floor": floor.coverage,
    }
