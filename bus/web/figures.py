"""The figures of `/metrics`, in a registry of their own so that two apps in one process do not share them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bus.governance.promises.store import Promise
from bus.governance.shares.reconciling import BrokerState
from bus.views.catalogue import Shape
from bus.views.freshness import by_source
from bus.views.store import ViewState, ViewStore

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
Shapes = Callable[[], Mapping[str, Shape]]
Promises = Callable[[], Mapping[str, Promise]]


class _Views(Collector):
    """Views, promises and quarantine, read when somebody asks."""

    def __init__(self, views: ViewStore, quarantined: Callable[[], int], shapes: Shapes, promises: Promises) -> None:
        self._views, self._quarantined, self._shapes, self._promises = views, quarantined, shapes, promises

    def collect(self) -> Iterable[Metric]:
        shapes = self._shapes()
        states = {name: state for name, state in self._views.states().items() if name in shapes}
        yield _family("bus_view_rows", "Rows that readers can see", states, lambda state: state.rows)
        yield _family("bus_view_live", "1 if the view is answered", states, lambda state: state.state == "live")
        yield _family("bus_view_seq", "Transactions of the view", states, lambda state: state.seq)
        yield _rebuilding(states)
        yield from self._by_source(shapes)
        broken = GaugeMetricFamily("bus_freshness_broken", "1 if no event came in the promised time", labels=["entity"])
        for entity, promise in self._promises().items():
            broken.add_metric([entity], float(promise.broken))
        yield broken
        yield GaugeMetricFamily("bus_quarantine_events", "Events set aside", value=self._quarantined())

    def _by_source(self, shapes: Mapping[str, Shape]) -> Iterable[Metric]:
        """NaN for what is not known yet."""
        labels = ["view", "source"]
        lag = GaugeMetricFamily("bus_view_lag_events", "Events known to wait", labels=labels)
        behind = GaugeMetricFamily("bus_view_freshness_seconds", "Seconds behind a source", labels=labels)
        age = GaugeMetricFamily("bus_view_event_age_seconds", "Seconds since the newest event", labels=labels)
        now_ms = int(time.time() * 1_000)
        for name, shape in shapes.items():
            for source in by_source(shape, shapes, self._views.positions, now_ms):
                labelled, seconds = [name, source.source], source.age_s(now_ms)
                lag.add_metric(labelled, float(source.lag))
                behind.add_metric(labelled, source.behind_s if math.isfinite(source.behind_s) else math.nan)
                age.add_metric(labelled, math.nan if seconds is None else seconds)
        return lag, behind, age


class _Broker(Collector):
    """Whether the broker's ACLs and topics are as grants want them, and what somebody else did to them."""

    def __init__(self, state: Callable[[], BrokerState]) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        state = self._state()
        yield GaugeMetricFamily("bus_broker_in_order", "1 if the last look left all in order", value=state.in_order)
        yield GaugeMetricFamily("bus_broker_streams", "Streams that grants ask for", value=state.shares)
        drift = CounterMetricFamily("bus_broker_drift", "ACLs changed by others and put right", labels=["change"])
        drift.add_metric(["added"], state.added)
        drift.add_metric(["removed"], state.removed)
        yield drift


class _Streams(Collector):
    """How far each stream is behind its view, and whether it is in trouble."""

    def __init__(self, streams: Callable[[], list[dict[str, Any]]]) -> None:
        self._streams = streams

    def collect(self) -> Iterable[Metric]:
        labels = ["consumer", "view"]
        behind = GaugeMetricFamily("bus_stream_behind", "Transactions of the view that are not sent", labels=labels)
        trouble = GaugeMetricFamily("bus_stream_in_trouble", "1 while a stream cannot go on", labels=labels)
        for stream in self._streams():
            labelled = [stream["consumer"], stream["view"]]
            behind.add_metric(labelled, float(stream["behind"]))
            trouble.add_metric(labelled, float(bool(stream["problem"])))
        return behind, trouble


def _rebuilding(states: Mapping[str, ViewState]) -> Metric:
    """Of each view that is being built anew beside itself the share of events that is applied."""
    family = GaugeMetricFamily("bus_view_rebuild_ratio", "Share of events applied by a rebuild", labels=["view"])
    for view, state in states.items():
        known = state.rebuild or {}
        if known.get("state") == "building":
            family.add_metric([view], known.get("events", 0) / max(known.get("of") or 0, 1))
    return family


def _family(name: str, text: str, states: Mapping[str, ViewState], value: Callable[[ViewState], float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["view"])
    for view, state in states.items():
        family.add_metric([view], float(value(state)))
    return family


class Figures:
    """Counts answers by route, method and status; routes are templates, so their number is bounded."""

    def __init__(
        self,
        views: ViewStore,
        quarantined: Callable[[], int],
        shapes: Shapes,
        promises: Promises,
        *,
        broker: Callable[[], BrokerState] | None = None,
        streams: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        self._registry = CollectorRegistry()
        labels = ("route", "method", "status")
        self._answers = Counter("bus_http_requests", "Requests answered", labels, registry=self._registry)
        self._seconds = Histogram(
            "bus_http_request_seconds", "Time to answer", ("route",), registry=self._registry, buckets=_BUCKETS
        )
        self._counted: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._registry.register(_Views(views, quarantined, shapes, promises))
        if broker is not None:
            self._registry.register(_Broker(broker))
        self._registry.register(_Streams(streams))

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts one answer."""
        counted = self._counted.get((route, method, status)) or self._count(route, method, status)
        counted[0].inc()
        counted[1].observe(seconds)

    def _count(self, route: str, method: str, status: int) -> tuple[Counter, Histogram]:
        """The two figures of an answer, looked up once: routes, methods and statuses are few."""
        known = method if method in _METHODS else "other"
        figures = self._answers.labels(route, known, str(status)), self._seconds.labels(route)
        if known == method:
            self._counted[route, method, status] = figures
        return figures

    def text(self) -> bytes:
        """All figures in Prometheus's text format; blocks while it reads the views database."""
        return generate_latest(self._registry)
