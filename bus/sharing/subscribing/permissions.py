"""Staying decided: open streams are asked about again, once for all that are alike, for as long as they are open.

Ten times a second one look at the revisions of grants and rules; when they moved, and each second in any case, every
subscription is decided anew. Between a decision and the moment at which the topic is known to hold those very terms,
and whenever no decision can be had, nothing is handed out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, Final, Protocol

import sqlalchemy as sa

from bus.access.decision import Allow, Decider, Decision, Deny
from bus.access.identity import PUBLIC_SUBJECT, Subject
from bus.core.views import View
from bus.errors import BusError, DatabaseUnavailable, Unavailable, UnknownView
from bus.sharing.streams.states import SubscriptionState
from bus.sharing.streams.store import StreamStore
from bus.sharing.streams.terms import Terms
from bus.views.catalogue import Shape

LOOK_EVERY_S: Final = 0.1
DECIDE_EVERY_S: Final = 1.0
GOOD_S: Final = 2.0  # how long a look counts: as long as the canary decision
_NO_VIEW: Final = Shape(View("canary", {}, "canary", "entity", ("id",), listed=False), ())
_OPEN: Final = ("starting", "running")
log = logging.getLogger(__name__)


class Holder(Protocol):
    """An open stream."""

    def changed(self) -> None:
        """Its permission may be another than before. Must not block."""


class Permission:
    """What one subject may read of one view's stream for one purpose, as it stands now; shared by its open streams.

    ``allow``: the newest decision that allowed; ``ended``: why it is over, None while it is not.
    """

    def __init__(self, subject: Subject, view: str, purpose: str | None, fresh: Callable[[], bool]) -> None:
        self.subject, self.view, self.purpose = subject, view, purpose
        self.allow: Allow | None = None
        self.ended: Deny | None = None
        self.holders: set[Holder] = set()
        self._fresh = fresh
        self._floor: int | None = None
        self._digest = ""

    @property
    def floor(self) -> int | None:
        """The first offset that may be handed out now; None: nothing may."""
        return self._floor if self.ended is None and self._fresh() else None

    def decided(self, decision: Decision) -> None:
        """Takes over a new decision; what the topic holds must be compared with it before anything is handed out."""
        if isinstance(decision, Allow):
            digest = Terms.of(decision).digest
            if digest != self._digest:
                self.hold()
            self.allow, self._digest = decision, digest
        elif isinstance(decision.error, Unavailable):
            self.hold()
        else:
            self.ended = decision
            self.hold()

    def settle(self, state: SubscriptionState | None) -> None:
        """Compares the decision with what the topic holds."""
        if state is None or state.digest != self._digest or state.state not in _OPEN or not self._digest:
            self.hold()
        elif self._floor != state.boundary:
            self._floor = state.boundary
            self._tell()

    def hold(self) -> None:
        """Hands out nothing until it is settled again."""
        if self._floor is not None or self.ended is not None:
            self._floor = None
            self._tell()

    @property
    def settled(self) -> bool:
        return self._floor is not None

    def _tell(self) -> None:
        for holder in list(self.holders):
            holder.changed()


class Permissions:
    """The permissions of all open streams. Belongs to one event loop; looks only while there are any.

    ``shapes``: the views as they are now; ``clock``: monotonic seconds.
    """

    def __init__(
        self,
        decider: Decider,
        store: StreamStore,
        shapes: Callable[[], Awaitable[Mapping[str, Shape]]],
        clock: Callable[[], float],
    ) -> None:
        self._decider, self._store, self._shapes, self._clock = decider, store, shapes, clock
        self._held: dict[Hashable, Permission] = {}
        self._looking: asyncio.Task[None] | None = None
        self._looked = self._decided = float("-inf")
        self._revision = ""

    async def take(
        self, subject: Subject, view: str, purpose: str | None, holder: Holder
    ) -> tuple[Permission, Decision]:
        """The permission with the decision made now. It is kept up to date until `drop`."""
        key = _key(subject, view, purpose)
        permission = self._held.get(key)
        if permission is None or permission.ended is not None:
            permission = self._held[key] = Permission(subject, view, purpose, self._fresh)
        permission.holders.add(holder)
        try:
            decision = await self._decision(permission)
            permission.decided(decision)
            if permission.ended is None:
                await self._settle([permission])
        except BaseException:
            self.drop(permission, holder)
            raise
        if self._looking is None or self._looking.done():
            self._looked = self._clock()
            self._looking = asyncio.create_task(self._run(), name="permissions of open streams")
        return permission, decision

    def drop(self, permission: Permission, holder: Holder) -> None:
        """A stream that closed."""
        permission.holders.discard(holder)
        key = _key(permission.subject, permission.view, permission.purpose)
        if not permission.holders and self._held.get(key) is permission:
            del self._held[key]

    async def close(self) -> None:
        """Stops looking."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking

    def _fresh(self) -> bool:
        return self._clock() - self._looked <= GOOD_S

    async def _run(self) -> None:
        """Ends with the last open stream. Whatever goes wrong, nothing is handed out until a look succeeds."""
        while self._held:
            try:
                await self._look()
            except (BusError, sa.exc.SQLAlchemyError) as error:
                log.warning("Open streams are held: %s", type(error).__name__)
                self._hold()
            except Exception:
                log.exception("Open streams are held")
                self._hold()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        """A question whose answer can only be no tells whether decisions can be had, and under which revisions."""
        started = self._clock()
        probe = await self._decider.decide(PUBLIC_SUBJECT, _NO_VIEW, None, "query")
        if not isinstance(probe, Deny) or isinstance(probe.error, Unavailable):
            self._hold()
            return
        due = probe.policy_revision != self._revision or started - self._decided >= DECIDE_EVERY_S
        if due:
            for permission in list(self._held.values()):
                permission.decided(await self._decision(permission))
                await asyncio.sleep(0)  # a thousand of them shall not hold up the answers of others
            self._revision, self._decided = probe.policy_revision, started
        if due or not all(permission.settled for permission in self._held.values()):
            await self._settle([one for one in self._held.values() if one.ended is None])
        self._looked = started

    async def _decision(self, permission: Permission) -> Decision:
        try:
            shape = (await self._shapes()).get(permission.view)
        except sa.exc.SQLAlchemyError as error:
            raise DatabaseUnavailable() from error
        if shape is None:
            return Deny(UnknownView(view=permission.view))
        return await self._decider.decide(permission.subject, shape, permission.purpose, "stream")

    async def _settle(self, permissions: list[Permission]) -> None:
        states = {state.pair: state for state in await asyncio.to_thread(self._store.subscriptions)}
        for permission in permissions:
            permission.settle(states.get((permission.subject.department, permission.view)))

    def _hold(self) -> None:
        for permission in self._held.values():
            permission.hold()


def _key(subject: Subject, view: str, purpose: str | None) -> tuple[Any, ...]:
    attributes = sorted((name, type(value).__name__, value) for name, value in subject.attributes.items())
    return (subject.department, subject.officer, tuple(attributes), view, purpose)
