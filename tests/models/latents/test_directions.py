from collections.abc import Callable

import numpy as np
import pytest
import torch

from models.config import TrainConfig
from models.errors import ModelsError
from models.latents.directions import MATCHED, match, pca, sefa, style_weights
from models.latents.mixing import mix_layers
from models.latents.samples import sample_w
from models.networks.generator import Generator
from models.registry import build_generator


def _same_up_to_sign(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.abs(np.sum(found * expected, axis=1)), 1, atol=1e-5)


@pytest.mark.parametrize("layers", [None, [0], [1, 3]])
def test_sefa_finds_the_top_right_singular_vectors_of_the_first_weights(
    small_generator: Generator, layers: list[int] | None
) -> None:
    found = sefa(small_generator, 4, layers, samples=500)
    weights = style_weights(small_generator)
    a = torch.cat([weights[layer] for layer in layers or range(4)])
    _same_up_to_sign(found.vectors, torch.linalg.svd(a.detach().double()).Vh[:4].numpy())


def test_pca_finds_the_eigenvectors_of_the_covariance_of_w(small_generator: Generator) -> None:
    found = pca(small_generator, 3, samples=2000, seed=5)
    z = np.random.RandomState(5).randn(2000, 8).astype(np.float32)
    with torch.no_grad():
        w = small_generator.mapping(torch.from_numpy(z))[:, 0].numpy()
    values, vectors = np.linalg.eigh(np.cov(w.T.astype(np.float64)))
    _same_up_to_sign(found.vectors, vectors[:, ::-1].T[:3])
    np.testing.assert_allclose(found.sigma, np.sqrt(values[::-1][:3]), rtol=1e-4)
    np.testing.assert_allclose(found.share, values[::-1][:3] / values.sum(), rtol=1e-4)


@pytest.mark.parametrize("find", [sefa, pca])
def test_directions_are_orthonormal_and_say_how_far_w_spreads_along_them(
    small_generator: Generator, find: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> None:
    vectors, sigma, share = find(small_generator, 8)
    assert vectors.dtype == sigma.dtype == share.dtype == np.float32
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(8), atol=1e-5)
    np.testing.assert_allclose(share.sum(), 1, atol=1e-5)  # 8 of 8
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    assert (largest > 0).all()
    other = sample_w(small_generator, 5000, seed=77).numpy()
    np.testing.assert_allclose(sigma, (other @ vectors.T).std(axis=0), rtol=0.05)
    np.testing.assert_array_equal(find(small_generator, 8)[0], vectors)


def test_one_sigma_counts_what_differs_between_texts_too(prompted_generator: Generator) -> None:
    alone = sefa(prompted_generator, 3)
    prompted_generator.captions = ("red leaf", "green leaf", "bark", "a tall tree in the snow")
    among_texts = sefa(prompted_generator, 3)
    np.testing.assert_array_equal(alone.vectors, among_texts.vectors)
    assert (among_texts.sigma > 1.1 * alone.sigma).all()


def test_without_a_mapping_sefa_finds_directions_of_z_and_pca_says_that_there_are_none(
    small_config: Callable[..., TrainConfig],
) -> None:
    generator = build_generator(small_config("classic").network)
    found = sefa(generator, 3)
    kernel = generator.synthesis.get_parameter("start.weight").detach().flatten(1).double()  # [w_dim, outputs]
    _same_up_to_sign(found.vectors, torch.linalg.svd(kernel).U[:, :3].T.numpy())
    np.testing.assert_allclose(found.sigma, 1, atol=0.03)
    with pytest.raises(ModelsError, match="w is z and varies as much in every direction; use sefa"):
        pca(generator, 3)


@pytest.mark.parametrize(("count", "layers"), [(0, None), (9, None), (1, []), (1, [4]), (1, [-1])])
def test_directions_and_layers_that_a_model_has_not_got_are_refused(
    small_generator: Generator, count: int, layers: list[int] | None
) -> None:
    with pytest.raises(ModelsError, match=r"1 to 8|0 to 3"):
        sefa(small_generator, count, layers)


