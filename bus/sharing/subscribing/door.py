"""The door to streams over HTTP: from a request to one open stream, after its audit entry is written.

In this order: the places, the view, the grant, the purpose, the channel (all in one decision), the cursor, the limits,
the view's state, whether the topic holds what was decided, the audit entry.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from bus.access.decision import Allow, Deny
from bus.access.identity import Subject
from bus.audit.entries import Closing
from bus.audit.log import AuditLog
from bus.core.shares import share_topic
from bus.errors import Missing, PolicyUnavailable, Refused, StreamStarting, TooManyStreams, UnknownView
from bus.sharing.admission import REFUSALS_A_MINUTE, Admission
from bus.sharing.recording import refusal, under
from bus.sharing.subscribing.client import HEARTBEAT_S, IDENTITY_S, SLOW_S, Client
from bus.sharing.subscribing.cursors import Cursors, Place, Scope
from bus.sharing.subscribing.permissions import LOOK_EVERY_S, Permission, Permissions
from bus.sharing.subscribing.resuming import Bounds
from bus.sharing.subscribing.topics import Topics
from bus.sharing.watch import Standing, Watch
from bus.views.catalogue import Shape

SETTLED_WITHIN_S: Final = 2.0
OPENINGS: Final = 8  # at once: a thousand that come back together shall not hold up decisions and answers


@dataclass(frozen=True, slots=True)
class Limits:
    """Open streams of one department, and in all; seconds between signs of life, that a client may take nothing, and
    between proofs of who it is."""

    department: int = 20
    all: int = 1_000
    heartbeat_s: float = HEARTBEAT_S
    slow_s: float = SLOW_S
    identity_s: float = IDENTITY_S


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks for the stream of which view. ``cursor``: of the last event; ``still``: proves anew who it is."""

    subject: Subject
    view: str
    purpose: str | None
    cursor: str | None
    still: Callable[[], Awaitable[Subject]]
    request_id: str = ""


class Stream:
    """An open stream; whoever got it must `close` it. ``allow``: the decision that opened it."""

    def __init__(self, client: Client, allow: Allow, standing: Standing, close: Callable[[], Awaitable[None]]) -> None:
        self.client, self.allow, self.standing = client, allow, standing
        self.close = close
        """Frees its place and writes the closing audit entry. Raises `AuditUnavailable`."""


