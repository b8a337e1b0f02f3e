import pytest
import torch

from models.errors import ModelsError
from models.latents.mixing import mix_layers


def test_mixed_layers_come_from_the_other_picture_and_the_rest_stays() -> None:
    w, other = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    before = w.clone()
    mixed = mix_layers(w, other, [1, 4])
    assert torch.equal(mixed[:, [1, 4]], other[:, [1, 4]])
    assert torch.equal(mixed[:, [0, 2, 3]], w[:, [0, 2, 3]])
    assert torch.equal(w, before)


@pytest.mark.parametrize("layer", [-1, 5])
def test_a_layer_that_does_not_exist_is_refused_with_those_that_do(layer: int) -> None:
    with pytest.raises(ModelsError, match=f"Layer {layer} does not exist; this model has layers 0 to 4"):
        mix_layers(torch.zeros(1, 5, 3), torch.zeros(1, 5, 3), [layer])
