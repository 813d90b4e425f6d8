"""What a fault did to the views of a small bus, measured against the ledger of what was published."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from views_bus import Bus

Sign = tuple[int, int]


def wrong(bus: Bus) -> int:
    """How many views differ from the fold, and events set aside without need."""
    differing = sum(bus.dump(name) != bus.expected(name) for name, shape in bus.shapes.items() if shape.contracts)
    return differing + bus.store.quarantined()


def surplus(bus: Bus) -> dict[str, int]:
    """By view, how many more events were counted than published: above zero is applied twice, below is lost."""
    states, found = bus.store.states(count=False), {}
    for name, shape in bus.shapes.items():
        entities = {contract.id for contract in shape.contracts}
        if entities:
            published = sum(event.entity in entities for event in bus.topics.events)
            found[name] = states[name].applied + states[name].stale_dropped - published
    return found


class SignsOfLife:
    """Watches the leases of a bus's views: the longest that any of them went without a sign of life."""

    def __init__(self, bus: Bus) -> None:
        self._bus, self._stop = bus, threading.Event()
        self._seen: dict[str, tuple[Sign, float]] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.longest_s = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(10)
        self._look()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self._look()

    def _look(self) -> None:
        now = time.monotonic()
        for name, sign in self._bus.signs().items():
            before = self._seen.get(name)
            if before is not None:
                self.longest_s = max(self.longest_s, now - before[1])
            if before is None or before[0] != sign:
                self._seen[name] = (sign, now)
