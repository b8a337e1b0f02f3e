from itertools import product
from math import exp, log, log1p

import pytest
import torch

from models.objectives.losses import LOSSES, matching_loss

PAIRS = [(0.0, 0.0), (2.0, -1.0), (-3.0, 0.5), (0.1, 4.0)]


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def values(name: str, real: float, fake: float) -> tuple[float, float]:
    logits = torch.tensor([real]), torch.tensor([fake])
    return LOSSES[name].discriminator(*logits).item(), LOSSES[name].generator(*logits).item()


@pytest.mark.parametrize(("real", "fake"), PAIRS)
def test_bce_is_the_cross_entropy_of_the_verdicts(real: float, fake: float) -> None:
    d, g = values("bce", real, fake)
    assert d == pytest.approx(-log(sigmoid(real)) - log(1 - sigmoid(fake)), rel=1e-5)
    assert g == pytest.approx(-log(sigmoid(fake)), rel=1e-5)


@pytest.mark.parametrize(("real", "fake"), PAIRS)
def test_relativistic_is_the_cross_entropy_of_which_of_the_pair_is_real(real: float, fake: float) -> None:
    d, g = values("relativistic", real, fake)
    assert d == pytest.approx(-log(sigmoid(real - fake)), rel=1e-5)
    assert g == pytest.approx(-log(sigmoid(fake - real)), rel=1e-5)


@pytest.mark.parametrize(
    ("real", "fake", "d", "g"),
    [(0.0, 0.0, 2.0, 0.0), (2.0, -1.0, 0.0, 1.0), (-3.0, 0.5, 5.5, -0.5), (0.25, -0.5, 1.25, 0.5), (1.0, 4.0, 5, -4.0)],
)
def test_hinge_counts_what_each_verdict_lacks_to_the_margin(real: float, fake: float, d: float, g: float) -> None:
    assert values("hinge", real, fake) == pytest.approx((d, g))


def test_hinge_asks_no_more_of_d_than_the_margin() -> None:
    real = torch.tensor([1.5, 0.5], requires_grad=True)
    fake = torch.tensor([-1.5, -0.5], requires_grad=True)
    slopes = torch.autograd.grad(LOSSES["hinge"].discriminator(real, fake).sum(), (real, fake))
    assert [slope.tolist() for slope in slopes] == [[0.0, -1.0], [0.0, 1.0]]


def test_wasserstein_is_the_distance_that_the_critic_sees_and_ignores_its_zero() -> None:
    real, fake = torch.tensor([[3.0, 1.0], [0.5, 2.5]]), torch.tensor([[1.0, -2.0], [0.0, 2.0]])
    loss = LOSSES["wasserstein"]
    assert loss.discriminator(real, fake).mean().item() == pytest.approx(-(7.0 / 4 - 1.0 / 4))
    torch.testing.assert_close(loss.discriminator(real + 9, fake + 9), loss.discriminator(real, fake))
    assert loss.generator(real, fake).tolist() == [[-1.0, 2.0], [0.0, -2.0]]


@pytest.mark.parametrize("name", LOSSES)
def test_logits_of_many_places_are_judged_one_by_one(name: str) -> None:
    real, fake = torch.randn(4, 5), torch.randn(4, 5)
    for side in LOSSES[name]:
        together = side(real, fake)
        assert together.shape == (4, 5)
        for i, j in product(range(4), range(5)):
            torch.testing.assert_close(together[i, j], side(real[i, j], fake[i, j]))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_stays_finite_for_extreme_logits(name: str) -> None:
    real, fake = torch.tensor([1e4, -1e4, 0.0]), torch.tensor([-1e4, 1e4, 0.0])
    for side in LOSSES[name]:
        assert side(real, fake).shape == (3,)
        assert side(real, fake).isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_each_side_wants_the_opposite_of_the_painted_logits(name: str) -> None:
    for side, sign in zip(LOSSES[name], (1, -1), strict=True):
        fake = torch.tensor([[0.3, -0.2]], requires_grad=True)
        (slope,) = torch.autograd.grad(side(torch.tensor([[0.1, 0.4]]), fake).sum(), fake)
        assert slope.sign().tolist() == [[sign, sign]]


def same_texts(texts: str) -> torch.Tensor:
    return torch.tensor([[a == b for b in texts] for a in texts])


def test_matching_is_the_mean_cross_entropy_of_a_pictures_own_text_against_every_other() -> None:
    match = 3 * torch.randn(6, 6, dtype=torch.float64)
    same = same_texts("abcaad")
    expected = []
    for i in range(6):
        others = [j for j in range(6) if not same[i, j]]
        expected.append(sum(log1p(exp(float(match[i, j] - match[i, i]))) for j in others) / len(others))
    assert matching_loss(match, same).tolist() == pytest.approx(expected)


def test_matching_two_captions_is_relativistic_pairing_of_the_right_with_the_wrong() -> None:
    match = torch.tensor([[2.0, -1.0], [0.5, 0.25]])
    expected = LOSSES["relativistic"].discriminator(torch.tensor([2.0, 0.25]), torch.tensor([-1.0, 0.5]))
    torch.testing.assert_close(matching_loss(match, same_texts("ab")), expected)


def test_a_picture_without_another_text_has_no_matching_loss_and_no_slope() -> None:
    match = torch.full((3, 3), 80.0, requires_grad=True)
    loss = matching_loss(match, same_texts("aaa"))
    assert loss.tolist() == [0.0, 0.0, 0.0]
    (slope,) = torch.autograd.grad(loss.sum(), match)
    assert slope.tolist() == [[0.0] * 3] * 3
    assert matching_loss(torch.zeros(1, 1), same_texts("a")).tolist() == [0.0]


def test_texts_that_are_true_of_the_picture_too_neither_count_nor_learn() -> None:
    match = torch.randn(4, 4, requires_grad=True)
    same = same_texts("abca")
    loss = matching_loss(match, same)
    (slope,) = torch.autograd.grad(loss.sum(), match)
    off_diagonal = ~torch.eye(4, dtype=torch.bool)
    assert (slope[same & off_diagonal] == 0).all()
    assert (slope[~same] > 0).all()
    assert (slope.diagonal() < 0).all()
    wild = match.detach().masked_fill(same & off_diagonal, 1e4)
    torch.testing.assert_close(matching_loss(wild, same), loss.detach())


def test_the_slope_of_the_matching_loss_is_what_finite_differences_give() -> None:
    match = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: matching_loss(given, same_texts("abcb")), (match,))


def test_matching_stays_finite_for_extreme_fits() -> None:
    match = torch.tensor([[1e4, -1e4], [1e4, -1e4]], requires_grad=True)
    loss = matching_loss(match, same_texts("ab"))
    assert loss.tolist() == [0.0, 2e4]
    (slope,) = torch.autograd.grad(loss.sum(), match)
    assert slope.tolist() == [[0.0, 0.0], [1.0, -1.0]]
