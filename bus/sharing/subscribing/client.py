"""One open stream: a reader's way through the topic as the bytes of Server-Sent Events, and the end of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, Final

from bus.access.decision import Allow, Deny
from bus.access.identity import Subject
from bus.core.shares import share_topic
from bus.errors import BusError, InvalidToken
from bus.sharing.subscribing.changes import ENDED, Notice, Upsert, event_lines
from bus.sharing.subscribing.cursors import Cursors, Place, Scope
from bus.sharing.subscribing.permissions import Permission
from bus.sharing.subscribing.resuming import Bounds, Reading
from bus.sharing.subscribing.topics import QUEUED, Entry, Gone, Topics

HEARTBEAT_S: Final = 15.0
SLOW_S: Final = 30.0
_GRACE_S: Final = 1.0
IDENTITY_S: Final = 5.0
_CHUNK: Final = 16 * 1024
_RETRY: Final = b"retry: 2000\n\n"
_HEARTBEAT: Final = b":\n\n"
_Told = tuple[bytes, int]  # events, and how many of them are rows


class TooSlow(BusError):
    """The client takes nothing."""

    code = "too_slow"


class Client:
    """One client's stream. ``still``: proves again who asks; ``begin``: where (none: with all there is), of which topic
    as it is now, and the first offset that may be read. ``heartbeat_s``, ``slow_s``,
    ``identity_s``: seconds.

    ``rows``: how many rows were handed out; ``complete``: whether it ended as it should.
    """

    def __init__(
        self,
        permission: Permission,
        topics: Topics,
        cursors: Cursors,
        still: Callable[[], Awaitable[Subject]],
        *,
        begin: tuple[Place | None, Bounds, int],
        heartbeat_s: float = HEARTBEAT_S,
        slow_s: float = SLOW_S,
        identity_s: float = IDENTITY_S,
    ) -> None:
        self.permission = permission
        self.rows = 0
        self.complete = False
        self._scope = Scope(permission.subject.department, permission.view, permission.purpose or "")
        self._topic = share_topic(self._scope.consumer, self._scope.view)
        self._topics, self._cursors, self._still = topics, cursors, still
        self._heartbeat_s, self._slow_s, self._identity_s = heartbeat_s, slow_s, identity_s
        self._wake = asyncio.Event()
        self._proved = time.monotonic()
        self._unproved: Deny | None = None
        self._limit: asyncio.Timeout | None = None
        self._sending: tuple[float, int] = (0.0, 0)
        self._reading = self._read_from(*begin)
        self._tail = topics.tail(self._topic)
        self._tail.followers.add(self)
        permission.holders.add(self)

    async def close(self) -> None:
        """Frees what it held of the topic."""
        await self._topics.leave(self._tail, self)

    def changed(self) -> None:
        """The permission changed; an answer that the client does not take is not waited for any longer."""
        self._wake.set()
        if self.ended is not None:
            self._cut(_GRACE_S / 2)

    def more(self, queued: int) -> None:
        """The topic has more; a client that takes nothing while `QUEUED` records came is given up."""
        self._wake.set()
        since, before = self._sending
        if self._limit is not None and queued - before >= QUEUED:
            self._cut(max(0.0, since + _GRACE_S - asyncio.get_running_loop().time()))

    @contextlib.asynccontextmanager
    async def taking(self) -> AsyncIterator[None]:
        """Around the sending of one chunk. Raises `TooSlow` where the client does not take it in time."""
        self._sending = (asyncio.get_running_loop().time(), self._tail.queued)
        try:
            async with asyncio.timeout(self._slow_s) as self._limit:
                yield
        except TimeoutError as error:
            raise TooSlow() from error
        finally:
            self._limit = None

    @property
    def ended(self) -> Deny | None:
        """Why it is over; None while it is not."""
        return self.permission.ended or self._unproved

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body, until the permission ends."""
        yield _RETRY
        last = time.monotonic()
        while await self._may_go_on():
            self._wake.clear()
            floor, sent = self.permission.floor, False
            for chunk, rows in _chunks(await self._events(floor)):
                self.rows += rows
                sent, last = True, time.monotonic()
                yield chunk
                if self.permission.floor != floor:  # decided anew while the client took it
                    break
            if not sent:
                await self._wait(min(1.0, last + self._heartbeat_s - time.monotonic()))
                if time.monotonic() - last >= self._heartbeat_s:
                    last = time.monotonic()
                    yield _HEARTBEAT
        if self.ended is not None:
            yield self._farewell(self.ended)
        self.complete = True

    async def _may_go_on(self) -> bool:
        """A token that expired ends the stream, as it would refuse the next question."""
        if self.ended is None and time.monotonic() - self._proved >= self._identity_s:
            self._proved = time.monotonic()
            try:
                if await self._still() != self.permission.subject:
                    raise InvalidToken(why="it is another's than at the beginning")
            except InvalidToken as error:
                allow = self.permission.allow
                self._unproved = Deny(error, allow.policy_revision if allow else "")
        return self.ended is None

    async def _wait(self, seconds: float) -> None:
        """Until there may be something to do."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), max(0.01, seconds))

    async def _events(self, floor: int | None) -> Iterable[_Told]:
        """What may be handed out now; nothing while the permission is held."""
        if floor is None:
            return ()
        try:
            if self._reading.next < floor:
                await self._begin_anew(floor)
            entries, after = await self._next()
        except Gone:
            await self._begin_anew(floor)
            return ()
        if self.permission.floor != floor:  # decided anew while the broker was asked
            return ()
        return self._told(self._reading, entries, after)

    async def _next(self) -> tuple[list[Entry], int]:
        """The next records, and the offset after them."""
        entries = self._tail.since(self._reading.next)
        if entries is None:
            piece = await self._topics.read(self._topic, self._reading.next)
            return piece.entries, piece.next
        return entries, self._reading.next

    async def _begin_anew(self, floor: int) -> None:
        """Goes on from where it is if that is still there, else from the start of all there is."""
        place = self._reading.place(self._reading.next, _now_ms())
        if self._tail.failed is not None:
            await self._topics.leave(self._tail, self)
            self._tail = self._topics.tail(self._topic)
            self._tail.followers.add(self)
        self._reading = self._read_from(place, await self._topics.bounds(self._topic), floor)

    def _read_from(self, place: Place | None, bounds: Bounds, floor: int) -> Reading:
        start = min(max(bounds.start, floor), bounds.end)
        return Reading(place, Bounds(bounds.topic_id, start, bounds.end), now_ms=_now_ms(), about=self._about())

    def _told(self, reading: Reading, entries: list[Entry], after: int) -> Iterator[_Told]:
        """Lazily, so that the reading stands after what was taken from here, and no further."""
        now_ms = _now_ms()
        yield b"".join(self._event(event_lines(change), place) for place, change in reading.waiting(now_ms)), 0
        for entry in entries:
            told = reading.take(entry.offset, entry.change, now_ms)
            # that the stream ended is told when the decision says so, not when the topic does
            yield (
                b"".join(
                    self._event(entry.lines if change is entry.change else event_lines(change), place)
                    for place, change in told
                    if not (isinstance(change, Notice) and change.kind == ENDED)
                ),
                int(isinstance(entry.change, Upsert)),
            )
        reading.pass_to(after)

    def _event(self, lines: bytes, place: Place) -> bytes:
        return lines + b"id: " + self._cursors.write(place, self._scope).encode() + b"\n\n"

    def _about(self) -> dict[str, Any]:
        allow = self.permission.allow
        return {"view": self._scope.view, "purpose": self._scope.purpose, **(_terms(allow) if allow else {})}

    def _farewell(self, deny: Deny) -> bytes:
        """The last event: why it is over. It has no id: nothing can be resumed after it."""
        about = {"view": self._scope.view, "purpose": self._scope.purpose, "revision": deny.policy_revision}
        why = {"code": deny.error.code, "reason": deny.error.detail}
        return event_lines(Notice({"kind": ENDED, **about, **why})) + b"\n"

    def _cut(self, after_s: float) -> None:
        if self._limit is not None:
            due = asyncio.get_running_loop().time() + after_s
            if self._limit.when() is None or due < (self._limit.when() or due):
                self._limit.reschedule(due)


def _terms(allow: Allow) -> dict[str, Any]:
    return {"revision": allow.policy_revision, "columns": list(allow.columns), "masked": sorted(allow.masks)}


def _chunks(told: Iterable[_Told]) -> Iterator[_Told]:
    """Put together to chunks of about 16 KiB."""
    held: list[bytes] = []
    size = rows = 0
    for events, more in told:
        held.append(events)
        size, rows = size + len(events), rows + more
        if size >= _CHUNK:
            yield b"".join(held), rows
            held, size, rows = [], 0, 0
    if size:
        yield b"".join(held), rows


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
