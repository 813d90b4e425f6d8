"""Applies batches of events to one view, each in one transaction with the positions they reach.

The transaction begins with the view's own row: `seq` rises only while our epoch holds, so a builder that lost its
lease writes nothing. What was applied already is dropped by position, so a repeated batch changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.contracts.quarantine import Quarantined, put
from bus.errors import DependentsChanged, Fenced
from bus.infra.database import translated_errors, write
from bus.views.catalogue import Shape
from bus.views.changelog.writing import ChangeFollower
from bus.views.decoding.batches import Batch
from bus.views.decoding.newest import selected, without_sequence
from bus.views.derived.dependents import Dependents
from bus.views.derived.disagreement import disagreement
from bus.views.derived.followers import Follower
from bus.views.derived.history import Keeper, knowing
from bus.views.merging import Counts, Merging
from bus.views.picking import Picking
from bus.views.prepared import Prepared
from bus.views.progress import Progress, Step, store
from bus.views.scratch import Scratch
from bus.views.statements import touched_keys
from bus.views.store import QUARANTINE, VIEW, Position
from bus.views.tables import layout
from bus.views.touching import Touched

Place = tuple[str, int]
CrashPoint = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """After a transaction: the view's ``seq`` and ``positions`` by (topic, partition). ``gaps``: partitions whose batch
    began beyond the view's position, so nothing of it was applied; they must be read again from there."""

    seq: int
    positions: dict[Place, int]
    gaps: frozenset[Place] = frozenset()


@dataclass(frozen=True, slots=True)
class Written:
    """What is written of one view in a transaction that is not committed yet; ``step`` is to be stored in it."""

    outcome: Outcome
    reached: Mapping[Place, Position]
    step: Step


def no_crash(_point: str) -> None:
    """The default crash point: does nothing. Fault tests pass one that kills the process."""


class Builder:
    """Builds one entity or history view under the lease's ``epoch``. Not thread-safe: one caller at a time.

    ``followers``: what else is kept in the same transactions, in this order, after a history view's own versions and
    the view's discrepancies.
    """

    def __init__(
        self,
        engine: Engine,
        shape: Shape,
        epoch: int,
        *,
        followers: Sequence[Follower] = (),
        crash_point: CrashPoint = no_crash,
    ) -> None:
        self._engine, self._shape, self._epoch, self._crash = engine, shape, epoch, crash_point
        self._layout = layout(shape)
        dialect = engine.dialect.name
        self._keeper = Keeper(shape, dialect) if self._layout.history else None
        suffix = shape.fingerprint[:8]
        self._touched = Touched(self._layout, touched_keys(self._layout, dialect, suffix), dialect)
        own: list[Follower] = [self._keeper] if self._keeper else []
        own += disagreement(shape, self._touched.table, dialect)
        self._dependents = Dependents(engine, shape, crash_point=crash_point)
        self._changes = ChangeFollower(shape, self._touched.table)
        self._followers = [*own, *followers, self._dependents, self._changes]
        self._merges = [
            Merging(place, records, self._touched, dialect=dialect, suffix=suffix, crash=crash_point)
            for place, records in enumerate(self._layout.records)
        ]
        self._progress = Progress(shape.view.name)

    @property
    def shape(self) -> Shape:
        return self._shape

    def apply(self, batches: Sequence[Batch], picking: Picking | None = None) -> Outcome:
        """Applies the batches, positions included. ``picking``: what other views made of the same batches. Raises
        `Fenced` when the lease is another's now and `DatabaseUnavailable` when the database does not answer: nothing
        was applied then, or all of it was and the same batches may be given again."""
        with translated_errors():
            return self._dependents.retried(lambda: self._applied(batches, picking or Picking()))

    @property
    def alone(self) -> bool:
        """Whether its transactions are to be its own: other views are computed from this one or looked up by it, whose
        rows would be locked too, or it is not known yet whether there are any."""
        return not self._dependents.loaded or self._dependents.wants_rows

    def learn(self) -> None:
        """Finds out what is computed from the view, so that its first batch need not. Raises `DatabaseUnavailable`."""
        self._dependents.reload()

    @property
    def engine(self) -> Engine:
        return self._engine

    def _applied(self, batches: Sequence[Batch], picking: Picking) -> Outcome:
        return together([(self, batches)], picking)[0]

    def write(self, connection: Connection, batches: Sequence[Batch], picking: Picking) -> Written:
        """Writes all but the view's progress, in a transaction that `together` ends."""
        seq, log_from = begin(connection, self._shape, self._epoch, self._dependents.known)
        self._changes.begin(seq, log_from)
        self._crash("begun")
        every = any(follower.wants_rows for follower in self._followers)
        self._touched.begin(connection, sum(map(len, batches)), every=every)
        positions, changed = self._progress.recall(connection, seq), dict[Place, Position]()
        counts, gaps = Counts(), set[Place]()
        for _, batches_of_topic in groupby(sorted(batches, key=_topic), key=_topic):
            accepted = []
            for batch in batches_of_topic:
                place = (batch.topic, batch.partition)
                position = changed.get(place) or positions.get(place) or Position(*place, 0, None)
                if batch.base > position.next_offset:
                    gaps.add(place)
                    continue
                part, sequenced = self._accepted(connection, _after(batch, position.next_offset), position, counts)
                changed[place] = _reached(part, position, sequenced)
                accepted.append(part)
            self._merge(connection, picking, accepted, counts)
            self._touched.end_topic(connection, self._crash)
        if every:
            for follower in self._followers:
                if follower.wants_rows:
                    follower.rows(connection, self._touched.table)
                    self._crash("followed")
        reached = {**positions, **changed}
        next_offsets = {place: position.next_offset for place, position in reached.items()}
        step = Step(self._shape.view.name, list(changed.values()), counts)
        return Written(Outcome(seq, next_offsets, frozenset(gaps)), reached, step)

    def crash(self, point: str) -> None:
        """A place where a fault test may end the process."""
        self._crash(point)

    def committed(self, written: Written) -> None:
        """What was written is there."""
        if not written.outcome.gaps:  # else somebody wrote what is not remembered
            self._progress.remember(written.outcome.seq, written.reached)
        self._crash("after commit")

    def _accepted(self, connection: Connection, batch: Batch, position: Position, counts: Counts) -> tuple[Batch, bool]:
        """The events of one partition that are merged, and whether it has stated sequences by now. What is refused is
        put into quarantine, and followers get the rest."""
        refused = list(batch.refused)
        lacking, sequenced = without_sequence(batch, position.sequenced)
        if lacking.any():
            refused += [
                batch.quarantined(index, "ce_sequence", "a sequence, as events before it have", "null")
                for index in np.flatnonzero(lacking).tolist()
            ]
            batch = selected(batch, ~lacking)
        if self._keeper is not None:
            batch = replace(batch, known=knowing(batch.appended_ms, position.known_ms))
        put(connection, QUARANTINE, refused)
        counts.quarantined += len(refused)
        for merging in self._merges:
            if merging.topic == batch.topic and len(batch):
                merging.follow(connection, batch, self._followers)
        return batch, sequenced

    def _merge(self, connection: Connection, picking: Picking, batches: Sequence[Batch], counts: Counts) -> None:
        """The accepted batches of one topic."""
        merges = [merging for merging in self._merges if batches and merging.topic == batches[0].topic]
        if not merges:
            return
        for picked in picking.of(batches, merges[0].key):
            late = 0
            for merging in merges:
                late = merging.merge(connection, picked, counts)
            counts.applied += len(picked.batch) - late
            counts.stale_dropped += late

    def set_aside(self, entries: Sequence[Quarantined], batch: Batch) -> Outcome:
        """Moves past a batch without applying it: all of it is put into quarantine."""
        return self.apply([replace(selected(batch, np.zeros(len(batch), np.bool_)), refused=list(entries))])


