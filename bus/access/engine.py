"""OPA as the doors see it: one time budget, a revision that does not change half-way, and a canary.

A Compile answer carries no revision, so the revision is asked before and after. 2 s after the last good
canary nothing is decided any more, cached or not: an engine that cannot answer cannot be trusted to have
the current rules either.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bus.access.answers import EVERY_ROW, NO_ROW, Comparison, Filter, Verdict
from bus.access.answers import And as AllOf
from bus.access.opa import BUNDLE, OpaClient
from bus.core.contracts import Kind
from bus.errors import BusError, PolicyError, PolicyStale, PolicyUnavailable

REPEATS: Final = 3
FAILURES: Final = 5
log = logging.getLogger(__name__)

_CANARY_KINDS: Final = {"ward": Kind.INTEGER}
_CANARY_FILTER: Final = AllOf((Comparison("ward", "ne", None), Comparison("ward", "eq", 1)))
_CANARY_FACTS: Final[Mapping[str, Any]] = {
    "subject": {"department": "canary", "officer": None, "attributes": {}},
    "view": "canary",
    "purpose": "canary",
    "channel": "query",
    "time": "2026-01-01T00:00:00+00:00",
    "grants": [
        {
            "id": "canary",
            "consumer": "canary",
            "view": "canary",
            "purpose": "canary",
            "channels": ["query"],
            "valid_from": "2026-01-01",
            "valid_to": "2026-01-01",
            "rows": [[{"field": "ward", "op": "eq", "value": 1}]],
        }
    ],
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One decision of OPA: the verdict, the rows that the grant allows and those of them that the view's own rule lets
    through (none where it is a deny), the rules it was made under."""

    verdict: Verdict
    rows: Filter
    revision: int
    narrowed: Filter = EVERY_ROW


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds. ``budget``: one decision with all its calls. ``canary_every`` and ``canary_good``: how often the
    built-in decision is asked, and how long a good one counts. ``rules_age``: how long older rules may go on
    after newer ones were published, and how long OPA may go without hearing from the bundle server. ``seats``:
    decisions under way at once; ``seat_wait``: how long one waits for a place, beside its budget."""

    budget: float = 0.3
    seats: int = 6
    seat_wait: float = 0.15
    canary_every: float = 1.0
    canary_good: float = 2.0
    rules_age: float = 600.0


class PolicyEngine:
    """Asks OPA under the limits. Belongs to one event loop."""

    def __init__(
        self,
        opa: OpaClient,
        *,
        limits: Limits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._opa = opa
        self._limits = limits or Limits()
        self._monotonic = monotonic
        self._wall = wall
        self._last_good: float | None = None
        self._failures = 0
        self._watched = False
        self._silent_since: float | None = None
        self.revision: int | None = None
        """The rules revision that OPA last reported."""
        self._newest = 0
        self._seats = asyncio.Semaphore(self._limits.seats)

    async def watch(self) -> None:
        """Asks the canary for ever. Run it as one background task."""
        self._watched = True
        try:
            while True:
                started = self._monotonic()
                await self._canary_or_log()
                await asyncio.sleep(max(0.0, self._limits.canary_every - (self._monotonic() - started)))
        finally:
            self._watched = False

    async def ready(self, published: int, published_at: float) -> int:
        """The rules revision in force, if decisions (cached ones included) may be given now.

        ``published`` and ``published_at``: the newest rules that the bus signed, and when (seconds since 1970).
        Raises `PolicyUnavailable` without a recent good canary, `PolicyStale` for missing, older or stale rules.
        """
        if not self._watched and not self._good_within(self._limits.canary_every):
            await self._canary_or_log()
        if not self._good_within(self._limits.canary_good) or self._failures >= FAILURES:
            raise PolicyUnavailable()
        return self._fresh(self.revision, published, published_at)

    async def ask(self, facts: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Outcome:
        """One decision, whole and under one revision. A few are asked at once, so that a crowd of new questions does
        not make each of them late, which would look like an engine that is gone.

        Raises `PolicyUnavailable`, `PolicyStale`, `PolicyError`.
        """
        try:
            await asyncio.wait_for(self._seats.acquire(), self._limits.seat_wait)
        except TimeoutError as error:  # says nothing of the engine, so it is not counted as its failure
            raise PolicyUnavailable() from error
        try:
            async with asyncio.timeout(self._limits.budget):
                outcome = await self._ask(facts, kinds)
        except (TimeoutError, PolicyUnavailable) as error:
            self._failures += 1
            raise PolicyUnavailable() from error
        finally:
            self._seats.release()
        self._failures = 0
        return outcome

    async def _ask(self, facts: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Outcome:
        verdict = await self._opa.verdict(facts)
        for _ in range(REPEATS):
            if not verdict.allow:
                return Outcome(verdict, NO_ROW, self._seen(verdict.revision), NO_ROW)
            rows = await self._opa.rows(facts, kinds)
            narrowed = await self._narrowed(verdict, facts, kinds)
            again = await self._opa.verdict(facts)
            if again == verdict:
                return Outcome(verdict, rows, self._seen(verdict.revision), narrowed)
            verdict = again
        raise PolicyUnavailable()

    async def _narrowed(self, verdict: Verdict, facts: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Filter:
        if not verdict.narrowing.ruled:
            return EVERY_ROW
        return await self._opa.narrowed(facts, kinds) if verdict.narrowing.allow else NO_ROW

    async def _canary_or_log(self) -> None:
        """Takes at most the time until the next one: a busy machine shall not close the doors, an engine that is
        gone does, since a good canary counts from its first question."""
        try:
            async with asyncio.timeout(max(self._limits.budget, self._limits.canary_every)):
                await self._canary()
        except (TimeoutError, BusError) as error:
            log.warning("The canary decision failed: %s", type(error).__name__)

    async def _canary(self) -> None:
        asked = self._monotonic()
        good, revision = await self._opa.canary()
        rows = await self._opa.rows(_CANARY_FACTS, _CANARY_KINDS)
        if not good or rows != _CANARY_FILTER:
            log.error("OPA answers the built-in decision wrongly: nothing is shown until it does not")
            raise PolicyError()
        self.revision = revision
        self._newest = max(self._newest, revision or 0)
        self._last_good = asked
        self._failures = 0
        self._silent_since = _last_heard(await self._opa.status())

    def _good_within(self, seconds: float) -> bool:
        return self._last_good is not None and self._monotonic() - self._last_good <= seconds

    def _seen(self, revision: int | None) -> int:
        """The revision of a fresh answer; one that goes back is refused at once (F20)."""
        if revision is None or revision < self._newest:
            raise PolicyStale()
        self.revision = self._newest = revision
        return revision

    def _fresh(self, revision: int | None, published: int, published_at: float) -> int:
        if revision is None or revision < self._newest:
            raise PolicyStale()
        if revision < published and self._wall() - published_at > self._limits.rules_age:
            raise PolicyStale()
        if self._silent_since is not None and self._wall() - self._silent_since > self._limits.rules_age:
            raise PolicyStale()
        return revision


def _last_heard(status: Any) -> float | None:
    """When OPA last got an answer from the bundle server (seconds since 1970); None where OPA does not say."""
    for member in ("result", "bundles", BUNDLE, "last_successful_request"):
        if not isinstance(status, dict) or member not in status:
            return None
        status = status[member]
    try:
        return dt.datetime.fromisoformat(status).timestamp()
    except (TypeError, ValueError) as error:
        raise PolicyError() from error
