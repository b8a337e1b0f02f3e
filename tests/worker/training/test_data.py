import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.config import TrainConfig
from worker.training.data import RealImages, ShuffledRows, shown_rows


def images(count: int = 10, resolution: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, resolution, resolution, 3), dtype=np.uint8)


def reader(
    array: np.ndarray, *, mirror: bool = False, drawn: int = 0, batch_size: int = 4, **options: Any
) -> RealImages:
    return RealImages(
        array,
        batch_size=batch_size,
        mirror=mirror,
        seed=3,
        drawn=drawn,
        device=torch.device("cpu"),
        memory_format=torch.contiguous_format,
        **options,
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
    assert batch.images.shape == (4, 3, 4, 4)
    assert batch.images.dtype == torch.float32
    np.testing.assert_allclose(batch.images.numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(batch.rows, rows)


def test_mirroring_turns_just_the_coins_and_leaves_the_array_alone() -> None:
    array = images()
    before = array.copy()
    plain, mirrored = reader(array).next().images, reader(array, mirror=True).next().images
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
        ours, theirs = whole.next(), resumed.next()
        assert torch.equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.rows, theirs.rows)


def test_only_the_rows_that_may_be_shown_are_and_each_once_a_pass() -> None:
    array = images(12)
    shown = np.array([1, 4, 5, 9, 11])
    reals = reader(array, batch_size=5, rows=shown)
    for _ in range(4):
        batch = reals.next()
        np.testing.assert_array_equal(np.sort(batch.rows), shown)
        expected = array[batch.rows].transpose(0, 3, 1, 2).astype(np.float64) / 127.5 - 1
        np.testing.assert_allclose(batch.images.numpy(), expected, atol=1e-6)


def test_a_tenth_is_held_out_of_many_pictures_and_nothing_of_few_or_when_told_not_to(
    tiny_config: Callable[..., TrainConfig],
) -> None:
    shown, held = shown_rows(tiny_config(seed=1), 1_000)
    assert (len(shown), len(held)) == (900, 100)
    assert sorted([*shown, *held]) == list(range(1_000))
    np.testing.assert_array_equal(shown_rows(tiny_config(seed=2), 1_000)[1], held)  # a fine-tuning must not see them
    for count, config in ((40, tiny_config()), (1_000, tiny_config(holdout=False))):
        shown, held = shown_rows(config, count)
        np.testing.assert_array_equal(shown, np.arange(count))
        assert len(held) == 0


def test_the_parts_of_a_batch_are_the_batch() -> None:
    batch = reader(images(), batch_size=7).next()
    parts = list(batch.parts(3))
    assert [len(part.rows) for part in parts] == [3, 3, 1]
    assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
    np.testing.assert_array_equal(np.concatenate([part.rows for part in parts]), batch.rows)


def test_the_shares_of_several_processes_are_the_batch_of_one() -> None:
    array = images(20)
    whole = reader(array, mirror=True, batch_size=7)
    shares = [reader(array, mirror=True, batch_size=7, share=(rank, 3)) for rank in range(3)]
    for _ in range(4):
        batch, theirs = whole.next(), [share.next() for share in shares]
        assert [len(share.rows) for share in theirs] == [3, 2, 2]
        for rank, share in enumerate(theirs):
            np.testing.assert_array_equal(share.rows, batch.rows[rank::3])
            assert torch.equal(share.images, batch.images[rank::3])
        assert {share.drawn for share in shares} == {whole.drawn}


def test_a_closed_reader_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    reals = reader(images())
    reals.next()
    (own,) = set(threading.enumerate()) - before
    assert own.name.startswith("reals")
    reals.close()
    own.join(timeout=10)
    assert not own.is_alive()
