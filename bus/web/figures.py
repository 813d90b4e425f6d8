"""The figures of `/metrics`, in a registry of their own so that two apps in one process do not share them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bus.views.store import ViewState, ViewStore

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Views(Collector):
    """Views and quarantine, read when somebody asks."""

    def __init__(self, views: ViewStore, quarantined: Callable[[], int]) -> None:
        self._views, self._quarantined = views, quarantined

    def collect(self) -> Iterable[Metric]:
        states = self._views.states()
        yield _family("bus_view_rows", "Rows that readers can see", states, lambda state: state.rows)
        yield _family("bus_view_lag_events", "Events known to wait", states, lambda state: state.lag)
        yield _family("bus_view_live", "1 if the view is answered", states, lambda state: state.state == "live")
        yield self._freshness(states)
        yield GaugeMetricFamily("bus_quarantine_events", "Events set aside", value=self._quarantined())

    def _freshness(self, states: Mapping[str, ViewState]) -> Metric:
        family = GaugeMetricFamily("bus_view_freshness_seconds", "Seconds behind a source", labels=["view", "source"])
        for view in states:
            for source, seconds in self._views.freshness(view).items():
                family.add_metric([view, source], seconds if math.isfinite(seconds) else math.nan)
        return family


def _family(name: str, text: str, states: Mapping[str, ViewState], value: Callable[[ViewState], float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["view"])
    for view, state in states.items():
        family.add_metric([view], float(value(state)))
    return family


class Figures:
    """Counts answers by route, method and status; routes are templates, so their number is bounded."""

    def __init__(self, views: ViewStore, quarantined: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        labels = ("route", "method", "status")
        self._answers = Counter("bus_http_requests", "Requests answered", labels, registry=self._registry)
        self._seconds = Histogram(
            "bus_http_request_seconds", "Time to answer", ("route",), registry=self._registry, buckets=_BUCKETS
        )
        self._registry.register(_Views(views, quarantined))

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts one answer."""
        self._answers.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All figures in Prometheus's text format; blocks while it reads the views database."""
        return generate_latest(self._registry)
