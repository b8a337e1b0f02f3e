from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from models.config import TrainConfig
from models.objectives.augment import augment
from models.objectives.penalties import gradient_penalty, interpolated, unit_gradient_penalty

PENALTIES = [gradient_penalty, unit_gradient_penalty]
OPERATIONS = [(), ("color",), ("translation",), ("cutout",), ("color", "translation", "cutout")]


def test_the_penalty_of_a_linear_critic_is_its_squared_weight_for_every_picture() -> None:
    weight = torch.randn(3, 4, 4)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    logits = (images * weight).sum(dim=(1, 2, 3))
    torch.testing.assert_close(gradient_penalty(images, logits), weight.square().sum().expand(5))


def test_the_penalty_of_a_quadratic_critic_is_four_times_its_squared_input() -> None:
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    logits = images.square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(gradient_penalty(images, logits), 4 * images.square().sum(dim=(1, 2, 3)))


def test_the_penalty_of_logits_of_many_places_is_that_of_their_mean() -> None:
    weights = torch.randn(7, 3, 4, 4)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    logits = images.flatten(1) @ weights.flatten(1).T  # [5, 7]
    torch.testing.assert_close(gradient_penalty(images, logits), weights.mean(dim=0).square().sum().expand(5))


def test_the_unit_penalty_of_a_linear_critic_is_the_squared_distance_of_its_length_from_one() -> None:
    weight = torch.randn(3, 4, 4)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    for length in (0.25, 1.0, 3.0):
        logits = (images * weight / weight.norm() * length).sum(dim=(1, 2, 3))
        torch.testing.assert_close(unit_gradient_penalty(images, logits), torch.full((5,), (length - 1) ** 2))


def test_the_unit_penalty_of_a_quadratic_critic_follows_each_pictures_own_length() -> None:
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    logits = images.square().sum(dim=(1, 2, 3), keepdim=True).flatten(1)  # [5, 1]
    lengths = torch.tensor([2 * float(image.norm()) for image in images.detach()])
    torch.testing.assert_close(unit_gradient_penalty(images, logits), (lengths - 1) ** 2)


def test_the_unit_penalty_of_logits_of_many_places_is_that_of_their_mean() -> None:
    weights = torch.randn(7, 3, 4, 4)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    logits = images.flatten(1) @ weights.flatten(1).T  # [5, 7]
    expected = (float(weights.mean(dim=0).norm()) - 1) ** 2
    torch.testing.assert_close(unit_gradient_penalty(images, logits), torch.full((5,), expected))


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_flat_critic_has_a_penalty_and_slopes_that_are_numbers(penalty: Callable[[Tensor, Tensor], Tensor]) -> None:
    weight = torch.zeros(3, 4, 4, requires_grad=True)
    images = torch.randn(2, 3, 4, 4, requires_grad=True)
    found = penalty(images, (images * weight).sum(dim=(1, 2, 3)))
    assert found.tolist() == [1.0, 1.0] if penalty is unit_gradient_penalty else [0.0, 0.0]
    (slope,) = torch.autograd.grad(found.sum(), weight)
    assert torch.equal(slope, torch.zeros_like(weight))


def test_interpolated_pictures_lie_between_each_pair_by_its_own_share_of_the_real() -> None:
    real, fake = torch.randn(3, 3, 4, 4, requires_grad=True), torch.randn(3, 3, 4, 4)
    between = interpolated(real, fake, torch.tensor([0.0, 0.25, 1.0]))
    assert between.is_leaf
    assert between.requires_grad
    found, ends = between.detach().numpy(), (real.detach().numpy(), fake.numpy())
    assert (found[0] == ends[1][0]).all()
    assert found[1] == pytest.approx(0.25 * ends[0][1] + 0.75 * ends[1][1], rel=1e-5, abs=1e-6)
    assert (found[2] == ends[0][2]).all()


def test_between_two_clusters_a_unit_slope_costs_nothing() -> None:
    """The distance from the painted cluster, D's optimum for two points, is 1-steep all the way to the real one."""
    painted, real = torch.zeros(8, 3, 2, 2), torch.ones(8, 3, 2, 2)
    between = interpolated(real, painted, torch.rand(8) * 0.9 + 0.1)
    distance = between.square().sum(dim=(1, 2, 3)).sqrt()[:, None]
    torch.testing.assert_close(unit_gradient_penalty(between, distance), torch.zeros(8), rtol=0, atol=1e-10)


@pytest.fixture
def critic() -> nn.Sequential:
    """A smooth critic of 6 px pictures with three logits, in doubles so that small steps can be trusted."""
    layers = (nn.Conv2d(3, 2, 3, stride=2, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(18, 3))
    return nn.Sequential(*layers).double()


def answers(critic: nn.Sequential, weight: Tensor, images: Tensor, config: TrainConfig) -> Tensor:
    torch.manual_seed(7)  # the same changes every time
    return functional_call(critic, {"0.weight": weight}, (augment(images, config, 0.8),))  # type: ignore[no-any-return]


@pytest.mark.parametrize("operations", OPERATIONS)
def test_penalties_through_augmentation_are_what_finite_differences_of_the_logits_give(
    critic: nn.Sequential, small_config: Callable[..., TrainConfig], operations: tuple[str, ...]
) -> None:
    config = small_config(augment=operations, cutout_fraction=0.4)
    weight = critic.get_parameter("0.weight")
    images = torch.rand(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    step, slopes = 1e-5, torch.zeros(2, 108, dtype=torch.float64)
    with torch.no_grad():
        for place, nudge in enumerate(step * torch.eye(108, dtype=torch.float64).view(108, 1, 3, 6, 6)):
            rise = answers(critic, weight, images + nudge, config) - answers(critic, weight, images - nudge, config)
            slopes[:, place] = rise.sum(dim=1) / (2 * step)
    logits = answers(critic, weight, images, config)
    lengths = slopes.norm(dim=1)
    torch.testing.assert_close(gradient_penalty(images, logits).detach(), (lengths / 3) ** 2, rtol=1e-7, atol=0)
    torch.testing.assert_close(
        unit_gradient_penalty(images, logits).detach(), (lengths / 3 - 1) ** 2, rtol=1e-7, atol=0
    )


@pytest.mark.parametrize("operations", OPERATIONS)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_slopes_of_penalties_through_augmentation_are_what_finite_differences_of_the_penalties_give(
    critic: nn.Sequential,
    small_config: Callable[..., TrainConfig],
    penalty: Callable[[Tensor, Tensor], Tensor],
    operations: tuple[str, ...],
) -> None:
    config = small_config(augment=operations, cutout_fraction=0.4)
    weight = critic.get_parameter("0.weight")
    images = torch.rand(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)

    def penalised(weight: Tensor, images: Tensor) -> Tensor:
        return penalty(images, answers(critic, weight, images, config))

    assert torch.autograd.gradcheck(penalised, (weight, images), fast_mode=True)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalties_can_be_differentiated_twice(
    critic: nn.Sequential, penalty: Callable[[Tensor, Tensor], Tensor]
) -> None:
    images = torch.rand(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)

    def penalised(weight: Tensor) -> Tensor:
        return penalty(images, functional_call(critic, {"0.weight": weight}, (images,)))

    assert torch.autograd.gradgradcheck(penalised, (critic.get_parameter("0.weight"),), fast_mode=True)
