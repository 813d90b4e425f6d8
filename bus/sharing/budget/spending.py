"""What a question costs, and whether it could be played off against an earlier one of the same day (A12).

Two figures whose questions differ in one filter may, subtracted, tell of the few rows between them. Rounding and
withholding make that inexact, the budget makes it slow; what remains is marked in the audit log for people to look at.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from bus.access.decision import Allow
from bus.core.masks import keyed_hash
from bus.errors import BudgetSpent
from bus.sharing.budget.store import BudgetStore
from bus.sharing.permitted import Permitted

DAILY: Final[Mapping[str, int]] = {"aggregate": 200, "question": 1_000}


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def daily(allow: Allow) -> int | None:
    """How many questions a day the grant allows; None: any number. Where it does not say, as many as `DAILY` has for
    who may not fetch the rows."""
    if allow.limits.per_day is not None:
        return allow.limits.per_day
    guarded = allow.channel == "question" or allow.least_group is not None
    return DAILY.get(allow.channel) if guarded else None


def differ_in_one(first: frozenset[str], second: frozenset[str]) -> bool:
    """Whether two sets of filters differ in one: it is there or not, or stands for another."""
    more, fewer = len(first - second), len(second - first)
    return more + fewer > 0 and more <= 1 and fewer <= 1


def filters_of(permitted: Permitted, key: bytes) -> frozenset[str]:
    """Each filter of a question as a keyed hash, so that questions can be compared and no value is kept."""
    parts = [repr(item) for item in permitted.filters]
    parts += [f"as of {permitted.moment!r}"] if permitted.moment else []
    return frozenset(keyed_hash(key, part) for part in parts)


class Budget:
    """Counts questions by consumer, view, purpose, channel and UTC day. ``secret``: what hashes are keyed with."""

    def __init__(self, store: BudgetStore, secret: bytes, *, clock: Callable[[], dt.datetime] = _utc_now) -> None:
        self._store, self._secret, self._clock = store, secret, clock

    async def spend(self, allow: Allow, permitted: Permitted | None = None) -> int:
        """Counts one question of a grant that has a budget. With ``permitted``, how many questions of today differ from
        it in one filter. Raises `BudgetSpent`, and `DatabaseUnavailable` where it cannot be counted."""
        limit = daily(allow)
        if limit is None:
            return 0
        filters = None if permitted is None else filters_of(permitted, self._secret)
        now = self._clock().astimezone(dt.UTC)
        account = {"consumer": allow.consumer, "view": allow.view, "purpose": allow.purpose, "channel": allow.channel}
        earlier = await asyncio.to_thread(self._store.spend, account, now.date(), limit, filters)
        if earlier is None:
            raise _spent(limit, allow.purpose, now)
        return _near(filters or frozenset(), earlier)


def _near(filters: frozenset[str], earlier: Iterable[frozenset[str]]) -> int:
    return sum(differ_in_one(filters, one) for one in earlier)


def _spent(limit: int, purpose: str, now: dt.datetime) -> BudgetSpent:
    renews = dt.datetime.combine(now.date() + dt.timedelta(days=1), dt.time(), dt.UTC)
    seconds = int((renews - now).total_seconds()) + 1
    at = renews.isoformat().replace("+00:00", "Z")
    return BudgetSpent(limit=limit, purpose=purpose, renews_at=at, retry_after_s=seconds)