def test_no_step_changes_nothing_and_steps_along_a_direction_change_ever_more(small_generator: Generator) -> None:
    found = sefa(small_generator, 2)
    w = sample_w(small_generator, 6)[:, None].repeat(1, 4, 1)
    with torch.no_grad():
        x = small_generator.synthesis(w)
        for vector, sigma in zip(torch.from_numpy(found.vectors), found.sigma, strict=True):
            assert torch.equal(small_generator.synthesis(w + 0.0 * sigma * vector), x)
            changes = [small_generator.synthesis(w + amount * sigma * vector) - x for amount in (0.5, 1, 1.5, 2)]
            along = changes[-1].flatten(1)
            parts = [float((change.flatten(1) * along).sum()) for change in changes]
            assert 0 < parts[0] < parts[1] < parts[2] < parts[3]


def test_mixing_in_all_layers_gives_the_other_picture(small_generator: Generator) -> None:
    w, other = (sample_w(small_generator, 3, seed=seed)[:, None].repeat(1, 4, 1) for seed in (1, 2))
    with torch.no_grad():
        expected = small_generator.synthesis(other)
        assert torch.equal(small_generator.synthesis(mix_layers(w, other, range(4))), expected)


def _aged(generator: Generator, by: float) -> Generator:
    """The same after some training: every weight of the synthesis has moved by this part of its spread."""
    later = build_generator(generator.config)
    later.load_state_dict(generator.state_dict())
    with torch.no_grad():
        for weight in later.synthesis.parameters():
            weight.add_(by * weight.std() * torch.randn_like(weight))
    return later.eval()


def _all(generator: Generator) -> list[tuple[np.ndarray, None]]:
    return [(vector, None) for vector in sefa(generator, 3, samples=2000).vectors]


def test_a_direction_of_the_same_weights_is_matched_by_itself(small_generator: Generator) -> None:
    for found, (vector, _) in zip(
        match(small_generator, small_generator, _all(small_generator), samples=2000), _all(small_generator), strict=True
    ):
        np.testing.assert_allclose(found.vector, vector, atol=1e-5)
        assert found.score == pytest.approx(1, abs=1e-5)


def test_a_direction_outlives_some_training_and_is_lost_to_other_weights(small_generator: Generator) -> None:
    later = match(small_generator, _aged(small_generator, 0.1), _all(small_generator), samples=2000)
    assert min(found.score for found in later) > MATCHED
    stranger = _aged(build_generator(small_generator.config), 0.0)
    with torch.no_grad():
        stranger.synthesis.get_parameter("paint.weight").mul_(50)
    lost = match(small_generator, stranger, _all(small_generator), samples=2000)
    assert max(found.score for found in lost) < MATCHED


def test_a_direction_is_found_again_where_w_was_turned(small_generator: Generator) -> None:
    turned = build_generator(small_generator.config)
    turned.load_state_dict(small_generator.state_dict())
    q = torch.linalg.qr(torch.randn(8, 8)).Q
    with torch.no_grad():
        for name, weight in turned.synthesis.named_parameters():
            if name.endswith("affine.weight"):
                weight.copy_(weight @ q)
        start = turned.synthesis.get_parameter("start.weight")
        start.copy_(torch.einsum("iohw,ij->johw", start, q))
    turned.eval()
    mapping = turned.mapping.forward
    turned.mapping.forward = lambda z, c=None: mapping(z, c) @ q  # type: ignore[method-assign]
    vectors = _all(small_generator)
    for found, (vector, _) in zip(match(small_generator, turned, vectors, samples=2000), vectors, strict=True):
        np.testing.assert_allclose(found.vector, vector @ q.numpy(), atol=1e-4)
        assert found.score == pytest.approx(1, abs=1e-3)


def test_only_the_layers_that_a_direction_moves_are_compared(small_generator: Generator) -> None:
    vector, _ = _all(small_generator)[0]
    later = _aged(small_generator, 0.0)
    with torch.no_grad():
        later.synthesis.get_parameter("norms.3.affine.weight").zero_()
    coarse, fine = match(small_generator, later, [(vector, [0, 1]), (vector, [3])], samples=2000)
    assert fine.score == 0  # nothing changes any more
    assert coarse.score > 0.1


def test_checkpoints_of_other_shapes_are_refused(
    small_generator: Generator, small_config: Callable[..., TrainConfig]
) -> None:
    other = build_generator(small_config("classic").network)
    with pytest.raises(ModelsError, match="not of one training: num_ws 4 and 1"):
        match(small_generator, other, [])
