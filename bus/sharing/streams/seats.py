"""A stream's place among those that follow one view."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from bus.sharing.streams.pages import Outgoing, Page
from bus.sharing.streams.states import SubscriptionState
from bus.sharing.streams.stream import Stream


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


async def sent_to(stream: Stream, found: Outgoing | Exception) -> None:
    """Sends what was made for a stream; raises what went wrong in making it."""
    if isinstance(found, Exception):
        raise found
    await stream.send(found, "changes")


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
