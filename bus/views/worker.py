"""The worker: a Faust application that reads topics and builds the views whose leases it holds.

One service owns the readers, which put rounds of batches on a bounded Faust channel; one agent builds; another listens
on the control topic. Positions are in the views database, so Faust's own offsets, tables and web server are not used,
and no exception leaves an agent (E9 to E13, K6).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import structlog
from sqlalchemy.engine import Engine

from bus.contracts.registry import SchemaSource
from bus.errors import DatabaseUnavailable, Fenced, Unavailable
from bus.infra.database import label_sessions
from bus.infra.kafka import KafkaConnection
from bus.views.builder import CrashPoint, no_crash
from bus.views.catalogue import Declarations
from bus.views.changelog.keeping import Logs
from bus.views.changelog.streamed import Streamed
from bus.views.defects import report
from bus.views.rebuilding.pace import Pace
from bus.views.rebuilding.requests import Requests
from bus.views.workers.application import application
from bus.views.workers.building import Building
from bus.views.workers.held import Held
from bus.views.workers.holes import hole
from bus.views.workers.reader import Reader, Round
from bus.views.workers.renewal import Pulse, Renewal
from bus.views.workers.roster import Roster

log = structlog.get_logger(__name__)
T = TypeVar("T")
STALLED_S: Final = 60.0
_SWITCH_S: Final = 0.0005  # so long the thread that writes waits for one that decodes, at most: 5 ms by default
_SOON_S: Final = 0.2  # between two ticks while another worker is about to give a view back
_STOP_S: Final = 2.0
_IDLE_LEASES: Final = 1  # so long may a transaction wait for this process: a lease that is not renewed is over then


class Worker:
    """Builds views until SIGTERM or SIGINT. Several workers share the views by lease.

    ``lease_s``: seconds without a sign of life after which others take over. ``batch_events``: most events in one
    transaction. ``streamed``: the views whose changes are logged, for ``changes_kept_days``. ``crash_point`` is called
    with the name of each place where a fault test may end the process.
    """

    def __init__(
        self,
        *,
        views: Engine,
        declarations: Declarations,
        registry: SchemaSource,
        kafka: KafkaConnection,
        lease_s: float = 5.0,
        batch_events: int = 20_000,
        crash_point: CrashPoint = no_crash,
        requests: Requests | None = None,
        streamed: Streamed | None = None,
        changes_kept_days: float = 7.0,
    ) -> None:
        self.id = f"bus-worker-{uuid.uuid4()}"
        self._registry, self._kafka = registry, kafka
        self._lease_s, self._batch_events = lease_s, batch_events
        label_sessions(views, self.id, idle_s=_IDLE_LEASES * lease_s)
        self._roster = Roster(
            views,
            declarations=declarations,
            registry=registry,
            kafka=kafka,
            worker=self.id,
            lease_s=lease_s,
            crash_point=crash_point,
            requests=requests,
            logs=Logs(views, streamed, kept_days=changes_kept_days) if streamed is not None else None,
        )
        self._pulse = Pulse()
        self._renewal = Renewal(
            views,
            lease_s,
            self._pulse,
            held=self._roster.leases,
            lost=self._roster.lost,
            also=self._roster.workers.beat,
        )
        self._nudge = asyncio.Event()
        self._building = Building(self._roster, self._pulse, nudge=self._nudge.set, stop_view=self._stop_view)
        self._keeper = ThreadPoolExecutor(1, "keeper")
        self._readers: dict[Reader, asyncio.Task[None]] = {}
        self._head: Reader | None = None
        self._moved: dict[str, tuple[int, float]] = {}

    def run(self) -> None:
        """Blocks until a signal; returns within 3 s of it, leases released."""
        sys.setswitchinterval(_SWITCH_S)
        gc.freeze()  # what is loaded stays: to look through it for garbage holds up everything for 60 ms
        asyncio.run(self._main())

    async def _main(self) -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        app, self._rounds = application(self.id, self._kafka, self._build, self._nudge.set)
        starting = asyncio.create_task(app.start())
        keeping = asyncio.create_task(self._keep())
        watching = asyncio.create_task(self._watching())
        self._renewal.start()
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait({starting, stop}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and starting.exception() is not None:
            stopping.set()
        await stop
        await self._stop(app, [keeping, watching], starting)
        if starting.done() and not starting.cancelled() and (error := starting.exception()) is not None:
            raise error

    async def _stop(self, app: Any, own: list[asyncio.Task[None]], starting: asyncio.Task[Any]) -> None:
        tasks = [*own, *self._readers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=1.0)
        self._renewal.end()
        with contextlib.suppress(Unavailable, TimeoutError):  # others take over when the lease runs out
            await asyncio.wait_for(self._on(self._keeper, self._roster.close), _STOP_S)
        try:
            await asyncio.wait_for(app.stop(), _STOP_S / 2)
        except TimeoutError:
            log.warning("faust_stop_timeout")
        starting.cancel()
        self._building.close()
        self._keeper.shutdown(wait=False, cancel_futures=True)

    async def _on(self, pool: ThreadPoolExecutor, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, call, *arguments)

    # --- keeping: leases, declarations, readers ---

    async def _keep(self) -> None:
        """Ticks the roster and gives each view a reader. Trouble passes by itself or the watchdog ends the process."""
        while True:
            try:
                with self._pulse.step("keeping"):
                    await self._on(self._keeper, self._roster.tick)
            except Unavailable as error:
                log.warning("tick_failed", error=error.code, detail=error.detail)
            except Exception as error:  # a defect must not end the worker: it is reported, and views stay as they are
                report("tick_failed", error)
            try:
                self._assign()
                await self._look_at_holes()
            except Exception as error:
                report("keeping_failed", error)
            pause = min(1.0, self._lease_s / 5)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nudge.wait(), _SOON_S if self._roster.expecting else pause)
            self._nudge.clear()

    async def _watching(self) -> None:
        """Says that the event loop runs, whatever the keeper waits for, and that the agent is there to build."""
        while True:
            self._pulse.beat()
            if self._rounds.subscriber_count:
                self._roster.workers.join()
            self._watch()
            await asyncio.sleep(min(0.5, self._lease_s / 5))

    def _assign(self) -> None:
        """Views at the head share a reader; one that is behind has its own until it meets the head."""
        held = {name: one for name, one in self._roster.held.items() if one.reading and one.builder is not None}
        for reader in list(self._readers):
            for name, one in list(reader.views.items()):
                if held.get(name) is not one:
                    del reader.views[name]
                    reader.changed()
            if not reader.views and reader is not self._head:
                self._readers.pop(reader).cancel()
        fed = {id(one) for reader in self._readers for one in reader.views.values()}
        for one in held.values():
            if id(one) not in fed:
                self._feed(one)

    def _feed(self, held: Held) -> None:
        if self._head is None:
            self._head = self._new_reader()
        apart = held.careful or (held.shadow and not held.caught_up)
        reader = self._head if not apart and _meets(held, self._head) else self._new_reader()
        if held.shadow and reader is not self._head:
            reader.pace = Pace(self._batch_events)
        reader.views[held.name] = held
        reader.changed()

    def _new_reader(self) -> Reader:
        reader = Reader(
            self._kafka,
            self._registry,
            lambda: self._roster.contracts,
            self._deliver,
            batch_events=self._batch_events,
        )
        self._readers[reader] = asyncio.create_task(reader.run())
        return reader

    async def _deliver(self, following: Round) -> None:
        while not self._rounds.subscriber_count:  # the agent has not started yet: nothing would be kept
            await asyncio.sleep(0.01)
        await self._rounds.put(following)

    async def _look_at_holes(self) -> None:
        """A partition whose offsets are gone or that the consumer cannot read stops the views that need it; it is never
        skipped, and holds up no others."""
        for reader in list(self._readers):
            while reader.unreadable:
                place, why = reader.unreadable.popitem()
                for held in list(reader.views.values()):
                    if place in held.positions:
                        await self._stop_view(held, why)
                reader.changed()
            for place in list(reader.out_of_range):
                reader.out_of_range.discard(place)
                for held in list(reader.views.values()):
                    if place in held.positions:
                        reason = await self._on(self._keeper, self._reason, place, held.positions[place])
                        if reason:
                            await self._stop_view(held, reason)
                reader.changed()

    def _reason(self, place: tuple[str, int], at: int) -> str:
        start, end = self._roster.range_of(place)
        return "" if start <= at <= end else hole(place, at, start, end)

    def _watch(self) -> None:
        """A worker that no longer moves though there is work ends itself; the supervisor starts another (pitfalls 4,
        14, 15). Waiting for the database or the registry is no such case, nor is trying events aside, where a worker
        that ended itself would only begin anew."""
        waiting = self._building.waiting or any(reader.paused or reader.trying for reader in self._readers)
        now = time.monotonic()
        for held in self._roster.held.values():
            at = sum(held.positions.values())
            moved, since = self._moved.get(held.name, (-1, now))
            if moved != at or waiting or not self._roster.is_behind(held):
                self._moved[held.name] = (at, now)
            elif now - since > STALLED_S:
                log.error("stalled", view=held.name, seconds=STALLED_S)
                os._exit(1)

    # --- building ---

    async def _build(self, following: Round) -> None:
        """Applies one round to the views of its reader. Nothing leaves here: what cannot be applied stops its view."""
        following.taken = True
        try:
            await self._building.build(following)
            self._merge_readers(following.reader)
        except Exception as error:
            report("round_failed", error)
            following.reader.changed()
        finally:
            following.settled.set()

    async def _stop_view(self, held: Held, reason: str) -> None:
        try:
            await self._on(self._keeper, self._roster.stop_view, held, reason)
        except (Fenced, DatabaseUnavailable):
            log.warning("stop_not_recorded", view=held.name)

    def _merge_readers(self, reader: Reader) -> None:
        """A reader whose views have met the head hands them over and ends."""
        head = self._head
        if head is None or reader is head or reader not in self._readers:
            return
        for name, held in list(reader.views.items()):
            if held.caught_up and _meets(held, head):
                del reader.views[name]
                head.views[name] = held
                head.changed()
        if not reader.views:
            self._readers.pop(reader).cancel()


def _meets(held: Held, head: Reader) -> bool:
    """Whether the head need not go back for this view: it is nowhere behind it."""
    at = head.at
    return all(position >= at.get(place, position) for place, position in held.positions.items())
