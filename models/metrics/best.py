"""Which of two checkpoints is the better: the nearer to the real pictures, among those that cover enough of them."""

from collections.abc import Mapping

COVERAGE_SHARE = 0.8  # of the coverage that other real pictures reach; below it, few kinds of pictures look good alone


def is_better(new: Mapping[str, float], best: Mapping[str, float] | None) -> bool:
    """Whether `new`, the metrics of the later checkpoint, beats the best so far; equals go to the later."""
    return best is None or _rank(new) <= _rank(best)


def _rank(metrics: Mapping[str, float]) -> tuple[int, float]:
    """Lower is better: those that cover enough before the others, and the unmeasured last."""
    if "swd" not in metrics:
        return 2, 0.0
    covers = metrics["coverage"] >= COVERAGE_SHARE * metrics["coverage_floor"]
    return (0 if covers else 1), metrics["swd"]
