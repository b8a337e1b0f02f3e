"""What serving counts and times for Prometheus, cheap enough for the hot path, from any thread."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# From half a millisecond, less than any pass takes, to as long as a caller waits.
SECONDS_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
ENCODE_BUCKETS: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)  # seconds
LOAD_BUCKETS: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)  # seconds
PICTURES_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64)

MOST_LABELS: Final = 200  # a training publishes a checkpoint every few minutes; Prometheus keeps each label for good
OTHER: Final = "other"  # the label of all that came after those

Child = TypeVar("Child", Counter, Histogram)
Reading = float | Mapping[str, float]  # one number, or one for each model


class Meters:
    """The counts of one application, in a registry of its own unless one is given.

    A model is named as the caller names it: by its name or the first digits of its checkpoint.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._queue = self._histogram("queue_seconds", "From asking for a picture to its pass.", "model")
        self._pass = self._histogram("pass_seconds", "One forward pass.", "model")
        self._batch = self._histogram("batch_pictures", "Pictures in a forward pass.", "model", PICTURES_BUCKETS)
        self._encode = self._histogram("encode_seconds", "From pixels to a file.", "format", ENCODE_BUCKETS)
        self._painted = self._counter("pictures_painted", "Pictures painted.", "model")
        self._refused = self._counter("pictures_refused", "Pictures refused, by reason: full, deadline.", "reason")
        self._loads = self._counter("loads", "Checkpoints loaded.", "model")
        self._evictions = self._counter("evictions", "Loaded checkpoints that had to leave.", "model")
        self._dropped = Counter(
            "ganvas_pictures_dropped", "Pictures whose caller left before their pass.", registry=self.registry
        )
        self._load_seconds = Histogram(
            "ganvas_load_seconds",
            "From asking for a checkpoint to its being ready to paint.",
            buckets=LOAD_BUCKETS,
            registry=self.registry,
        )
        self._frames = Counter("ganvas_live_frames", "Frames given to live viewers.", registry=self.registry)
        self._hits = Counter("ganvas_cache_hits", "Pictures answered from the cache.", registry=self.registry)
        self._misses = Counter("ganvas_cache_misses", "Pictures the cache did not hold.", registry=self.registry)

    def queued(self, model: str, seconds: float) -> None:
        """A picture waited this long for the pass that begins."""
        self._queue[model].observe(seconds)

    def passed(self, model: str, pictures: int, seconds: float) -> None:
        """A forward pass painted so many pictures in this time."""
        self._pass[model].observe(seconds)
        self._batch[model].observe(pictures)
        self._painted[model].inc(pictures)

    def encoded(self, output_format: str, seconds: float) -> None:
        """A picture became a file of this format."""
        self._encode[output_format].observe(seconds)

    def refused(self, reason: str, pictures: int) -> None:
        """Pictures got no place (full) or would have come too late (deadline)."""
        self._refused[reason].inc(pictures)

    def dropped(self, pictures: int) -> None:
        """Pictures were dropped before their pass because nobody waited for them any more."""
        self._dropped.inc(pictures)

    def loaded(self, model: str, seconds: float) -> None:
        """A checkpoint was loaded in this time."""
        self._loads[model].inc()
        self._load_seconds.observe(seconds)

    def evicted(self, model: str) -> None:
        """A loaded checkpoint left the memory."""
        self._evictions[model].inc()

    def shown(self) -> None:
        """A live viewer was given a frame."""
        self._frames.inc()

    def cache_hit(self) -> None:
        """A picture came from the cache."""
        self._hits.inc()

    def cache_miss(self) -> None:
        """A picture was asked for that the cache does not hold."""
        self._misses.inc()

    def watch(self, name: str, meaning: str, read: Callable[[], Reading]) -> None:
        """A gauge, read whenever it is scraped: one number, or a mapping of model to number.

        ValueError where this name is watched already.
        """
        self.registry.register(_Gauge(name, meaning, read))

    def _counter(self, name: str, meaning: str, label: str) -> "_ByLabel[Counter]":
        return _ByLabel(Counter(f"ganvas_{name}", meaning, [label], registry=self.registry))

    def _histogram(
        self, name: str, meaning: str, label: str, buckets: tuple[float, ...] = SECONDS_BUCKETS
    ) -> "_ByLabel[Histogram]":
        return _ByLabel(Histogram(f"ganvas_{name}", meaning, [label], buckets=buckets, registry=self.registry))


class _ByLabel(dict[str, Child], Generic[Child]):
    """The children of a metric by the value of its one label: a dictionary's look-up, where labels() takes a lock."""

    def __init__(self, metric: Child) -> None:
        super().__init__()
        self._metric: Child = metric

    def __missing__(self, label: str) -> Child:
        if len(self) >= MOST_LABELS:
            label = OTHER
        child: Child = self._metric.labels(label)
        return self.setdefault(label, child)


class _Gauge(Collector):
    """One watched number, or one for each model."""

    def __init__(self, name: str, meaning: str, read: Callable[[], Reading]) -> None:
        self._name, self._meaning, self._read = name, meaning, read

    def describe(self) -> Iterator[Metric]:
        """What the registry compares, to refuse a second one of this name."""
        yield GaugeMetricFamily(self._name, self._meaning)

    def collect(self) -> Iterator[Metric]:
        """What a scrape gets."""
        reading = self._read()
        if isinstance(reading, Mapping):
            family = GaugeMetricFamily(self._name, self._meaning, labels=["model"])
            for model, value in reading.items():
                family.add_metric([model], value)
        else:
            family = GaugeMetricFamily(self._name, self._meaning, value=reading)
        yield family
