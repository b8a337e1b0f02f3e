import numpy as np
import pytest

from models.errors import SeedsInvalid
from models.latents.seeds import parse_seeds, z_from_seeds


def test_a_seed_means_what_it_means_in_other_tools() -> None:
    z = z_from_seeds([42, 0], 4)
    assert z.dtype == np.float32
    # The first normals of Mersenne Twister 42 and 0, as printed in any NumPy tutorial.
    np.testing.assert_allclose(z[0], [0.49671415, -0.1382643, 0.64768854, 1.52302986], rtol=1e-6)
    np.testing.assert_allclose(z[1], [1.76405235, 0.40015721, 0.97873798, 2.2408932], rtol=1e-6)


def test_a_seed_gives_the_same_latent_alone_and_among_others() -> None:
    np.testing.assert_array_equal(z_from_seeds([3, 2**32 - 1, 5], 16)[1:2], z_from_seeds([2**32 - 1], 16))


def test_no_seeds_give_no_latents() -> None:
    assert z_from_seeds([], 16).shape == (0, 16)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_is_not_a_uint32_is_refused(seed: int) -> None:
    with pytest.raises(SeedsInvalid, match=str(seed)):
        z_from_seeds([seed], 4)


def test_lists_and_ranges_of_seeds_are_read_in_order() -> None:
    assert parse_seeds("7,0, 4-6,1") == [7, 0, 4, 5, 6, 1]
    assert parse_seeds("4294967295") == [2**32 - 1]


@pytest.mark.parametrize("text", ["", ",", "1,", "a", "-1", "6-4", "4294967296", "1-2-3", "1.5", "٣", "1" * 50])
def test_what_is_not_a_list_of_seeds_is_refused(text: str) -> None:
    with pytest.raises(SeedsInvalid):
        parse_seeds(text)


def test_a_huge_range_is_refused_before_it_is_built() -> None:
    with pytest.raises(SeedsInvalid, match="More than 64 seeds"):
        parse_seeds("0-4294967295", limit=64)
    assert len(parse_seeds("0-63", limit=64)) == 64
