"""Counts and times arrive in Prometheus' text, from any thread, in bounded space."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.serving import meters as module
from app.serving.meters import Meters


@pytest.fixture
def meters() -> Meters:
    return Meters()


def shown(meters: Meters) -> dict[tuple[str, ...], float]:
    """Every sample of the exposition: its name and its labels' values, in order of the labels' names."""
    families = text_string_to_metric_families(generate_latest(meters.registry).decode())
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


def test_queue_and_pass_are_timed_apart_and_by_model(meters: Meters) -> None:
    meters.queued("cats", 0.25)
    meters.queued("cats", 0.5)
    meters.passed("cats", 2, 0.125)
    meters.passed("dogs", 1, 0.0625)
    told = shown(meters)
    assert (told["ganvas_queue_seconds_sum", "cats"], told["ganvas_queue_seconds_count", "cats"]) == (0.75, 2)
    assert (told["ganvas_pass_seconds_sum", "cats"], told["ganvas_pass_seconds_count", "cats"]) == (0.125, 1)
    assert (told["ganvas_pass_seconds_sum", "dogs"], told["ganvas_pictures_painted_total", "cats"]) == (0.0625, 2)


def test_batches_are_counted_up_to_each_size(meters: Meters) -> None:
    for pictures in (1, 3, 64, 100):
        meters.passed("cats", pictures, 0.01)
    told = shown(meters)
    counts = [told["ganvas_batch_pictures_bucket", size, "cats"] for size in ("1.0", "2.0", "4.0", "64.0", "+Inf")]
    assert counts == [1, 1, 2, 3, 4]
    assert told["ganvas_pictures_painted_total", "cats"] == 168


def test_every_other_event_is_counted_under_its_name(meters: Meters) -> None:
    meters.encoded("png", 0.5)
    meters.refused("full", 3)
    meters.refused("deadline", 1)
    meters.dropped(4)
    meters.loaded("0123456789ab", 1.5)
    meters.evicted("0123456789ab")
    meters.cache_hit()
    meters.cache_miss()
    told = shown(meters)
    assert told["ganvas_encode_seconds_sum", "png"] == 0.5
    assert told["ganvas_pictures_refused_total", "full"] == 3
    assert told["ganvas_pictures_refused_total", "deadline"] == 1
    assert told["ganvas_pictures_dropped_total",] == 4
    assert told["ganvas_loads_total", "0123456789ab"] == told["ganvas_evictions_total", "0123456789ab"] == 1
    assert told["ganvas_load_seconds_sum",] == 1.5
    assert told["ganvas_cache_hits_total",] == told["ganvas_cache_misses_total",] == 1


def test_a_watched_number_is_read_at_each_scrape(meters: Meters) -> None:
    waiting = [1.0]
    meters.watch("ganvas_pictures_waiting", "Waiting.", lambda: waiting[0])
    assert shown(meters)["ganvas_pictures_waiting",] == 1
    waiting[0] = 7
    assert shown(meters)["ganvas_pictures_waiting",] == 7


def test_a_watched_mapping_forgets_the_models_that_left(meters: Meters) -> None:
    loaded = {"cats": 10.0, "dogs": 20.0}
    meters.watch("ganvas_loaded_bytes", "Bytes.", lambda: loaded)
    assert shown(meters)["ganvas_loaded_bytes", "dogs"] == 20
    del loaded["dogs"]
    assert ("ganvas_loaded_bytes", "dogs") not in shown(meters)
    assert shown(meters)["ganvas_loaded_bytes", "cats"] == 10


@pytest.mark.parametrize("name", ["ganvas_pictures_waiting", "ganvas_pass_seconds"])
def test_a_name_is_watched_or_counted_once(meters: Meters, name: str) -> None:
    meters.watch("ganvas_pictures_waiting", "Waiting.", lambda: 0)
    with pytest.raises(ValueError, match="Duplicated"):
        meters.watch(name, "Again.", lambda: 0)


def test_two_applications_share_no_counts_unless_they_share_a_registry() -> None:
    first, second = Meters(), Meters()
    first.cache_hit()
    assert shown(second)["ganvas_cache_hits_total",] == 0
    registry = CollectorRegistry()
    assert Meters(registry).registry is registry


def test_nothing_is_lost_when_several_threads_count(meters: Meters) -> None:
    def paint(_: int) -> None:
        for number in range(2_000):
            meters.passed(f"model {number % 50}", 2, 0.001)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(paint, range(4)))
    told = shown(meters)
    assert sum(told["ganvas_pictures_painted_total", f"model {number}"] for number in range(50)) == 16_000


def test_models_without_end_share_one_label_at_last(meters: Meters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LABELS", 3)
    for number in range(10):
        meters.evicted(f"model {number}")
    meters.evicted("model 0")
    told = shown(meters)
    assert [told["ganvas_evictions_total", f"model {number}"] for number in range(3)] == [2, 1, 1]
    assert told["ganvas_evictions_total", "other"] == 7
    assert ("ganvas_evictions_total", "model 3") not in told
