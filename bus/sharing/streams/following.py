"""Follows one view for all its subscriptions: terms first, then what changed.

Those that are at the same position advance together, a page at a time. Whoever begins, changes its terms or fell behind
has a task of its own meanwhile, so that nobody waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog

from bus.access.decision import Allow, Deny
from bus.errors import BusError, ChangesGone, DatabaseUnavailable, Refused, Unavailable, UnknownView
from bus.sharing.streams.desk import Desk, Interfered, NotReady, Superseded, TopicBegan
from bus.sharing.streams.pages import Outgoing, Page, disordered, steps
from bus.sharing.streams.permits import passing, reason
from bus.sharing.streams.seats import DELIVERED, LEAST, Pace, Seat, outgoing_of, send_all, weight_of
from bus.sharing.streams.states import Fenced, Shown, SubscriptionState
from bus.sharing.streams.stream import Stream
from bus.sharing.streams.terms import Terms
from bus.views.catalogue import Shape
from bus.views.changelog.reading import Change, Changes

SETTLED_S: Final = 1.0  # terms are looked at so often even if no revision moved: registers have none
BEHIND: Final = 2_000  # changes at a time for a stream that catches up by itself
FIRST_DELAY_S: Final = 0.2
LONGEST_DELAY_S: Final = 30.0
TOPICS_S: Final = 10.0
Work = Callable[[], Awaitable[None]]
log = structlog.get_logger(__name__)


class ViewStreams:
    """All streams of one view. `turn` is called for ever by one task. ``lost``: hears if another process writes."""

    def __init__(
        self,
        desk: Desk,
        view: str,
        states: Sequence[SubscriptionState],
        *,
        lost: Callable[[Fenced], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk, self.view, self._lost, self._clock = desk, view, lost, clock
        self.seats = {state.consumer: Seat(Stream(desk, state)) for state in states}
        self.seq: int | None = None
        self._pace = Pace()
        self._settled: tuple[Any, float] = (None, 0.0)
        self._looked = clock()

    async def turn(self) -> bool:
        """Settles the terms, then sends a page of changes to all that are ready; whether there may be more."""
        if self._clock() - self._looked >= TOPICS_S:
            await self._look_at_topics()
        await self._settle_all()
        return await self._advance()

    async def stop(self) -> None:
        """Ends every task; what they had under way is done again by whoever comes next."""
        tasks = [seat.task for seat in self.seats.values() if seat.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Terms

    async def _settle_all(self) -> None:
        standing, now = await self._desk.permits.standing(), self._clock()
        settled, at = self._settled
        if settled == standing and now - at < SETTLED_S:
            return
        wanted = (await self._desk.permits.wanted()).get(self.view, {})
        shape = await self._desk.shape(self.view)
        for consumer in wanted.keys() - self.seats.keys():
            self.seats[consumer] = Seat(Stream(self._desk, SubscriptionState(consumer, self.view)))
        for consumer, seat in self.seats.items():
            if seat.task is None and now >= seat.retry_at:
                await self._settle(seat, wanted.get(consumer), shape)
        self._settled = (standing, now)

    async def _settle(self, seat: Seat, purpose: str | None, shape: Shape | None) -> None:
        """Holds what the stream is against what it may be now, and begins what that needs."""
        state = seat.state
        if purpose is None and state.state == "ended":
            return
        if shape is None:
            decision: Allow | Deny = Deny(UnknownView(view=self.view))
        else:
            decision = await self._desk.permits.decide(state.consumer, shape, purpose or state.purpose)
        if isinstance(decision, Deny):
            await self._denied(seat, decision)
        elif shape is not None:
            await self._allowed(seat, decision, shape)

    async def _denied(self, seat: Seat, deny: Deny) -> None:
        """Ends a stream that may not be; one on which no decision can be had waits, and sends nothing."""
        if passing(deny):
            await self._troubled(seat, deny.error)
        elif seat.state.id and seat.state.state != "ended":
            why = await self._desk.permits.ended_because(deny, seat.state.grants)
            revision = deny.policy_revision or seat.state.revision
            self._begin(seat, lambda: seat.stream.end(revision, why))

    async def _allowed(self, seat: Seat, allow: Allow, shape: Shape) -> None:
        state, stream, terms = seat.state, seat.stream, Terms.of(allow)
        if state.state in ("ended", "ending") or not state.digest:
            self._begin(seat, lambda: stream.renew(shape, allow, "started", "granted"))
        elif state.digest != terms.digest:
            old, why = Terms.read(state.terms), reason(state.revision, allow)
            if terms.narrows(old):
                self._begin(seat, lambda: stream.renew(shape, allow, "narrowed", why))
            elif terms.opaque_key(shape.view.key) != state.opaque:
                self._begin(seat, lambda: stream.renew(shape, allow, "widened", why))
            else:
                self._begin(seat, lambda: stream.differ(shape, allow, "widened", why))
        elif state.state == "starting":
            kind = await asyncio.to_thread(self._desk.store.last_kind, state)
            self._begin(seat, lambda: stream.renew(shape, allow, kind, "resumed"))
        elif state.fingerprint != shape.fingerprint:
            self._begin(seat, lambda: stream.differ(shape, allow, None, "view"))
        elif stream.look is None or not stream.certain or state.seq < max(self.seq or 0, state.unsure):
            self._begin(seat, lambda: self._catch_up(seat, terms, shape))
        else:
            stream.state = replace(state, revision=allow.policy_revision)  # written with the next page
            await self._recovered(stream)

    async def _look_at_topics(self) -> None:
        """Makes streams uncertain whose topic is gone, or is another: a stream that has nothing to send would not see
        it."""
        self._looked = self._clock()
        seats = [seat for seat in self.seats.values() if seat.may_follow(self._clock())]
        ends = await self._desk.sink.ends([seat.stream.topic for seat in seats]) if seats else {}
        for seat in seats:
            if ends.get(seat.stream.topic, -1) < seat.state.next_offset:
                seat.stream.certain, self._settled = False, (None, 0.0)

    # Tasks

    def _begin(self, seat: Seat, work: Work) -> None:
        seat.task = asyncio.create_task(self._work(seat, work), name=f"{seat.stream.topic}")

    async def _work(self, seat: Seat, work: Work) -> None:
        try:
            await work()
            seat.delay_s, seat.retry_at = 0.0, 0.0
        except Exception as error:  # its own trouble: told, and tried again
            await self._troubled(seat, error)
        finally:
            seat.task = None
            self._settled = (None, 0.0)

    async def _catch_up(self, seat: Seat, terms: Terms, shape: Shape) -> None:
        """Brings a stream that is behind to where the others are, by itself."""
        stream = seat.stream
        if stream.look is None or stream.look.shape is not shape:
            stream.look = await self._desk.look(terms, shape)
        await stream.adopt()
        while stream.state.seq < max(self.seq or 0, stream.state.unsure):
            before = stream.state.seq
            found = await asyncio.to_thread(self._desk.log.changes, shape, before, BEHIND)
            found = disordered(found) if stream.looking().opaque else found
            for upto, rows in steps(found, before, BEHIND, one_by_one=before < stream.state.unsure):
                page = await asyncio.to_thread(Page, shape, rows, self._desk.mask_secret)
                await stream.deliver(await stream.page(page), "changes", seq=upto, problem="")
            if stream.state.seq == before:
                break
        await self._recovered(stream)

    async def _recovered(self, stream: Stream) -> None:
        if stream.state.problem:
            log.info("stream_goes_on", topic=stream.topic)
            stream.state = await asyncio.to_thread(self._desk.store.save, replace(stream.state, problem=""))

    async def _troubled(self, seat: Seat, error: Exception) -> None:
        """Notes why a stream does not go on, and when it is tried again."""
        if isinstance(error, Fenced):
            self._lost(error)
            return
        stream = seat.stream
        if isinstance(error, Superseded | Refused | UnknownView):
            return  # the terms moved: settled in the next turn
        if isinstance(error, TopicBegan | Interfered | ChangesGone):
            await self._anew(stream, error)
            return
        short = isinstance(error, NotReady) or (isinstance(error, Unavailable) and not seat.delay_s)
        seat.delay_s = FIRST_DELAY_S if short else min(max(2 * seat.delay_s, FIRST_DELAY_S), LONGEST_DELAY_S)
        seat.retry_at = self._clock() + seat.delay_s
        await self._note(stream, error)

    async def _anew(self, stream: Stream, error: Exception) -> None:
        """What the topic shows is not sure, or the log does not reach back: all is looked at again."""
        if isinstance(error, TopicBegan) and stream.state.id:
            await asyncio.to_thread(self._desk.store.forget, stream.state)
        log.warning("stream_anew", topic=stream.topic, error=getattr(error, "code", type(error).__name__))
        mark = {"fingerprint": ""} if isinstance(error, ChangesGone) else {"digest": ""}
        stream.state = replace(stream.state, **mark)  # type: ignore[arg-type] # both are text

    async def _note(self, stream: Stream, error: Exception) -> None:
        if isinstance(error, BusError):
            problem = f"{error.code}: {error.detail}"
        else:
            problem = type(error).__name__
            log.error("stream_defect", topic=stream.topic, exc_info=error)
        if problem == stream.state.problem:
            return
        log.warning("stream_waits", topic=stream.topic, problem=problem)
        stream.state = replace(stream.state, problem=problem)
        if stream.state.id:
            with contextlib.suppress(DatabaseUnavailable):  # it is in the log, and with the next page in the database
                await asyncio.to_thread(self._desk.store.save, stream.state)

    # Changes

    async def _advance(self) -> bool:
        now = self._clock()
        ready = [seat for seat in self.seats.values() if seat.may_follow(now)]
        self._meet(ready)
        seats = [seat for seat in ready if self.seq is not None and seat.state.seq >= self.seq]
        shape = seats[0].stream.look.shape if seats and seats[0].stream.look else None
        if self.seq is None or shape is None:
            return False
        limit = self._pace.limit(len(seats))
        try:
            found = await asyncio.to_thread(self._desk.log.changes, shape, self.seq, limit)
        except ChangesGone as error:
            for seat in seats:
                await self._anew(seat.stream, error)
            self.seq, self._settled = None, (None, 0.0)
            return False
        if not found.rows:
            self._skip(seats, found.upto)
            return False
        hidden = any(seat.stream.looking().opaque for seat in seats)
        await self._deliver_by(seats, shape, disordered(found) if hidden else found, limit)
        return True

    async def _deliver_by(self, seats: list[Seat], shape: Shape, found: Changes, limit: int) -> list[Seat]:
        """Sends them in portions: a transaction may have more rows than can be sent in one go."""
        for upto, rows in steps(found, self.seq or 0, limit, one_by_one=False):
            seats = await self._deliver(seats, shape, rows, upto)
        return seats

    def _meet(self, ready: Sequence[Seat]) -> None:
        """Where the followers are: the first of them, if nobody is where they were."""
        positions = [seat.state.seq for seat in ready]
        ahead = [seq for seq in positions if self.seq is not None and seq >= self.seq]
        if positions:
            self.seq = min(ahead) if ahead else max(positions)

    def _skip(self, seats: Sequence[Seat], upto: int) -> None:
        """The view moved, but none of its rows: not worth a transaction."""
        for seat in seats:
            if seat.state.seq < upto:
                seat.stream.state = replace(seat.state, seq=upto)
        self.seq = upto

    async def _deliver(self, seats: list[Seat], shape: Shape, rows: Sequence[Change], upto: int) -> list[Seat]:
        """Sends rows to all; who is up to ``upto`` then. What comes to more records than fit goes by halves."""
        started = time.perf_counter()
        page = await asyncio.to_thread(Page, shape, rows, self._desk.mask_secret)
        known = await asyncio.to_thread(self._desk.store.members, self.view, page.keys)
        weight = await asyncio.to_thread(weight_of, page, seats, known)
        if weight > 2 * DELIVERED and len(rows) > LEAST:
            self._pace.went(len(rows), weight, 0.0)
            return await self._deliver_by(seats, shape, Changes(upto, list(rows)), len(rows) // 2)
        outgoing = await asyncio.to_thread(outgoing_of, page, seats, known)
        outcomes = await send_all(self._desk, seats, outgoing)
        shown = []
        for seat, found, outcome in zip(seats, outgoing, outcomes, strict=True):
            if outcome is None and isinstance(found, Outgoing):
                state = replace(seat.state, seq=max(upto, seat.state.seq), problem="")
                shown.append(Shown(state, found.put, found.gone))
        if shown:
            await asyncio.to_thread(self._desk.store.advance, shown)
            self.seq = max(upto, self.seq or 0)
        positions = {page_.subscription.consumer: page_.subscription for page_ in shown}
        for seat, outcome in zip(seats, outcomes, strict=True):
            seat.stream.state = positions.get(seat.state.consumer, seat.state)
            if outcome is not None:
                await self._failed(seat, outcome)
        self._pace.went(len(rows), weight, time.perf_counter() - started)
        return [seat for seat, outcome in zip(seats, outcomes, strict=True) if outcome is None]

    async def _failed(self, seat: Seat, outcome: BaseException) -> None:
        self._settled = (None, 0.0)
        if not isinstance(outcome, Exception):
            raise outcome
        await self._troubled(seat, outcome)
