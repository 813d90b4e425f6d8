"""The process that writes every share topic: one at a time, by a lease in the streams database."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Final

import structlog

from bus.errors import BusError, Unavailable
from bus.sharing.streams.desk import Desk
from bus.sharing.streams.following import ViewStreams
from bus.sharing.streams.states import Fenced, SubscriptionState
from bus.sharing.streams.store import StreamStore

POLL_S: Final = 0.05
VIEWS_S: Final = 0.1
_TROUBLED_S: Final = 0.5
log = structlog.get_logger(__name__)


class NotHeld(Unavailable):
    """The lease on the streams was not renewed in time: nothing is sent until it is."""

    code = "stream_lease"


class Lease:
    """The right to write. Taken over when it was not renewed for ``lease_s`` of this process's own clock; renewed by a
    thread, so that a long step of the event loop does not lose it."""

    def __init__(self, store: StreamStore, lease_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._lease_s, self._clock = store, lease_s, clock
        self._renewed = 0.0
        self._ended = threading.Event()
        self._fenced: Fenced | None = None
        self._thread = threading.Thread(target=self._renew, name="streams-lease", daemon=True)

    async def take(self) -> None:
        """Returns when this process may write."""
        seen, since = None, self._clock()
        while True:
            try:
                waited = self._clock() - since >= self._lease_s
                beat = await asyncio.to_thread(self._store.acquire, seen if waited else None)
            except Unavailable as error:
                log.warning("lease_waits", error=error.code)
                beat = -1
            if beat is None:
                break
            if beat != seen:
                seen, since = beat, self._clock()
            await asyncio.sleep(min(0.5, self._lease_s / 5))
        self._renewed = self._clock()
        self._thread.start()

    def check(self) -> None:
        """Raises `Fenced` where another process has it, `NotHeld` where it may soon."""
        if self._fenced is not None:
            raise self._fenced
        if self._clock() - self._renewed > 0.8 * self._lease_s:
            raise NotHeld()

    async def give_back(self) -> None:
        """So that the next process need not wait."""
        self._ended.set()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join, 2.0)
            with contextlib.suppress(BusError):
                await asyncio.to_thread(lambda: self._store.beat(held=False))

    def _renew(self) -> None:
        while not self._ended.wait(self._lease_s / 5):
            asked = self._clock()
            try:
                self._store.beat()
                self._renewed = asked
            except Fenced as error:
                self._fenced = error
                return
            except Unavailable as error:
                log.warning("lease_not_renewed", error=error.code)


class Streams:
    """Runs every view's streams beside each other. `run` returns when it is cancelled, and raises `Fenced` where
    another process took over."""

    def __init__(self, desk: Desk, lease: Lease) -> None:
        self._desk, self._lease = desk, lease
        self._views: dict[str, asyncio.Task[None]] = {}
        self._lost: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Takes the lease, then writes until it is cancelled or fenced."""
        await self._lease.take()
        log.info("streams_began", epoch=self._desk.store.epoch)
        self._lost = asyncio.get_running_loop().create_future()
        watching = asyncio.create_task(self._watch(), name="streams")
        try:
            done, _ = await asyncio.wait({self._lost, watching}, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            tasks = [watching, *self._views.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._lease.give_back()

    async def _watch(self) -> None:
        """Starts a follower for each view that is streamed, or was."""
        known: dict[str, list[SubscriptionState]] | None = None
        while True:
            try:
                self._lease.check()
                known = await self._known() if known is None else known
                for view in {*known, *await self._desk.permits.wanted()} - self._views.keys():
                    streams = ViewStreams(self._desk, view, known.get(view, []), lost=self._fence)
                    self._views[view] = asyncio.create_task(self._follow(streams), name=f"view {view}")
            except Fenced:
                raise
            except Unavailable as error:
                log.warning("streams_wait", error=error.code)
                await asyncio.sleep(_TROUBLED_S)
            await asyncio.sleep(VIEWS_S)

    async def _known(self) -> dict[str, list[SubscriptionState]]:
        found: defaultdict[str, list[SubscriptionState]] = defaultdict(list)
        for state in await asyncio.to_thread(self._desk.store.subscriptions):
            found[state.view].append(state)
        return found

    async def _follow(self, streams: ViewStreams) -> None:
        """Turns for ever: what goes wrong with a whole view is told and tried again."""
        try:
            while True:
                pause = POLL_S
                try:
                    pause = 0.0 if await streams.turn() else POLL_S
                except Fenced as error:
                    self._fence(error)
                    return
                except Exception as error:
                    pause = _TROUBLED_S
                    _report(streams.view, error)
                await asyncio.sleep(pause)
        finally:
            await streams.stop()

    def _fence(self, error: Fenced) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_exception(error)


def _report(view: str, error: Exception) -> None:
    if isinstance(error, Unavailable):
        log.warning("view_waits", view=view, error=error.code)
    else:  # a defect must not end the loop: other views and later turns may be well
        log.error("view_defect", view=view, exc_info=error)
