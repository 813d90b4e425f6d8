"""Who may have a stream of which view now: the grants that say so, and the decision, asked anew before data leaves."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Final

from bus.access.decision import Allow, Decider, Decision, Deny
from bus.access.identity import Subject
from bus.access.store import GrantStore
from bus.core.grants import PUBLIC
from bus.errors import Unavailable
from bus.views.catalogue import Shape

LOOK_S: Final = 0.1
Standing = tuple[str, dt.date]
Wanted = Mapping[str, Mapping[str, str]]
"""By view and consumer: the purpose."""


class Permits:
    """Asks grants and the decision. Belongs to one event loop. ``now``: aware; ``monotonic``: seconds."""

    def __init__(
        self,
        decider: Decider,
        grants: GrantStore,
        *,
        now: Callable[[], dt.datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._decider, self._grants = decider, grants
        self._now, self._monotonic = now, monotonic
        self._looked: tuple[float, Standing] | None = None
        self._wanted: tuple[Standing, Wanted] | None = None

    async def standing(self) -> Standing:
        """The revisions in force and the UTC day, looked at ten times a second: whatever changes what a decision on a
        stream says changes one of them, but for the registers. Raises `DatabaseUnavailable`."""
        now = self._monotonic()
        if self._looked is None or now - self._looked[0] >= LOOK_S:
            revision = await asyncio.to_thread(self._decider.policy_revision)
            self._looked = (now, (revision, self._now().astimezone(dt.UTC).date()))
        return self._looked[1]

    async def wanted(self) -> Wanted:
        """The streams that active grants speak of. Raises `DatabaseUnavailable`."""
        standing = await self.standing()
        if self._wanted is None or self._wanted[0] != standing:
            self._wanted = (standing, await asyncio.to_thread(self._granted))
        return self._wanted[1]

    def _granted(self) -> Wanted:
        found: defaultdict[str, dict[str, str]] = defaultdict(dict)
        at = self._now()
        for grant in self._grants.streamed():
            if grant.active(at) and grant.consumer != PUBLIC:  # everybody has no topic of its own
                found[grant.view][grant.consumer] = grant.purpose
        return found

    async def decide(self, consumer: str, shape: Shape, purpose: str) -> Decision:
        """What the consumer may see by way of its stream."""
        return await self._decider.decide(Subject(consumer), shape, purpose, "stream")

    async def ended_because(self, deny: Deny, grants: str) -> str:
        """Why a stream ends, in words for its consumer: the refusal's code, and what was said when a grant went."""
        said = [await asyncio.to_thread(self._grants.last_change, grant) for grant in grants.split(",") if grant]
        reasons = [reason for change, reason in said if change == "revoked" and reason]
        return ": ".join([deny.error.code, *reasons])


def passing(decision: Decision) -> bool:
    """Whether a decision says nothing for good: it could not be had."""
    return isinstance(decision, Deny) and isinstance(decision.error, Unavailable)


def reason(old: str, allow: Allow) -> str:
    """What moved between two policy revisions, ``rules.grants``: rules, grants, or only the day."""
    before, after = old.partition("."), allow.policy_revision.partition(".")
    moved = [name for name, place in (("rules", 0), ("grants", 2)) if before[place] != after[place]]
    return " and ".join(moved) or "day"