class ChangesDoor:
    """Opens streams. Belongs to one event loop. ``shapes``: the views as they are now."""

    def __init__(
        self,
        *,
        permissions: Permissions,
        topics: Topics,
        cursors: Cursors,
        audit: AuditLog,
        watch: Watch,
        shapes: Callable[[], Awaitable[Mapping[str, Shape]]],
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._permissions, self._topics, self._cursors = permissions, topics, cursors
        self._audit, self._watch, self._shapes = audit, watch, shapes
        self._limits = limits or Limits()
        self._admission = Admission(clock)
        self._open: Counter[str] = Counter()
        self._turns = asyncio.Semaphore(OPENINGS)

    @property
    def open(self) -> Mapping[str, int]:
        """How many streams are open, by department."""
        return dict(self._open)

    async def open_stream(self, asked: Asked) -> Stream:
        """The stream, ready to be handed out.

        Raises what the query door raises for a refusal, `BadCursor`, `TooManyStreams`, `RateLimited`,
        `StreamStarting` while the topic does not hold what was decided, `AuditUnavailable`, `BrokerUnavailable`.
        """
        async with contextlib.AsyncExitStack() as held:
            held.enter_context(self._place(asked.subject.department))
            permission = await self._permitted(asked, held)
            scope = Scope(asked.subject.department, asked.view, asked.purpose or "")
            place = self._cursors.read(asked.cursor, scope) if asked.cursor is not None else None
            allow = _allowed(permission)
            self._admission.count((scope.consumer, allow.grant_ids), allow.limits.per_minute)
            standing = await self._standing(scope.view)
            floor = await _settled(permission)
            async with self._turns:
                bounds = await self._topics.bounds(share_topic(scope.consumer, scope.view))
            client = self._client(asked, permission, (place, bounds, floor))
            held.push_async_callback(client.close)
            held.callback(self._permissions.drop, permission, client)
            allow = _allowed(permission)
            sequence = await self._audit.append(_disclosure(asked, allow, place))
            held.push_async_callback(self._record_end, asked, sequence, client)
            return Stream(client, allow, standing, held.pop_all().aclose)

    async def allowed(self, asked: Asked) -> tuple[Allow, int | None]:
        """The decision on a stream, and the offset from which its topic may be read; None: it is being made ready.
        Raises as `open_stream` does for a refusal."""
        async with contextlib.AsyncExitStack() as held:
            permission = await self._permitted(asked, held)
            return _allowed(permission), permission.floor

    async def close(self) -> None:
        """Gives back what it holds."""
        await self._permissions.close()
        await self._topics.close()

    async def _permitted(self, asked: Asked, held: contextlib.AsyncExitStack) -> Permission:
        """Raises the error of a decision that is none or no, after a no is recorded."""
        holder = _Nobody()
        async with self._turns:
            permission, decision = await self._permissions.take(asked.subject, asked.view, asked.purpose, holder)
        held.callback(self._permissions.drop, permission, holder)
        if isinstance(decision, Deny):
            await self._refuse(decision, asked)
        return permission

    async def _standing(self, view: str) -> Standing:
        shape = (await self._shapes()).get(view)
        if shape is None:
            raise UnknownView(view=view)
        return await self._watch.standing(shape)

    def _client(self, asked: Asked, permission: Permission, begin: tuple[Place | None, Bounds, int]) -> Client:
        limits = self._limits
        times = {"heartbeat_s": limits.heartbeat_s, "slow_s": limits.slow_s, "identity_s": limits.identity_s}
        return Client(permission, self._topics, self._cursors, asked.still, begin=begin, **times)

    async def _refuse(self, deny: Deny, asked: Asked) -> NoReturn:
        error = deny.error
        self._admission.count((asked.subject.department, "refused"), REFUSALS_A_MINUTE)
        if isinstance(error, Refused | Missing):
            entry = refusal(
                asked.subject, asked.view, deny, purpose=asked.purpose, channel="stream", request_id=asked.request_id
            )
            await self._audit.append(entry)
        if deny.policy_revision:
            error.members.setdefault("policy_revision", deny.policy_revision)
        raise error

    async def _record_end(self, asked: Asked, opening: int, client: Client) -> None:
        closing = Closing(request_id=asked.request_id, opening=opening, rows=client.rows, complete=client.complete)
        await self._audit.append(closing.body())

    @contextlib.contextmanager
    def _place(self, department: str) -> Iterator[None]:
        if self._open[department] >= self._limits.department:
            raise TooManyStreams(who=department, limit=self._limits.department)
        if self._open.total() >= self._limits.all:
            raise TooManyStreams(who="The bus", limit=self._limits.all)
        self._open[department] += 1
        try:
            yield
        finally:
            self._open[department] -= 1
            if not self._open[department]:
                del self._open[department]


class _Nobody:
    """Holds a permission while it is looked at."""

    def changed(self) -> None:
        """It looks itself."""


def _allowed(permission: Permission) -> Allow:
    """The newest decision. Raises what ended the permission since."""
    if permission.ended is not None:
        raise permission.ended.error
    if permission.allow is None:
        raise PolicyUnavailable()
    return permission.allow


async def _settled(permission: Permission) -> int:
    """The first offset that may be read, once the topic is known to hold what was decided. Raises `StreamStarting`."""
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while (floor := permission.floor) is None:
        allow = _allowed(permission)
        if time.monotonic() > deadline:
            raise StreamStarting(view=permission.view, policy_revision=allow.policy_revision)
        await asyncio.sleep(LOOK_EVERY_S / 4)
    return floor


def _disclosure(asked: Asked, allow: Allow, place: Place | None) -> dict[str, Any]:
    """The entry of a stream that is about to be handed out; a `Closing` follows with its rows."""
    question = {"changes": True, "after_offset": None if place is None else place.offset}
    masked = list(allow.masks)
    return under(
        asked.subject, allow, columns=allow.columns, masked=masked, question=question, request_id=asked.request_id
    )
