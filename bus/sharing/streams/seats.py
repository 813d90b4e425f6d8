"""A stream's place among those that follow one view, and what all of them do together: one page made and sent."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from bus.errors import BusError
from bus.sharing.streams.desk import Desk
from bus.sharing.streams.pages import Outgoing, Page
from bus.sharing.streams.states import SubscriptionState
from bus.sharing.streams.stream import Stream

DELIVERED: Final = 40_000  # records at a time, of all subscriptions together
PAGE: Final = 10_000  # changes at a time, of which few are delivered
LEAST: Final = 50
_ALWAYS: Final = 10_000  # records that are worth a page however long that took
_PAGE_S: Final = 0.25  # that one page may take: a policy that changed meanwhile waits for it
_Done = TypeVar("_Done")


class Seat:
    """A stream's place among the followers: its own task while it has one, and when it may try again."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.task: asyncio.Task[None] | None = None
        self.retry_at = 0.0
        self.delay_s = 0.0

    @property
    def state(self) -> SubscriptionState:
        return self.stream.state

    def may_follow(self, now: float) -> bool:
        """Whether it can advance with the others."""
        ready = self.task is None and now >= self.retry_at and self.stream.look is not None
        running = self.state.state == "running" and self.state.digest and self.state.fingerprint
        return ready and self.stream.certain and bool(running) and self.state.seq >= self.state.unsure


class Pace:
    """How many changes to take at a time: more while few of them are delivered, so that what a page costs by itself
    does not grow beside them; never more than memory and time allow."""

    def __init__(self) -> None:
        self._limit = 0

    def limit(self, seats: int) -> int:
        """For the next page, to so many."""
        self._limit = self._limit or max(LEAST, min(PAGE, DELIVERED // seats))
        return self._limit

    def went(self, changes: int, weight: int, seconds: float) -> None:
        """A page of so many changes came to about so many records. One that was not full says nothing."""
        if 2 * changes >= self._limit:
            fitting = changes * DELIVERED / max(weight, 1)
            in_time = max(changes * _PAGE_S / max(seconds, 0.001), changes * _ALWAYS / max(weight, 1))
            self._limit = max(LEAST, int(min(PAGE, 2 * self._limit, fitting, in_time)))


def weight_of(page: Page, seats: Sequence[Seat], known: Mapping[int, Mapping[str, int]]) -> int:
    """About how many records a page comes to. Whose part cannot be made is not counted."""
    found = sum(map(len, known.values()))
    for seat in seats:
        try:
            found += page.count(seat.stream.looking())
        except BusError:
            continue
    return found


async def send_all(
    desk: Desk, seats: Sequence[Seat], outgoing: Sequence[Outgoing | Exception]
) -> list[BaseException | None]:
    """Sends each what was made for it, and says what went wrong with whom. Whoever gets nothing costs nothing; the
    audit entries of all others are one transaction, their records one request."""
    outcomes: list[BaseException | None] = [one if isinstance(one, Exception) else None for one in outgoing]
    made = {place: one for place, one in enumerate(outgoing) if isinstance(one, Outgoing) and one.records}
    streams = {place: seats[place].stream for place in made}
    entries = await _each({place: streams[place].entry(one, "changes") for place, one in made.items()}, outcomes)
    recorded = await _each({place: desk.audit.append(entry) for place, entry in entries.items()}, outcomes)
    if not recorded:
        return outcomes
    desk.alive()
    certain = {place: streams[place].begin_append() for place in recorded}
    offsets = await desk.sink.append_all({streams[place].topic: made[place].records for place in recorded})
    for place in recorded:
        stream, offset = streams[place], offsets[streams[place].topic]
        try:
            if isinstance(offset, Exception):
                raise offset
            stream.appended(offset, len(made[place].records), certain=certain[place])
        except Exception as error:
            outcomes[place] = error
    return outcomes


async def _each(
    work: Mapping[int, Coroutine[Any, Any, _Done]], outcomes: list[BaseException | None]
) -> dict[int, _Done]:  # fmt: skip
    """Does all of it side by side: what was done, by place; what failed is put among the ``outcomes``."""
    done: dict[int, _Done] = {}
    for place, one in zip(work, await asyncio.gather(*work.values(), return_exceptions=True), strict=True):
        if isinstance(one, BaseException):
            outcomes[place] = one
        else:
            done[place] = one
    return done


def outgoing_of(
    page: Page, seats: Sequence[Seat], known: Mapping[int, Mapping[str, int]]
) -> list[Outgoing | Exception]:  # fmt: skip
    """What each is sent of a page; where that cannot be said of one, why: it is that one's trouble alone."""
    found: list[Outgoing | Exception] = []
    for stream in (seat.stream for seat in seats):
        try:
            members = known.get(stream.state.id, {})
            found.append(page.outgoing(stream.looking(), stream.stamp, members, after=stream.state.seq))
        except Exception as error:
            found.append(error)
    return found
