"""How good and how varied: precision, recall, density and coverage of one set of points by another."""

from typing import NamedTuple

import torch
from torch import Tensor


class Neighbourhoods(NamedTuple):
    """Shares of points that lie in k-nearest-neighbour balls of the other set.

    precision: painted pictures near a real one; recall: real pictures near a painted one (Kynkäänniemi et al.,
    arXiv:1904.06991). density: how many real neighbourhoods a painted picture lies in, over k, without an upper bound;
    coverage: real pictures with a painted one in their neighbourhood (Naeem et al., arXiv:2002.09797).
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhoods(real: Tensor, fake: Tensor, k_recall: int = 3, k_coverage: int = 5) -> Neighbourhoods:
    """real [N, F] and fake [M, F], with N and M above k_coverage; the ks are those of the papers.

    In doubles, as a small distance is the difference of two large squares.
    """
    apart = torch.cdist(real.double(), fake.double())  # [N, M]
    real_radii, fake_radii = _radii(real, k_recall), _radii(fake, k_recall)
    coverage_radii = _radii(real, k_coverage)
    inside = apart < coverage_radii[:, None]
    return Neighbourhoods(
        precision=_share((apart < real_radii[:, None]).any(dim=0)),
        recall=_share((apart < fake_radii[None, :]).any(dim=1)),
        density=float(inside.sum(dim=0).double().mean() / k_coverage),
        coverage=_share(inside.any(dim=1)),
    )


def _radii(points: Tensor, k: int) -> Tensor:
    """Distance of each point to its k-th nearest other, [N]."""
    distances = torch.cdist(points.double(), points.double()).fill_diagonal_(0)
    return distances.kthvalue(k + 1, dim=1).values  # the nearest is the point itself


def _share(which: Tensor) -> float:
    return float(which.double().mean())
