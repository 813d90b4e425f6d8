"""Builds views anew beside the live ones and swaps them in: asked for, or because a changed declaration needs it.

What is under way is in the view's own row, so whoever takes the view over goes on with it: ``building`` with its reason
and progress, then ``done``, ``refused`` or ``failed``. Called from the keeper's thread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection, Engine

from bus.errors import DatabaseUnavailable
from bus.infra.database import translated_errors, write
from bus.views.applied import applied_shape
from bus.views.builder import CrashPoint, Place
from bus.views.catalogue import Shape
from bus.views.derived.followed import follow_swap, lock_reads
from bus.views.rebuilding import swap
from bus.views.rebuilding.changes import InPlace, comparable, plan
from bus.views.rebuilding.comparing import Comparison, compare
from bus.views.rebuilding.generation import note
from bus.views.rebuilding.requests import Request
from bus.views.rebuilding.reshaping import reshape
from bus.views.rebuilding.swap import NEXT, OLD
from bus.views.store import VIEW, ViewState, ViewStore
from bus.views.workers.held import Crew, Held
from bus.views.workers.lease import Leases

log = structlog.get_logger(__name__)
_TRIES = 5
_PAUSE_S = 0.02


@dataclass(slots=True)
class _Progress:
    since: float
    events: int
    comparing: Future[Comparison | None] | None = None
    compared: Comparison | None = None


class Rebuilds:
    """The rebuilds of one worker. ``clock``: monotonic seconds."""

    def __init__(
        self,
        engine: Engine,
        store: ViewStore,
        leases: Leases,
        crew: Crew,
        *,
        crash_point: CrashPoint,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._store, self._leases, self._crew = engine, store, leases, crew
        self._crash, self._clock = crash_point, clock
        self._progress: dict[str, _Progress] = {}
        self._comparer = ThreadPoolExecutor(1, "comparer")

    def close(self) -> None:
        self._comparer.shutdown(wait=False, cancel_futures=True)

    def follow(self, held: Held, declared: Shape, state: ViewState, request: Request | None) -> None:
        """One step: what was asked for, else what a changed declaration needs, else what is under way. Where a reader
        holds the tables for too long the step is tried again with the next tick; no other view waits for it."""
        try:
            self._step(held, declared, state, request)
        except DatabaseUnavailable as error:
            log.warning("rebuild_waits", view=held.name, cause=str(error.__cause__))

    def _step(self, held: Held, declared: Shape, state: ViewState, request: Request | None) -> None:
        asked = request if request is not None and request.id != state.request else None
        known = state.rebuild or {}
        if asked is not None and held.builder is None:
            self._refill(held, asked)
        elif held.builder is None:
            return
        elif asked is not None and asked.kind == "undo":
            self._undo(held, declared, asked)
        elif asked is not None and state.state == "building":
            told = {"kind": "rebuild", "request": asked.id, "target": declared.fingerprint, "state": "done"}
            self._end(held, {**told, "why": "it is being built from the beginning as it is"})
        elif asked is not None:
            self._begin(held, declared, "it was asked for", asked.id)
        elif known.get("state") == "building" and known.get("target") == declared.fingerprint:
            self._go_on(held, declared, known)
        elif declared.fingerprint not in (held.shape.fingerprint, state.undone):
            self._changed(held, declared, state)
        elif known.get("state") == "building":
            self._end(held, {**known, "state": "cancelled", "reason": "the declaration is as it was"})

    # --- beginning ---

    def _changed(self, held: Held, declared: Shape, state: ViewState) -> None:
        """The declaration is another one than the tables were made for."""
        change, known = plan(held.shape, declared), state.rebuild or {}
        if isinstance(change, InPlace):
            self._drop_shadow(held)
            reshape(self._engine, held.shape, declared, change, held.epoch)
            log.info("view_changed_in_place", view=held.name, tables=len(change.tables))
            self._again(held, declared)
        elif known.get("target") != declared.fingerprint or known.get("state") in ("done", "cancelled"):
            self._begin(held, declared, change, state.request)

    def _begin(self, held: Held, declared: Shape, why: str, request: str) -> None:
        doc = {"kind": "rebuild", "request": request, "why": why, "target": declared.fingerprint}
        reason = self._hole(held, declared)
        self._drop_shadow(held)
        if reason:
            log.error("rebuild_refused", view=held.name, reason=reason)
            self._end(held, {**doc, "state": "refused", "reason": reason})
            return
        log.info("rebuild_begun", view=held.name, why=why)
        note(self._engine, held.name, held.epoch, request=request, rebuild=json.dumps({**doc, "state": "building"}))

    def _hole(self, held: Held, declared: Shape) -> str:
        """Events that the view has and its topics have no longer: a rebuild would lose what they say."""
        starts, ids = self._crew.starts_and_ids(declared)
        state = self._store.state(held.name)
        origins = (state.origins if state else None) or {}
        applied = {(p.topic, p.partition): p.next_offset for p in self._store.positions(held.name)}
        for (topic, partition), start in sorted(starts.items()):
            origin = origins.get(topic, {})
            if origin.get("id") and ids.get(topic) and origin["id"] != ids[topic]:
                continue  # made anew: what it held is gone with it, and whoever asks for a rebuild wants the new one
            first = origin.get("from", {}).get(str(partition), 0)
            if start > first and applied.get((topic, partition), 0) > first:
                gone = min(start, applied[topic, partition]) - first
                return (
                    f"{topic}/{partition} begins at offset {start}, and the view has {gone} events from before that: "
                    "a rebuild would lose them. The view goes on as it is."
                )
        return ""

    def _drop_shadow(self, held: Held) -> None:
        """Forgets what was built beside so far. Waits where another worker has its lease."""
        self._progress.pop(held.name, None)
        name = held.name + NEXT
        shadow = self._crew.held.get(name)
        if shadow is not None:
            self._crew.forget(shadow)
        with translated_errors(), write(self._engine) as connection:
            mine = sa.select(VIEW.c.name).where(VIEW.c.name == held.name, VIEW.c.epoch == held.epoch)
            if connection.execute(mine.with_for_update()).first() is not None:
                swap.discard(connection, name)

    # --- going on ---

    def _go_on(self, held: Held, declared: Shape, known: Mapping[str, Any]) -> None:
        name = held.name + NEXT
        shadow = self._crew.held.get(name)
        if shadow is None:
            epoch = self._leases.acquire(name)
            if epoch is None:
                return
            shadow = self._crew.take(replace(declared, view=replace(declared.view, name=name)), epoch)
        state = self._store.state(name)
        if state is not None and state.state == "stopped":
            self._end(held, {**known, "state": "failed", "reason": state.reason})
            return
        if not shadow.reading and not shadow.targets:
            self._crew.start(shadow)
        self._note_progress(held, shadow, state, known)
        if shadow.live and shadow.reading:
            self._finish(held, shadow, declared, known)

    def _note_progress(self, held: Held, shadow: Held, state: ViewState | None, known: Mapping[str, Any]) -> None:
        """How many of the events are applied, and for how long it goes on at this rate."""
        first = _firsts((state.origins if state else None) or {})
        ends = self._crew.ends()
        events = sum(at - first.get(place, 0) for place, at in shadow.positions.items())
        of = sum(max(ends.get(place, 0), at) - first.get(place, 0) for place, at in shadow.positions.items())
        progress = self._progress.setdefault(held.name, _Progress(self._clock(), events))
        done, seconds = events - progress.events, self._clock() - progress.since
        left = round((of - events) * seconds / done, 1) if done else None
        doc = {**known, "events": events, "of": of, "seconds_left": left}
        if doc != known:
            note(self._engine, held.name, held.epoch, rebuild=json.dumps(doc))

    def _finish(self, held: Held, shadow: Held, declared: Shape, known: Mapping[str, Any]) -> None:
        """Compares, then swaps; what cannot be done at this moment is tried again with the next tick."""
        progress = self._progress[held.name]
        if progress.compared is None and held.reading:
            progress.compared = self._comparison(progress, held, shadow)
            if progress.compared is None:
                return
        found = asdict(progress.compared) if progress.compared is not None else {}
        repaired = found.get("differing", 0) if declared.fingerprint == held.shape.fingerprint else 0
        doc = {**known, "state": "done", "events": known.get("of"), "seconds_left": 0, "repaired": repaired, **found}
        for _ in range(_TRIES):
            if self._swap(held, shadow, declared, doc):
                log.info("rebuild_done", view=held.name, **found)
                self._progress.pop(held.name, None)
                self._crew.held.pop(shadow.name, None)
                self._again(held, declared)
                return
            time.sleep(_PAUSE_S)

    def _comparison(self, progress: _Progress, held: Held, shadow: Held) -> Comparison | None:
        """The comparison, once it is made: in a thread of its own, since it may take long."""
        if progress.comparing is None:
            columns = comparable(held.shape, shadow.shape)
            progress.comparing = self._comparer.submit(compare, self._engine, held.shape, shadow.shape, columns)
        for _ in range(_TRIES):
            if progress.comparing.done():
                made, progress.comparing = progress.comparing, None  # one that failed is made again
                return made.result()
            time.sleep(_PAUSE_S)
        return None

    def _swap(self, held: Held, shadow: Held, declared: Shape, doc: Mapping[str, Any]) -> bool:
        def noted(connection: Connection) -> None:
            values = {"rebuild": json.dumps(doc), "undone": ""}
            connection.execute(sa.update(VIEW).where(VIEW.c.name == held.name).values(**values))
            self._carry(connection, declared)

        try:
            done = swap.swap(
                self._engine,
                held.name,
                held.epoch,
                shadow.epoch,
                first=lambda connection: self._lock(connection, held.name),
                within=noted,
                behind=not held.reading,
                crash_point=self._crash,
            )
        except DatabaseUnavailable as error:
            log.warning("swap_waits", view=held.name, cause=str(error.__cause__))
            return False
        return done is not None

    def _lock(self, connection: Connection, view: str) -> None:
        """What views that this one reads need before a swap."""
        lock_reads(connection, view)

    def _carry(self, connection: Connection, shape: Shape) -> None:
        """What views computed from this one need after a swap."""
        name = shape.view.name
        follow_swap(connection, self._engine, name, shadow=name + NEXT, replaced=name + OLD)

    # --- ending ---

    def _undo(self, held: Held, declared: Shape, request: Request) -> None:
        doc = {"kind": "undo", "request": request.id, "target": declared.fingerprint, "state": "done"}

        def noted(connection: Connection) -> None:
            values = {"rebuild": json.dumps(doc), "request": request.id}
            connection.execute(sa.update(VIEW).where(VIEW.c.name == held.name).values(**values))
            self._carry(connection, held.shape)

        self._drop_shadow(held)
        first = lambda connection: self._lock(connection, held.name)  # noqa: E731
        if swap.undo(self._engine, held.name, held.epoch, first=first, within=noted) is None:
            reason = f"there is no {held.name}{OLD} to go back to: no rebuild has replaced anything"
            self._end(held, {**doc, "state": "refused", "reason": reason})
            return
        log.info("rebuild_undone", view=held.name)
        state = self._store.state(held.name)
        self._again(held, applied_shape(declared, state.fingerprint, state.shape) if state else declared)

    def _refill(self, held: Held, request: Request) -> None:
        """An aggregate is computed from views: whoever holds it fills it again."""
        doc = {"kind": request.kind, "request": request.id, "target": held.shape.fingerprint, "state": "done"}
        if request.kind == "undo":
            doc |= {"state": "refused", "reason": "an aggregate is computed from other views: undo is for these"}
            note(self._engine, held.name, held.epoch, rebuild=json.dumps(doc), request=request.id)
        else:
            note(self._engine, held.name, held.epoch, rebuild=json.dumps(doc), request=request.id, bases="{}")

    def _end(self, held: Held, doc: Mapping[str, Any]) -> None:
        self._drop_shadow(held)
        note(self._engine, held.name, held.epoch, request=str(doc.get("request", "")), rebuild=json.dumps(doc))

    def _again(self, held: Held, shape: Shape) -> None:
        """The view's tables are others now: it is built on with a new builder, from the positions that they have. Where
        that fails, whoever keeps the roster finds the view without targets and begins again."""
        held.reading, held.targets = False, {}
        self._crew.start(self._crew.take(shape, held.epoch))


def _firsts(origins: Mapping[str, Any]) -> dict[Place, int]:
    """Each partition's first offset that a view was built from."""
    return {
        (topic, int(partition)): first
        for topic, origin in origins.items()
        for partition, first in origin.get("from", {}).items()
    }
