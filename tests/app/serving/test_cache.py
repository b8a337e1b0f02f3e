"""Files stay while they are asked for and the memory lasts, and hits are told from misses."""

import random
from collections import OrderedDict

import pytest
from prometheus_client import generate_latest

from app.serving.cache import ENTRY_BYTES, LARGEST_SHARE, FileCache
from app.serving.meters import Meters

PLACE = 1000 + ENTRY_BYTES  # of a file of 1,000 bytes


def files_for(count: int) -> FileCache:
    return FileCache(count * PLACE)


def test_a_file_that_was_put_is_got_and_another_is_not() -> None:
    cache = files_for(10)
    cache.put(("hash", "png", None), b"a" * 1000)
    assert cache.get(("hash", "png", None)) == b"a" * 1000
    assert cache.get(("hash", "jpeg", 80)) is None
    assert (len(cache), cache.bytes) == (1, PLACE)


def test_the_least_recently_used_leaves_first() -> None:
    cache = files_for(10)
    for key in range(10):
        cache.put(key, bytes(1000))
    cache.get(0)
    cache.put(10, bytes(1000))
    assert cache.get(1) is None
    assert [key for key in range(11) if cache.get(key) is not None] == [0, *range(2, 11)]


def test_putting_a_file_again_replaces_it_and_counts_it_once() -> None:
    cache = files_for(10)
    cache.put("key", bytes(1000))
    cache.put("key", bytes(500))
    assert (len(cache), cache.bytes, cache.get("key")) == (1, 500 + ENTRY_BYTES, bytes(500))


def test_a_file_over_an_eighth_of_the_memory_is_not_kept() -> None:
    cache = files_for(LARGEST_SHARE)
    cache.put("fits", bytes(1000))
    cache.put("too large", bytes(1001))
    assert (cache.get("fits"), cache.get("too large")) == (bytes(1000), None)


@pytest.mark.parametrize("file", [b"", b"a"])
def test_a_cache_without_memory_keeps_nothing(file: bytes) -> None:
    cache = FileCache(0)
    cache.put("key", file)
    assert (cache.get("key"), len(cache), cache.bytes) == (None, 0, 0)


def test_it_stays_within_its_memory_and_agrees_with_a_plain_account_of_it() -> None:
    chance = random.Random(0)
    cache, plain = FileCache(20_000), OrderedDict[int, bytes]()
    for _ in range(5_000):
        key = chance.randrange(40)
        if chance.random() < 0.5:
            found = plain.get(key)
            if found is not None:
                plain.move_to_end(key)
            assert cache.get(key) == found
        else:
            file = bytes(chance.randrange(2_000))
            cache.put(key, file)
            if len(file) + ENTRY_BYTES <= 2_500:
                plain.pop(key, None)
                plain[key] = file
                while sum(len(kept) + ENTRY_BYTES for kept in plain.values()) > 20_000:
                    plain.popitem(last=False)
        assert cache.bytes == sum(len(kept) + ENTRY_BYTES for kept in plain.values()) <= 20_000


def test_hits_misses_bytes_and_files_are_counted() -> None:
    meters = Meters()
    cache = FileCache(1_000_000, meters)
    cache.get("key")
    cache.put("key", bytes(100))
    cache.get("key")
    cache.get("key")
    told = dict(line.split() for line in generate_latest(meters.registry).decode().splitlines() if line[0] != "#")
    names = ("ganvas_cache_hits_total", "ganvas_cache_misses_total", "ganvas_cache_bytes", "ganvas_cache_files")
    assert [float(told[name]) for name in names] == [2, 1, 100 + ENTRY_BYTES, 1]
