"""Where which colours are: what a picture of a caption should share with the one picture that has this caption."""

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

GRID = 8  # cells a side: colours and large shapes, and no stroke or edge that could be copied


def layout_loss(fake: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference of two pictures' colours over a coarse grid, [N]; both [N, C, H, W].

    After the L1 term of Isola et al., arXiv:1611.07004, eq. 3, for which every picture of a pair is known as here.
    """
    return (adaptive_avg_pool2d(fake, GRID) - adaptive_avg_pool2d(real, GRID)).abs().mean(dim=(1, 2, 3))
