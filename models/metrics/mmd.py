"""How far two sets of points are apart, without bias for their number. Binkowski et al., arXiv:1801.01401 (KID)."""

from torch import Tensor


def squared_mmd(a: Tensor, b: Tensor) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy of a [N, F] and b [M, F], N and M above 1.

    With the cubic kernel k(x, y) = (x.y / F + 1)^3, which compares the sets' first three moments. Two sets of one kind
    give 0 in the mean, and less than 0 as often as more.
    """
    a, b = a.double(), b.double()
    return _mean_of_others(_kernel(a, a)) + _mean_of_others(_kernel(b, b)) - 2 * float(_kernel(a, b).mean())


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3  # [N, M]


def _mean_of_others(kernel: Tensor) -> float:
    """Mean over the pairs of different points: a point with itself would bias it."""
    count = len(kernel)
    return float((kernel.sum() - kernel.trace()) / (count * (count - 1)))
