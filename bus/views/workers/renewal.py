"""Renews a worker's leases in threads that do nothing else: neither Kafka nor a slow statement makes it lose one.

It is no proof that views are built, so it ends with what builds them: while the event loop or a step of it gives no
sign of life the leases are not renewed, and after `STUCK_S` the process ends, for the supervisor to start another.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import structlog
from sqlalchemy.engine import Engine

from bus.errors import Unavailable
from bus.views.defects import report
from bus.views.workers.beat import beat

log = structlog.get_logger(__name__)
STUCK_S: Final = 60.0
_SILENT_LEASES: Final = 4  # of the event loop: so long is no pause for garbage or a busy machine


class Pulse:
    """Signs of life of the event loop, and since when each step under way is. Called from any thread.

    ``clock``: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beaten = clock()
        self._steps: dict[int, tuple[str, float]] = {}
        self._number = 0

    def beat(self) -> None:
        """The event loop runs."""
        self._beaten = self._clock()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Something that must end within `STUCK_S` is under way."""
        self._number += 1
        number = self._number
        self._steps[number] = (name, self._clock())
        try:
            yield
        finally:
            del self._steps[number]

    def silent_s(self) -> float:
        """Seconds since the event loop last ran."""
        return self._clock() - self._beaten

    def stuck(self) -> str | None:
        """What has been under way, or silent, for longer than `STUCK_S`."""
        if self.silent_s() > STUCK_S:
            return "the event loop"
        return next((name for name, since in list(self._steps.values()) if self._clock() - since > STUCK_S), None)


class Renewal:
    """The threads. ``held``: the (view, epoch) pairs to renew; ``lost``: called with the views that are another's now;
    ``also``: what else says that this worker lives, called each time."""

    def __init__(
        self,
        engine: Engine,
        lease_s: float,
        pulse: Pulse,
        *,
        held: Callable[[], Sequence[tuple[str, int]]],
        lost: Callable[[set[str]], None],
        also: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine, self._lease_s, self._pulse = engine, lease_s, pulse
        self._held, self._lost, self._also = held, lost, also
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(step,), name=name, daemon=True)
            for name, step in (("renewal", self.once), ("alive", self.live))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Returns when the thread renews no more."""
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=2.0)

    def _run(self, step: Callable[[], None]) -> None:
        while not self._ended.wait(min(1.0, self._lease_s / 5)):
            step()

    def once(self) -> None:
        """Renews, unless what builds gives no sign of life. A view that a transaction of our own has locked is waited
        for: nobody else can take it meanwhile."""
        stuck = self._pulse.stuck()
        if stuck is not None:
            log.error("stalled", what=stuck, seconds=STUCK_S)
            os._exit(1)
        self._unless_silent(self._renew)

    def live(self) -> None:
        """Says that this worker lives, on the same condition; in a thread of its own, since renewing may wait."""
        self._unless_silent(self._also)

    def _renew(self) -> None:
        lost = beat(self._engine, self._held())
        if lost:
            self._lost(lost)

    def _unless_silent(self, say: Callable[[], None]) -> None:
        if self._pulse.silent_s() > max(_SILENT_LEASES * self._lease_s, 5.0):
            log.warning("not_renewed", silent_s=round(self._pulse.silent_s(), 1))
            return
        try:
            say()
        except Unavailable as error:
            log.warning("renewal_failed", error=error.code, detail=error.detail)
        except Exception as error:  # a defect must not end the thread: without it every lease would be lost
            report("renewal_failed", error)
