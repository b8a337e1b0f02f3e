import numpy as np
import torch

from models.latents.seeds import z_from_seeds
from models.networks.generator import Generator
from models.sampling import GAP, contact_sheet, render, to_uint8


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
