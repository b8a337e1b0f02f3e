from pathlib import Path

import numpy as np
import pytest
import torch

from worker.training.data import RealImages, ShuffledRows


def images(count: int = 10, resolution: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, resolution, resolution, 3), dtype=np.uint8)


def reader(array: np.ndarray, *, mirror: bool = False, drawn: int = 0, batch_size: int = 4) -> RealImages:
    return RealImages(
        array,
        batch_size=batch_size,
        mirror=mirror,
        seed=3,
        drawn=drawn,
        device=torch.device("cpu"),
        memory_format=torch.contiguous_format,
    )


def test_every_row_comes_once_a_pass_though_batches_straddle_passes() -> None:
    rows = ShuffledRows(10, seed=1)
    drawn = np.concatenate([rows.take(4)[0] for _ in range(15)])
    for number in range(6):
        assert sorted(drawn[number * 10 : number * 10 + 10]) == list(range(10))


def test_each_pass_has_its_own_order_and_each_seed_its_own() -> None:
    rows = ShuffledRows(50, seed=1)
    first, second = rows.take(50)[0], rows.take(50)[0]
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, ShuffledRows(50, seed=2).take(50)[0])


@pytest.mark.parametrize("drawn", [0, 3, 9, 10, 11, 29, 30])
def test_a_sampler_continued_from_its_count_goes_on_as_if_never_stopped(drawn: int) -> None:
    whole_rows, whole_coins = ShuffledRows(10, seed=5).take(drawn + 25)
    rows, coins = ShuffledRows(10, seed=5, drawn=drawn).take(25)
    np.testing.assert_array_equal(rows, whole_rows[drawn:])
    np.testing.assert_array_equal(coins, whole_coins[drawn:])


def test_a_batch_larger_than_the_set_repeats_it() -> None:
    rows, _ = ShuffledRows(3, seed=0).take(8)
    assert np.bincount(rows).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


def test_coins_are_fair() -> None:
    _, coins = ShuffledRows(1_000, seed=0).take(20_000)
    assert abs(coins.mean() - 0.5) < 0.02


def test_batches_of_a_memory_mapped_file_are_its_pixels_in_minus_one_to_one(tmp_path: Path) -> None:
    array = images()
    np.save(tmp_path / "images.npy", array)
    batch = reader(np.load(tmp_path / "images.npy", mmap_mode="r")).next()
    rows, _ = ShuffledRows(10, seed=3).take(4)
    expected = array[rows].transpose(0, 3, 1, 2).astype(np.float64) / 127.5 - 1
    assert batch.shape == (4, 3, 4, 4)
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(batch.numpy(), expected, atol=1e-6)


def test_mirroring_turns_just_the_coins_and_leaves_the_array_alone() -> None:
    array = images()
    before = array.copy()
    plain, mirrored = reader(array).next(), reader(array, mirror=True).next()
    _, coins = ShuffledRows(10, seed=3).take(4)
    assert 0 < coins.sum() < 4
    for index, coin in enumerate(coins):
        torch.testing.assert_close(mirrored[index], plain[index].flip(-1) if coin else plain[index])
    np.testing.assert_array_equal(array, before)


def test_a_reader_resumes_at_the_number_drawn() -> None:
    array = images()
    whole = reader(array, mirror=True)
    whole.next()
    resumed = reader(array, mirror=True, drawn=whole.drawn)
    for _ in range(5):
        assert torch.equal(whole.next(), resumed.next())
