"""What a service counts, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_FILL = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


class Metrics:
    """The counters of one service.

    Attributes
    ----------
    requests : Counter
        By generator, way in and status.
    events : Counter
        Events sent, by generator.
    seconds : Histogram
        From the request to the end of its response, of those that got events.
    fill : Histogram
        How full batches were, from 0 to 1.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "hpcgan_requests", "Requests, by status of HTTP.", ["model", "way", "status"], registry=self._registry
        )
        self.events = Counter("hpcgan_events", "Events sent.", ["model"], registry=self._registry)
        self.seconds = Histogram(
            "hpcgan_request_seconds", "Time of a request that got its events, s.", ["model"],
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self.fill = Histogram(
            "hpcgan_batch_fill", "Events of a batch over its size.", ["model"], buckets=_FILL, registry=self._registry
        )

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show a number that is asked for when somebody looks."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self._registry)
