"""Applies the rounds that readers deliver to the views they feed, one round after the other.

The views of a round are written by one thread in one go: to go back to the event loop between two of them would cost a
small transaction a tenth of its time. Those of a small round share transactions, since to begin and to commit costs as
much as the events. What fails there is tried again view by view, each in a transaction of its own, so that no view is
held up by another's trouble.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from bus.errors import DatabaseUnavailable, DependentsChanged, Fenced
from bus.views.builder import Outcome, together
from bus.views.decoding.batches import Batch
from bus.views.defects import report
from bus.views.picking import Picking
from bus.views.workers.held import Held
from bus.views.workers.reader import Reader, Round
from bus.views.workers.renewal import Pulse
from bus.views.workers.roster import Roster

log = structlog.get_logger(__name__)
Work = tuple[Held, Sequence[Batch]]
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_TOGETHER = 5  # views in one transaction: of more, the first would wait longer for the last than they save
_FEW = 500  # events of a view in a shared transaction: it locks its views, on SQLite all, for milliseconds


@dataclass(frozen=True, slots=True)
class _Tried:
    """How applying a round to one view went, and how long it took."""

    outcome: Outcome | None
    error: Exception | None
    seconds: float


def _shared(work: Sequence[Work]) -> Iterator[Sequence[Work]]:
    """The views of a round in their order, those that share a transaction together. Views that others are computed from
    stay alone, and all do where an event is refused: more would be locked than the views, in other orders."""
    some: list[Work] = []
    for held, batches in work:
        few = sum(map(len, batches)) <= _FEW and not any(batch.refused for batch in batches)
        shares = few and held.builder is not None and not held.builder.alone and not held.shadow
        if some and (not shares or len(some) == _TOGETHER):
            yield some
            some = []
        if shares:
            some.append((held, batches))
        else:
            yield [(held, batches)]
    if some:
        yield some


class Building:
    """``nudge``: asks the keeper to look at once; ``stop_view``: awaited for a view that cannot go on. ``waiting``:
    whether a database is waited for now; ``applied``: called for each view after its part of a round."""

    def __init__(
        self,
        roster: Roster,
        pulse: Pulse,
        *,
        nudge: Callable[[], None],
        stop_view: Callable[[Held, str], Awaitable[None]],
    ) -> None:
        self._roster, self._pulse, self._nudge, self._stop_view = roster, pulse, nudge, stop_view
        self._writer = ThreadPoolExecutor(1, "writer")
        self.waiting = False
        self.applied: Callable[[Held], None] = lambda _: None

    def close(self) -> None:
        self._writer.shutdown(wait=False, cancel_futures=True)

    async def build(self, following: Round) -> None:
        """Applies one round to the views of its reader. What cannot be applied stops its view."""
        reader = following.reader
        fed = [(held, [b for b in following.batches if b.topic in held.topics]) for held in reader.views.values()]
        work = [(held, batches) for held, batches in fed if batches and held.reading]
        work.sort(key=lambda one: one[0].name)  # who locks several views does so in this order (K4)
        tried = await self._in_writer(lambda: self._tried(work, Picking(following.batches))) if work else []
        for index, (held, batches) in enumerate(work):
            await self._settle(reader, held, batches, tried[index] if index < len(tried) else None)

    async def _in_writer(self, call: Callable[[], list[_Tried]]) -> list[_Tried]:
        return await asyncio.get_running_loop().run_in_executor(self._writer, call)

    def _tried(self, work: Sequence[Work], picking: Picking) -> list[_Tried]:
        """In the writer's thread. Ends early where the database does not answer: the rest would wait as long."""
        found: list[_Tried] = []
        for some in _shared(work):
            tried = self._try_together(some, picking) if len(some) > 1 else None
            for index, (held, batches) in enumerate(some):
                if not held.reading:
                    return found
                found.append(self._try(held, batches, picking) if tried is None else tried[index])
                if isinstance(found[-1].error, DatabaseUnavailable):
                    return found
        return found

    def _try_together(self, work: Sequence[Work], picking: Picking) -> list[_Tried] | None:
        """Several views in one transaction. None where one of them was in trouble: nothing was written then, and each
        is to be tried by itself."""
        begun = time.monotonic()
        builders = [(held.builder, batches) for held, batches in work if held.builder is not None]
        try:
            with self._pulse.step(f"building {work[0][0].name} and others"):
                outcomes = together(builders, picking)
        except Exception as error:  # told apart when each is tried by itself
            seconds = time.monotonic() - begun
            log.info("tried_apart", views=len(work), error=type(error).__name__)
            passing = isinstance(error, DatabaseUnavailable) and not isinstance(error, DependentsChanged)
            return [_Tried(None, error, seconds)] if passing else None
        seconds = (time.monotonic() - begun) / len(work)
        return [_Tried(outcome, None, seconds) for outcome in outcomes]

    def _try(self, held: Held, batches: Sequence[Batch], picking: Picking | None = None) -> _Tried:
        begun = time.monotonic()
        try:
            if held.builder is None:
                raise TypeError(f"{held.name} is not built from topics")
            with self._pulse.step(f"building {held.name}"):
                return _Tried(held.builder.apply(batches, picking), None, time.monotonic() - begun)
        except Exception as error:  # told apart in the event loop
            return _Tried(None, error, time.monotonic() - begun)

    async def _settle(self, reader: Reader, held: Held, batches: Sequence[Batch], tried: _Tried | None) -> None:
        done = await self._retried(held, batches, tried)
        if done is None or isinstance(done.error, Fenced):
            if done is not None:
                self._roster.forget(held)
            return
        if done.outcome is None:
            error = done.error or TypeError("neither an outcome nor an error")
            report("batch_failed", error, view=held.name)
            await self._stop_view(held, f"a batch could not be applied: {type(error).__name__}")
            return
        self._applied(reader, held, done.outcome, sum(map(len, batches)), done.seconds)

    def _applied(self, reader: Reader, held: Held, outcome: Outcome, events: int, seconds: float) -> None:
        held.positions.update(outcome.positions)
        held.careful = False
        if reader.pace is not None:
            reader.pace.applied(events, seconds, busy=self._roster.busy)
        if outcome.gaps:
            log.warning("gap", view=held.name, places=sorted(outcome.gaps))
            reader.changed()
        if not held.live and held.caught_up:
            self._nudge()
        self.applied(held)

    async def _retried(self, held: Held, batches: Sequence[Batch], tried: _Tried | None) -> _Tried | None:
        """A database that does not answer is asked again; the batch is never given up and never quarantined. None where
        the view is fed no more."""
        pause = _FIRST_PAUSE_S
        try:
            while True:
                if tried is None:
                    if not held.reading:
                        return None
                    (tried,) = await self._in_writer(lambda: [self._try(held, batches)])
                if not isinstance(tried.error, DatabaseUnavailable):
                    return tried
                self._explain(held, tried.error)
                self.waiting, tried = True, None
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE_S, pause * 2)
        finally:
            self.waiting = False

    def _explain(self, held: Held, error: DatabaseUnavailable) -> None:
        if isinstance(error, DependentsChanged):
            log.info("dependents_changed", view=held.name)
            self._nudge()  # whoever keeps the roster fills the view's look-ups
        else:
            log.warning("database_unavailable", view=held.name, cause=str(error.__cause__))
