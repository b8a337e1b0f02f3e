"""Style mixing: one picture's layout with another's colours."""

from collections.abc import Sequence

from torch import Tensor

from models.errors import ModelsError


def mix_layers(w: Tensor, w_other: Tensor, layers: Sequence[int]) -> Tensor:
    """w with the given layers taken from w_other; both [N, num_ws, w_dim]. arXiv:1812.04948, 3.1."""
    num_ws = w.shape[1]
    for layer in layers:
        if not 0 <= layer < num_ws:
            raise ModelsError(f"Layer {layer} does not exist; this model has layers 0 to {num_ws - 1}.")
    mixed = w.clone()
    mixed[:, list(layers)] = w_other[:, list(layers)]
    return mixed
