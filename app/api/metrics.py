"""What Prometheus sees of this process."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

LATENCY_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class Metrics:
    """Counts and times of requests by route, beside what serving counts in the same registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._requests = Counter(
            "ganvas_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "ganvas_http_request_seconds",
            "Time from a request's head to the end of its answer.",
            ["route"],
            buckets=LATENCY_BUCKETS_SECONDS,
            registry=registry,
        )
        self.webhooks = Counter(
            "ganvas_webhooks", "Attempts at messages of webhooks, by how they ended.", ["outcome"], registry=registry
        )
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}  # quicker than labels()

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        labels = (method, route, status)
        if labels not in self._known:
            self._known[labels] = (self._requests.labels(method, route, str(status)), self._seconds.labels(route))
        requests, times = self._known[labels]
        requests.inc()
        times.observe(seconds)

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
