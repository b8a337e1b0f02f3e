"""What Prometheus sees of this process, in a registry of its own."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.serving.service import Painter

LATENCY_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class Metrics:
    """Counts and times of requests by route, and of the painter's passes."""

    def __init__(self, painter: Painter) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_PainterCollector(painter))
        self._requests = Counter(
            "ganvas_http_requests", "Requests answered.", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "ganvas_http_request_seconds",
            "Time from a request's head to the end of its answer.",
            ["route"],
            buckets=LATENCY_BUCKETS_SECONDS,
            registry=self._registry,
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)


class _PainterCollector(Collector):
    """Reads the painter's own counts when they are asked for; nothing is counted twice."""

    def __init__(self, painter: Painter) -> None:
        self._painter = painter

    def collect(self) -> Iterator[Metric]:
        stats = self._painter.stats
        yield GaugeMetricFamily("ganvas_pictures_waiting", "Pictures asked for and not yet answered.", stats.waiting)
        counts = {
            "ganvas_pictures_painted": ("Pictures painted.", stats.pictures),
            "ganvas_pictures_refused": ("Pictures refused because too many waited.", stats.refused),
            "ganvas_passes": ("Forward passes; pictures painted by passes is the mean batch.", stats.batches),
            "ganvas_pass_seconds": ("Time in forward passes.", stats.compute_seconds),
        }
        for name, (meaning, value) in counts.items():
            yield CounterMetricFamily(name, meaning, value)
