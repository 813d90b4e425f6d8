"""Compares the age of each entity's newest event with what its contract promises, and raises an alarm once for each
break: ``bus.freshness.broken``, and ``bus.freshness.kept`` when an event ends it.

The age counts from when the event reached its topic, however old the fact is that it tells. The broker's clock and ours
are compared for the first look after a start only; from then on an age grows with our own monotonic clock, and an event
that was not there at the last look is no older than that.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from bus.core.contracts import Contract
from bus.core.periods import parse_period
from bus.errors import Unavailable
from bus.governance.promises.store import Alarm, Kind, Promise, PromiseStore

log = structlog.get_logger(__name__)
LOOK_EVERY_S: Final = 5.0
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class _Counted:
    """An age that grows: that of the event of ``at_ms`` was ``age_s`` when our clock showed ``mono``."""

    at_ms: int
    age_s: float
    mono: float


class PromiseWatch:
    """Looks after all promises. Not thread-safe: one caller.

    ``newest``: when the newest event of each of these topics was appended (ms), without those that have none;
    ``send``: returns once Kafka has acknowledged the alarm; ``wall``: seconds since 1970, ``clock``: monotonic seconds.
    """

    def __init__(
        self,
        store: PromiseStore,
        contracts: Callable[[], Mapping[str, Contract]],
        newest: Callable[[Collection[str]], Mapping[str, int]],
        send: Callable[[Alarm], None],
        *,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._contracts, self._newest, self._send = store, contracts, newest, send
        self._wall, self._clock = wall, clock
        self._counted: dict[str, _Counted] = {}
        self._looked: float | None = None
        self._unreadable: set[str] = set()

    def look(self) -> None:
        """One look at every promise, and every alarm that waits is sent. Raises `Unavailable`: nothing is lost then,
        and the next look goes on."""
        contracts = self._readable(self._contracts())
        known = self._watched(contracts)
        newest = self._newest({contract.topic for contract in contracts.values()})
        found = {entity: newest[c.topic] for entity, c in contracts.items() if c.topic in newest}
        mono = self._clock()
        self._store.note({entity: at for entity, at in found.items() if known[entity].newest_ms != at})
        for entity, contract in contracts.items():
            promise = known[entity]
            at_ms = found.get(entity) or promise.newest_ms  # what retention took was there all the same
            self._judge(contract, promise, at_ms, self._age(entity, at_ms or promise.since_ms, mono))
        self._looked = mono
        for alarm in self._store.unsent():
            self._send(alarm)
            self._store.sent(alarm)

    def run(self, stopping: threading.Event, every_s: float = LOOK_EVERY_S) -> None:
        """Looks again and again until it is told to stop. Trouble passes by itself."""
        while not stopping.wait(every_s):
            try:
                self.look()
            except Unavailable as error:
                log.warning("promises_not_watched", error=error.code, detail=error.detail)
            except Exception as error:  # a defect must not end the watch: it is reported with each look
                log.error("promises_failed", exc_info=error)

    def _readable(self, contracts: Mapping[str, Contract]) -> dict[str, Contract]:
        """The contracts in force whose promise is a period; one that is not is reported once and not watched."""
        found = {}
        for entity, contract in contracts.items():
            if contract.retired:
                continue
            try:
                parse_period(contract.freshness).after(_EPOCH + dt.timedelta(seconds=self._wall()))
            except (ValueError, OverflowError):
                if entity not in self._unreadable:
                    self._unreadable.add(entity)
                    log.warning("promise_not_readable", entity=entity, promise=contract.freshness)
            else:
                found[entity] = contract
        return found

    def _watched(self, contracts: Mapping[str, Contract]) -> dict[str, Promise]:
        """The promises as stored, those of new, changed and retired contracts brought up to date."""
        known = self._store.all()
        if gone := known.keys() - contracts.keys():
            self._store.drop(gone)
        for entity, contract in contracts.items():
            if entity not in known or known[entity].promise != contract.freshness:
                now_ms = int(self._wall() * 1_000)
                self._store.begin(Promise(entity, contract.department, contract.freshness, now_ms, None, False, None))
        return self._store.all()

    def _age(self, entity: str, at_ms: int, mono: float) -> float:
        counted = self._counted.get(entity)
        if counted is None or counted.at_ms != at_ms:
            age_s = max(0.0, self._wall() - at_ms / 1_000)
            if counted is not None and self._looked is not None:
                age_s = min(age_s, mono - self._looked)
            counted = self._counted[entity] = _Counted(at_ms, age_s, mono)
        return counted.age_s + mono - counted.mono

    def _judge(self, contract: Contract, promise: Promise, at_ms: int | None, age_s: float) -> None:
        counts_from = _EPOCH + dt.timedelta(milliseconds=at_ms or promise.since_ms)
        allowed_s = (parse_period(contract.freshness).after(counts_from) - counts_from).total_seconds()
        broken = age_s > allowed_s
        if broken is not promise.broken:
            kind: Kind = "broken" if broken else "kept"
            now_ms = int(self._wall() * 1_000)
            event_id = f"{contract.id}.{kind}.{now_ms}"  # kept with the alarm: sent twice it is the same event
            alarm = Alarm(event_id, contract.id, kind, now_ms, _data(contract, at_ms, age_s))
            if self._store.turn(alarm):
                log.warning("freshness", entity=contract.id, promise=contract.freshness, state=kind)


def _data(contract: Contract, at_ms: int | None, age_s: float) -> dict[str, Any]:
    newest = None if at_ms is None else (_EPOCH + dt.timedelta(milliseconds=at_ms)).isoformat().replace("+00:00", "Z")
    return {
        "department": contract.department,
        "entity": contract.id,
        "promise": contract.freshness,
        "newest_event": newest,
        "age_s": round(age_s, 1),
        "contact": contract.contact,
    }
