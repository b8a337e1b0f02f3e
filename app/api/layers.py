"""Layers of w, as requests name them."""

from collections.abc import Sequence

from app.core.errors import InvalidRequest
from app.serving.point import MAX_LAYERS
from models.errors import SeedsInvalid
from models.latents.seeds import parse_seeds


def layers_of(wish: str | Sequence[int], num_ws: int, param: str = "layers") -> list[int]:
    """Layers of "0-3", "0,2" or a list, each once and rising. Raises InvalidRequest for those a model has not."""
    try:
        named = parse_seeds(wish, limit=MAX_LAYERS) if isinstance(wish, str) else list(wish)
    except SeedsInvalid as error:
        message = f"{param} is {wish[:40]!r}; name layers as 0-3, 0,2 or a list."
        raise InvalidRequest(message, param=param) from error
    layers = sorted(set(named))
    has = f"layers 0 to {num_ws - 1}" if num_ws > 1 else "layer 0 alone"
    if not layers:
        raise InvalidRequest(f"{param} names no layer; this model has {has}.", param=param)
    for layer in (layers[0], layers[-1]):
        if not 0 <= layer < num_ws:
            raise InvalidRequest(f"{param} asks for layer {layer}; this model has {has}.", param=param)
    return layers
