"""Keeps broker, registry and change logs as the grants of streams want them, and reports who changed them meanwhile."""

from __future__ import annotations

import datetime as dt
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from bus.access.broker import Broker, Drift
from bus.access.store import GrantStore
from bus.contracts.directory import Directory
from bus.contracts.registry import Registry
from bus.errors import BrokerUnavailable, Unavailable
from bus.governance.shares.store import DriftAlarm, DriftStore
from bus.governance.shares.wanted import Wanted, wanted
from bus.views.catalogue import Shape
from bus.views.changelog.streamed import Streamed

log = structlog.get_logger(__name__)
EVERY_S: Final = 5.0
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class BrokerState:
    """How the broker was found last. ``in_order``: whether it was made as it should be; ``at_ms``: when that was last
    so; ``problem``: what is in the way; ``added`` and ``removed``: how many ACLs somebody else had added and removed
    that were put right since this process started."""

    in_order: bool = False
    at_ms: int | None = None
    shares: int = 0
    added: int = 0
    removed: int = 0
    problem: str = "not looked at yet"


class Shares:
    """Thread-safe; calls block. ``announce``: tells workers that the streamed views are others; ``send``: returns once
    Kafka has acknowledged an alarm; ``now``: the time, aware."""

    def __init__(
        self,
        *,
        grants: GrantStore,
        directory: Directory,
        shapes: Callable[[], Mapping[str, Shape]],
        registry: Registry,
        streamed: Streamed,
        broker: Broker,
        alarms: DriftStore,
        announce: Callable[[], None],
        send: Callable[[DriftAlarm], None],
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._grants, self._directory, self._shapes, self._registry = grants, directory, shapes, registry
        self._streamed, self._broker, self._alarms = streamed, broker, alarms
        self._announce, self._send, self._now = announce, send, now
        self._lock = threading.Lock()
        self._done: Wanted | None = None
        self._known: tuple[tuple[Any, ...], Wanted] | None = None
        self._registered: tuple[int, Mapping[str, Any]] = (-1, {})
        self._state = BrokerState()

    def changed(self) -> None:
        """Grants, departments or views may be others: returns once broker, registry and the set of streamed views
        follow. Raises `BrokerUnavailable` where the broker could not be told; every door of serve follows the grants
        all the same, and it is tried again every few seconds."""
        with self._lock:
            try:
                self._follow(whole=False)
            except BrokerUnavailable as error:
                self._trouble(error)
                text = "It is recorded and in force at this server, but Kafka did not take the change of its ACLs yet."
                raise BrokerUnavailable(f"{text} That is tried again until it does; `bus status` shows it.") from error

    def reconcile(self) -> None:
        """Looks at everything, puts right what differs, and reports it. Raises `Unavailable`: nothing is lost then."""
        with self._lock:
            try:
                self._follow(whole=True)
            except Unavailable as error:
                self._trouble(error)
                raise
        for alarm in self._alarms.unsent():
            self._send(alarm)
            self._alarms.sent(alarm)

    def run(self, stopping: threading.Event, every_s: float = EVERY_S) -> None:
        """Reconciles at once, then again and again, and when a day begins, until it is told to stop."""
        pause = 0.0
        while not stopping.wait(pause):
            try:
                self.reconcile()
            except Unavailable as error:
                log.warning("broker_not_reconciled", error=error.code, detail=error.detail)
            except Exception as error:  # a defect must not end the watch: it is reported with each look
                log.error("broker_failed", exc_info=error)
                self._trouble(error)
            pause = min(every_s, self._until_midnight_s())

    def _follow(self, *, whole: bool) -> None:
        """Again where grants changed meanwhile, so that a slower process takes nothing back that a faster one did."""
        for _ in range(_TRIES):
            revision = self._grants.revision()
            asked = self._wanted()
            if whole or asked != self._done:
                self._make(asked)
            if self._grants.revision() == revision:
                return
        raise BrokerUnavailable("Grants change faster than the broker can be told.")

    def _wanted(self) -> Wanted:
        """Worked out anew where something that goes into it is another, so that a change of a grant that has no stream
        costs the same however many streams there are."""
        grants, now = self._grants.streamed(), self._now()
        given = (self._directory.departments(), dict(self._shapes()), now.astimezone(dt.UTC).date())
        if self._known is None or self._known[0][0] is not grants or self._known[0][1:] != given:
            self._known = ((grants, *given), wanted(grants, given[0], given[1], now))
        return self._known[1]

    def _make(self, asked: Wanted) -> None:
        """What is taken away goes first."""
        drift = self._broker.reconcile(asked.standing)
        self._broker.open_shares(asked.standing.shares)
        self._register(asked.schemas)
        if self._streamed.put(asked.views):
            self._announce()
        self._done = asked
        self._state = BrokerState(
            in_order=True,
            at_ms=time.time_ns() // 1_000_000,
            shares=len(asked.standing.shares),
            added=self._state.added + len(drift.added),
            removed=self._state.removed + len(drift.removed),
            problem="",
        )
        if drift:
            self._report(drift)

    def _register(self, schemas: Mapping[str, Mapping[str, Any]]) -> None:
        """All of them again only where the registry is another than when they were last looked at."""
        revision, (known_at, known) = self._registry.revision(), self._registered
        for subject, schema in schemas.items():
            if revision != known_at or known.get(subject) != schema:
                self._registry.register_share(subject, schema)
        self._registered = (revision, schemas)  # what was added here raised the revision, and is looked at once more

    def _report(self, drift: Drift) -> None:
        data = {"added": sorted(map(str, drift.added)), "removed": sorted(map(str, drift.removed))}
        log.warning("broker_drift", **data)
        self._alarms.add(DriftAlarm(f"bus.broker.{uuid.uuid4().hex}", time.time_ns() // 1_000_000, data))

    def _trouble(self, error: BaseException) -> None:
        known = self._state
        problem = error.detail if isinstance(error, Unavailable) else type(error).__name__
        self._state = BrokerState(False, known.at_ms, known.shares, known.added, known.removed, problem)

    def _until_midnight_s(self) -> float:
        now = self._now().astimezone(dt.UTC)
        midnight = dt.datetime.combine(now.date() + dt.timedelta(days=1), dt.time(), dt.UTC)
        return max((midnight - now).total_seconds(), 0.0) + 0.01

    def found(self) -> BrokerState:
        """As it was left by the last look."""
        return self._state

    def status(self) -> dict[str, Any]:
        """What `bus status --json` shows of the broker. Raises `DatabaseUnavailable`."""
        state, last = self._state, next(iter(self._alarms.alarms(1)), None)
        return {
            "in_order": state.in_order,
            "reconciled_ms": state.at_ms,
            "shares": state.shares,
            "repaired": {"added": state.added, "removed": state.removed},
            "last_drift": {"at_ms": last.at_ms, **last.data} if last else None,
            "problem": state.problem,
        }
