import numpy as np
import pytest
import torch

from models.errors import ConfigInvalid
from models.latents.seeds import z_from_seeds
from models.networks.generator import Generator
from models.sampling import GAP, contact_sheet, render, text_vectors, to_uint8
from models.text import build_encoder


def test_minus_one_is_black_one_is_white_and_what_is_beyond_is_clamped() -> None:
    x = torch.tensor([-1.0, 1.0, 0.0, -3.0, 3.0, 1 / 127.5]).view(1, 1, 2, 3)
    np.testing.assert_array_equal(to_uint8(x)[0, :, :, 0], [[0, 255, 128], [0, 255, 128]])


def test_every_uint8_survives_the_way_to_the_network_and_back() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    np.testing.assert_array_equal(to_uint8(x), pixels)


def test_channels_come_last() -> None:
    x = torch.rand(2, 3, 4, 5) * 2 - 1
    pictures = to_uint8(x)
    assert pictures.shape == (2, 4, 5, 3)
    assert pictures[1, 3, 4, 2] == round(float(x[1, 2, 3, 4]) * 127.5 + 127.5)


def test_a_seed_is_the_same_picture_in_any_company(small_generator: Generator) -> None:
    together = render(small_generator, [5, 6, 7, 8, 9], batch=5)
    for split in (1, 2, 3):
        difference = render(small_generator, [5, 6, 7, 8, 9], batch=split).astype(int) - together
        assert np.abs(difference).max() <= 1  # a sum taken in another order may round the other way


def test_rendering_truncates_w_and_leaves_the_generator_in_its_mode(small_generator: Generator) -> None:
    small_generator.w_avg.normal_()
    small_generator.train()
    picture = render(small_generator, [3], psi=0.5, cutoff=2)
    assert small_generator.training
    small_generator.eval()
    with torch.no_grad():
        w = small_generator.mapping(torch.from_numpy(z_from_seeds([3], small_generator.z_dim)))
        w[:, :2] = small_generator.w_avg + 0.5 * (w[:, :2] - small_generator.w_avg)
        expected = to_uint8(small_generator.synthesis(w))
    assert np.abs(picture.astype(int) - expected).max() <= 1
    assert np.abs(picture.astype(int) - render(small_generator, [3])).max() > 1


def test_psi_0_gives_every_seed_the_mean_picture_and_psi_1_its_own(small_generator: Generator) -> None:
    small_generator.w_avg.normal_()
    with torch.no_grad():
        mean = to_uint8(small_generator.synthesis(small_generator.w_avg.expand(1, 4, -1))).astype(int)
        own = to_uint8(small_generator(torch.from_numpy(z_from_seeds([3, 4], 8)))).astype(int)
    assert np.abs(render(small_generator, [3, 4], psi=0) - mean).max() <= 1
    assert np.abs(render(small_generator, [3, 4], psi=1) - own).max() <= 1


def test_a_contact_sheet_places_pictures_in_rows_on_white() -> None:
    images = np.zeros((5, 8, 8, 3), dtype=np.uint8)
    images += np.arange(5, dtype=np.uint8)[:, None, None, None] * 10
    sheet = np.asarray(contact_sheet(images, columns=3))
    assert sheet.shape == (2 * 8 + 3 * GAP, 3 * 8 + 4 * GAP, 3)
    second_row, second_column = 2 * GAP + 8, 2 * GAP + 8
    assert (sheet[second_row : second_row + 8, second_column : second_column + 8] == 40).all()
    assert (sheet[second_row:, second_column + 8 :] == 255).all()


def test_a_contact_sheet_of_grey_pictures_is_grey() -> None:
    assert contact_sheet(np.zeros((2, 8, 8, 1), dtype=np.uint8), columns=2).mode == "L"


def painted(generator: Generator, seed: int, prompt: str, psi: float = 1.0) -> np.ndarray:
    """One picture, with the mean that truncation pulls to taken over other latents than the code under test takes."""
    assert generator.text is not None
    with torch.no_grad():
        c = generator.text(torch.from_numpy(build_encoder("hashed-256").encode([prompt])))
        w = generator.mapping(torch.from_numpy(z_from_seeds([seed], generator.z_dim)), c)
        if psi != 1:
            others = generator.mapping(torch.randn(50_000, generator.z_dim), c.expand(50_000, -1))
            middle = others.mean(dim=0, keepdim=True)
            w = middle + psi * (w - middle)
        return to_uint8(generator.synthesis(w))


def test_each_seed_is_painted_by_its_own_prompt_whatever_the_batches(prompted_generator: Generator) -> None:
    prompts = ["red cat", "", "blue", "red cat", "dog"]
    pictures = render(prompted_generator, range(5), prompts=prompts, batch=2)
    for seed, prompt in enumerate(prompts):
        difference = np.abs(pictures[seed].astype(int) - painted(prompted_generator, seed, prompt))
        assert difference.max() <= 1
    assert (
        np.abs(painted(prompted_generator, 0, "red cat").astype(int) - painted(prompted_generator, 0, "dog")).max() > 5
    )


def test_truncation_pulls_a_prompted_picture_to_the_middle_of_its_prompt(prompted_generator: Generator) -> None:
    prompted_generator.w_avg.fill_(100)  # the middle of no text must not be where it goes
    prompts = ["red cat", "", "red cat", "dog"] * 4
    pictures = render(prompted_generator, range(16), psi=0.3, prompts=prompts).astype(int)
    expected = np.concatenate([painted(prompted_generator, n, prompt, psi=0.3) for n, prompt in enumerate(prompts)])
    untruncated = render(prompted_generator, range(16), prompts=prompts)
    assert np.abs(pictures - untruncated).mean() > 5
    assert np.abs(pictures - expected).mean() < 0.1 * np.abs(pictures - untruncated).mean()


def test_no_prompt_is_the_empty_prompt(prompted_generator: Generator) -> None:
    without, empty = render(prompted_generator, [4, 5]), render(prompted_generator, [4, 5], prompts=["", ""])
    assert np.abs(without.astype(int) - empty).max() <= 1


def test_an_unknown_word_changes_nothing(prompted_generator: Generator) -> None:
    red, unknown = build_encoder("hashed-256").encode(["red", "dog"])
    assert not ((red > 0) & (unknown > 0)).any()
    assert prompted_generator.text is not None
    prompted_generator.text.weight.copy_(torch.from_numpy(red))
    both, known, strange, silent = (
        render(prompted_generator, range(8), prompts=[prompt] * 8).astype(int)
        for prompt in ("red dog", "red", "dog", "")
    )
    assert np.abs(both - known).max() <= 1
    assert np.abs(strange - silent).max() <= 1
    assert np.abs(known - silent).max() > 5


def test_prompts_are_refused_where_nothing_was_ever_told(small_generator: Generator) -> None:
    with pytest.raises(ConfigInvalid, match="takes no prompts"):
        text_vectors(small_generator, ["cat"])
