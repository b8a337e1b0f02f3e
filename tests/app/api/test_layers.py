"""Layers are written in one way everywhere, and those a model has not are refused."""

import pytest

from app.api.layers import layers_of
from app.core.errors import InvalidRequest


@pytest.mark.parametrize(
    ("wish", "layers"), [("0-3", [0, 1, 2, 3]), ("2,0", [0, 2]), ([3, 1, 3], [1, 3]), ("3", [3]), ("0,2-3", [0, 2, 3])]
)
def test_layers_come_once_each_and_rising(wish: str | list[int], layers: list[int]) -> None:
    assert layers_of(wish, 4) == layers


@pytest.mark.parametrize("wish", ["4", [-1], [0, 99], "", [], "a-b", "3-1", "0-9999999999"])
def test_what_names_no_layer_of_the_model_is_refused(wish: str | list[int]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        layers_of(wish, 4, "amounts.layers")
    assert refused.value.param == "amounts.layers"
