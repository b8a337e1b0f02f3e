from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.config import TrainConfig
from models.objectives.augment import augment
from models.objectives.penalties import gradient_penalty


def test_the_penalty_of_a_linear_critic_is_its_squared_weight_for_every_picture() -> None:
    weight = torch.randn(3, 4, 4)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    logits = (images * weight).sum(dim=(1, 2, 3))
    torch.testing.assert_close(gradient_penalty(images, logits), weight.square().sum().expand(5))


def test_the_penalty_of_a_quadratic_critic_is_four_times_its_squared_input() -> None:
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    logits = images.square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(gradient_penalty(images, logits), 4 * images.square().sum(dim=(1, 2, 3)))


@pytest.fixture
def critic() -> nn.Sequential:
    """A smooth critic of 8 px pictures, in doubles so that small steps can be trusted."""
    layers = (nn.Conv2d(3, 4, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(256, 1), nn.Flatten(0))
    return nn.Sequential(*layers).double()


def logits(critic: nn.Module, images: Tensor, config: TrainConfig) -> Tensor:
    torch.manual_seed(7)  # the same shifts and cuts every time
    return critic(augment(images, config))  # type: ignore[no-any-return]


def test_the_penalty_through_augmentation_is_what_finite_differences_of_the_logit_give(
    critic: nn.Module, small_config: Callable[..., TrainConfig]
) -> None:
    config = small_config(cutout_fraction=0.25)
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    computed = gradient_penalty(images, logits(critic, images, config))
    step, total = 1e-5, 0.0
    with torch.no_grad():
        for nudge in step * torch.eye(images.numel(), dtype=torch.float64).view(-1, 1, 3, 8, 8):
            rise = logits(critic, images + nudge, config) - logits(critic, images - nudge, config)
            total += float(rise / (2 * step)) ** 2
    assert float(computed.detach()) == pytest.approx(total, rel=1e-6)


def test_the_penalty_itself_can_be_differentiated_through_augmentation(
    critic: nn.Sequential, small_config: Callable[..., TrainConfig]
) -> None:
    config = small_config(cutout_fraction=0.25)
    images = torch.rand(4, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    weight = critic.get_parameter("0.weight")
    (gradient,) = torch.autograd.grad(gradient_penalty(images, logits(critic, images, config)).sum(), weight)
    along, step = torch.randn_like(weight), 1e-5

    def penalty_at(distance: float) -> Tensor:
        moved = {"0.weight": (weight + distance * along).detach()}
        torch.manual_seed(7)
        answers = torch.func.functional_call(critic, moved, (augment(images, config),))
        return gradient_penalty(images, answers).sum().detach()

    rise = (penalty_at(step) - penalty_at(-step)) / (2 * step)
    assert float((gradient * along).sum()) == pytest.approx(float(rise), rel=1e-5)
