from math import exp, log

import pytest
import torch

from models.objectives.losses import LOSSES

PAIRS = [(0.0, 0.0), (2.0, -1.0), (-3.0, 0.5), (0.1, 4.0)]


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


@pytest.mark.parametrize(("real", "fake"), PAIRS)
def test_bce_is_the_cross_entropy_of_the_verdicts(real: float, fake: float) -> None:
    loss = LOSSES["bce"]
    d = loss.discriminator(torch.tensor([real]), torch.tensor([fake]))
    g = loss.generator(torch.tensor([real]), torch.tensor([fake]))
    assert d.item() == pytest.approx(-log(sigmoid(real)) - log(1 - sigmoid(fake)), rel=1e-5)
    assert g.item() == pytest.approx(-log(sigmoid(fake)), rel=1e-5)


@pytest.mark.parametrize(("real", "fake"), PAIRS)
def test_relativistic_is_the_cross_entropy_of_which_of_the_pair_is_real(real: float, fake: float) -> None:
    loss = LOSSES["relativistic"]
    d = loss.discriminator(torch.tensor([real]), torch.tensor([fake]))
    g = loss.generator(torch.tensor([real]), torch.tensor([fake]))
    assert d.item() == pytest.approx(-log(sigmoid(real - fake)), rel=1e-5)
    assert g.item() == pytest.approx(-log(sigmoid(fake - real)), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_has_one_value_a_pair_and_stays_finite_for_extreme_logits(name: str) -> None:
    real, fake = torch.tensor([1e4, -1e4, 0.0]), torch.tensor([-1e4, 1e4, 0.0])
    for values in (LOSSES[name].discriminator(real, fake), LOSSES[name].generator(real, fake)):
        assert values.shape == (3,)
        assert values.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_each_side_wants_the_opposite_of_the_painted_logits(name: str) -> None:
    for side, sign in ((LOSSES[name].discriminator, 1), (LOSSES[name].generator, -1)):
        fake = torch.tensor([0.3], requires_grad=True)
        (slope,) = torch.autograd.grad(side(torch.tensor([0.1]), fake).sum(), fake)
        assert slope.sign().item() == sign