def _topic(batch: Batch) -> str:
    return batch.topic


Work = tuple[Builder, Sequence[Batch]]
"""What one view is given of a round."""


def together(work: Sequence[Work], picking: Picking) -> list[Outcome]:
    """Applies batches to several views of one database (at least one) in one transaction, in the order of ``work``: all
    of it or nothing. Raises what any of the views raises, `Fenced` and `DependentsChanged` among it; whoever calls
    tries them one by one then, so that nobody is held up by another's trouble."""
    with translated_errors(), write(work[0][0].engine) as connection:
        info, making = connection.info, Scratch.begun(connection)
        written = [builder.write(connection, batches, picking) for builder, batches in work]
        store(connection, [one.step for one in written])
        for builder, _ in work:
            builder.crash("before commit")
    Scratch.committed(info, making)
    for (builder, _), one in zip(work, written, strict=True):
        builder.committed(one)
    return [one.outcome for one in written]


class Begun(NamedTuple):
    """The view's ``seq`` in a transaction, and ``log_from`` of its row: None where its changes are not logged."""

    seq: int
    log_from: int | None


def begin(connection: Connection, shape: Shape, epoch: int, known: Mapping[str, str] | None = None) -> Begun:
    """The first statement of every transaction on a view: raises its ``seq``. ``known``: what else the view's row must
    have, by column, see `Dependents.known`.

    Raises `Fenced` under another epoch, and where the tables are another shape's by now: the same worker may have
    followed a changed declaration meanwhile. Raises `DependentsChanged` where ``known`` does not hold.
    """
    mine = {"name": shape.view.name, "epoch": epoch, "fingerprint": shape.fingerprint}
    every = {**mine, **(known or {})}
    row = _raise_seq(tuple(every), connection.dialect.name).run(connection, _bound(every)).first()
    if row is None and connection.execute(sa.select(VIEW.c.name).filter_by(**mine)).first() is not None:
        raise DependentsChanged(view=shape.view.name)
    if row is None:
        raise Fenced(view=shape.view.name, epoch=epoch)
    return Begun(*row)


@lru_cache
def _raise_seq(names: tuple[str, ...], dialect: str) -> Prepared:
    """Made once, as all statements of a small batch: to make one takes longer than to run it."""
    having = (VIEW.c[name] == sa.bindparam(f"of_{name}") for name in names)
    raised = sa.update(VIEW).where(*having).values(seq=VIEW.c.seq + 1, crashes=0)
    return Prepared(raised.returning(VIEW.c.seq, VIEW.c.log_from), dialect)


def _bound(values: Mapping[str, object]) -> dict[str, object]:
    return {f"of_{name}": value for name, value in values.items()}


def _after(batch: Batch, next_offset: int) -> Batch:
    """The part of a batch that the view does not have yet."""
    if batch.base == next_offset:
        return batch
    refused = [entry for entry in batch.refused if (entry.offset or 0) >= next_offset]
    return replace(selected(batch, batch.offsets >= next_offset), refused=refused, base=next_offset)


def _reached(batch: Batch, position: Position, sequenced: bool) -> Position:
    next_offset = max(batch.next_offset, position.next_offset)
    end_offset = max(batch.end_offset, next_offset)
    complete = batch.read_ms if next_offset >= batch.end_offset else position.complete_ms
    time_ms = position.source_time_ms if batch.source_time_ms is None else batch.source_time_ms
    known = position.known_ms if batch.known is None or not len(batch) else int(batch.known[-1])
    return Position(batch.topic, batch.partition, next_offset, time_ms, sequenced, end_offset, complete, known)
