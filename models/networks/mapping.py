"""The mapping network: z to w."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from models.config import NetworkConfig
from models.networks.layers import LEAK


class Mapping(nn.Module):
    """z [N, z_dim] -> w [N, num_ws, w_dim]: a few dense layers, or the identity where there are none.

    Before dense layers z is brought to length sqrt(z_dim), so that only its direction counts (arXiv:1812.04948, C).
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.num_ws = config.num_ws
        sizes = [config.z_dim] + [config.w_dim] * config.mapping_layers
        self.layers = nn.ModuleList(_dense(i, o) for i, o in pairwise(sizes))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        w = z
        if self.layers:
            w = functional.normalize(z, dim=1) * z.shape[1] ** 0.5
        for layer in self.layers:
            w = functional.leaky_relu(layer(w), LEAK)
        return w[:, None, :].repeat(1, self.num_ws, 1)


def _dense(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(layer.weight, LEAK)
    nn.init.zeros_(layer.bias)
    return layer
