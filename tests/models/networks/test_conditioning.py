import pytest
import torch
from torch.distributions import Normal, kl_divergence

from models.config import TextConfig
from models.networks.conditioning import CaptionAugmentation, TextVector


def text_vector(features: int = 12, dim: int = 5) -> TextVector:
    return TextVector(TextConfig(encoder="hashed-64", features=features, dim=dim))


def test_a_text_vector_is_three_dense_layers_over_weighed_features_of_length_one() -> None:
    network = text_vector()
    network.weight.copy_(torch.rand(12))
    torch.nn.init.normal_(network.hidden.bias)
    features = torch.rand(4, 12)
    found = network(features)
    for row in range(4):
        x = features[row] * network.weight
        x = x / x.square().sum().sqrt()
        for layer, curved in ((network.embed, True), (network.hidden, True), (network.out, False)):
            x = layer.weight @ x + (0 if layer.bias is None else layer.bias)
            x = torch.where(x > 0, x, 0.2 * x) if curved else x
        torch.testing.assert_close(found[row], x)


def test_first_weights_keep_a_text_of_one_word_and_one_of_many_at_the_scale_of_one() -> None:
    network = text_vector(features=4096, dim=256)
    words = torch.zeros(64, 4096)
    for row in range(64):
        words[row, torch.randperm(4096)[: 1 + row]] = 1
    spread = network(words).detach().std(dim=1)
    assert 0.5 < float(spread.min()) <= float(spread.max()) < 2


def test_features_of_no_caption_are_silent_and_alone_they_are_no_text() -> None:
    network = text_vector()
    network.weight[6:] = 0
    known, unknown = torch.zeros(1, 12), torch.zeros(1, 12)
    known[0, :3], unknown[0, 6:] = torch.rand(3), 100.0
    assert torch.equal(network(known + unknown), network(known))
    assert torch.equal(network(unknown), network(torch.zeros(1, 12)))
    assert not torch.equal(network(known), network(unknown))


def test_a_text_said_twice_as_loud_is_the_same_text() -> None:
    network = text_vector()
    features = torch.rand(3, 12)
    torch.testing.assert_close(network(features), network(2 * features))


def test_a_text_vector_keeps_its_precision_under_autocast() -> None:
    network, features = text_vector(), torch.rand(3, 12)
    exact = network(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(network(features), exact)


def augmentation(dim: int = 3) -> CaptionAugmentation:
    """Whose variance depends on the text; at first it does not."""
    network = CaptionAugmentation(dim)
    torch.nn.init.normal_(network.log_variance.weight)
    torch.nn.init.normal_(network.log_variance.bias)
    return network


def test_at_first_the_variation_around_a_text_has_a_fifth_of_a_standard_normals_deviation() -> None:
    network = CaptionAugmentation(4)
    torch.testing.assert_close((network.log_variance(torch.randn(2, 4)) / 2).exp(), torch.full((2, 4), 0.2))


def test_in_evaluation_a_text_is_its_middle_and_in_training_a_draw_around_it() -> None:
    network, text = augmentation(), torch.randn(1, 3)
    middle = text @ network.mean.weight.T + network.mean.bias
    torch.testing.assert_close(network.eval()(text), middle)
    draws = network.train()(text.expand(40_000, 3)).detach()
    deviation = ((text @ network.log_variance.weight.T + network.log_variance.bias)[0] / 2).exp().detach()
    assert float(((draws.mean(dim=0) - middle[0].detach()) / deviation).abs().max()) < 5 / 40_000**0.5
    torch.testing.assert_close(draws.std(dim=0), deviation, rtol=0.02, atol=0)
    correlations = torch.corrcoef(draws.T) - torch.eye(3)
    assert float(correlations.abs().max()) < 0.03


def test_the_divergence_is_that_of_two_normal_distributions() -> None:
    network, text = augmentation(), torch.randn(5, 3)
    mean, log_variance = network.mean(text), network.log_variance(text)
    drawn_from = Normal(mean, (log_variance / 2).exp())
    standard = Normal(torch.zeros(5, 3), torch.ones(5, 3))
    torch.testing.assert_close(network.divergence(text), kl_divergence(drawn_from, standard).mean(dim=1))


def test_the_divergence_keeps_its_precision_under_autocast() -> None:
    network, text = CaptionAugmentation(3), torch.randn(5, 3)
    exact = network.divergence(text)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(network.divergence(text), exact)


@pytest.mark.parametrize("training", [True, False])
def test_each_picture_is_varied_by_itself(training: bool) -> None:
    network, text = augmentation().train(training), torch.randn(1, 3)
    first, second = network(text.expand(2, 3))
    assert torch.equal(first, second) != training
