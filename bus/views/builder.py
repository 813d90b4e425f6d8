"""Applies batches of events to one view, each in one transaction with the positions they reach.

The transaction begins with the view's own row: `seq` rises only while our epoch holds, so a builder that lost its
lease writes nothing. What was applied already is dropped by position, so a repeated batch changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.contracts.quarantine import Quarantined, put
from bus.errors import DependentsChanged, Fenced
from bus.infra.database import translated_errors, write
from bus.views.catalogue import Shape
from bus.views.changelog.writing import ChangeFollower
from bus.views.decoding.batches import Batch
from bus.views.decoding.newest import joined, newest, selected, without_sequence
from bus.views.derived.dependents import Dependents
from bus.views.derived.disagreement import disagreement
from bus.views.derived.followers import Follower
from bus.views.derived.history import Keeper, knowing
from bus.views.merging import Counts, Merging
from bus.views.statements import Insert, MergeStatements, RowStatements, Scratch, insert_into, touched_keys
from bus.views.store import POSITION, QUARANTINE, VIEW, Position, read_positions
from bus.views.tables import layout

Place = tuple[str, int]
CrashPoint = Callable[[str], None]
_MADE: Final = "temporary tables"


@dataclass(frozen=True, slots=True)
class Outcome:
    """After a transaction: the view's ``seq`` and ``positions`` by (topic, partition). ``gaps``: partitions whose batch
    began beyond the view's position, so nothing of it was applied; they must be read again from there."""

    seq: int
    positions: dict[Place, int]
    gaps: frozenset[Place] = frozenset()


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
        self._touched = touched_keys(self._layout, dialect, suffix)
        own: list[Follower] = [self._keeper] if self._keeper else []
        own += disagreement(shape, self._touched, dialect)
        self._dependents = Dependents(engine, shape, crash_point=crash_point)
        self._changes = ChangeFollower(shape, self._touched)
        self._followers = [*own, *followers, self._dependents, self._changes]
        self._scratch = Scratch(self._touched)
        self._rows = None if self._layout.one_level else RowStatements(self._layout, self._touched, dialect)
        self._merges = [
            Merging(place, records, MergeStatements(records, self._touched, dialect, suffix), crash_point)
            for place, records in enumerate(self._layout.records)
        ]

        self._made: set[str] = set()

    @property
    def shape(self) -> Shape:
        return self._shape

    def apply(self, batches: Sequence[Batch]) -> Outcome:
        """Applies the batches, positions included. Raises `Fenced` when the lease is another's now and
        `DatabaseUnavailable` when the database does not answer: nothing was applied then, or all of it was and the
        same batches may be given again."""
        with translated_errors():
            return self._dependents.retried(lambda: self._applied(batches))

    def _applied(self, batches: Sequence[Batch]) -> Outcome:
        with write(self._engine) as connection:
            outcome = self._transaction(connection, batches)
            made = connection.info.setdefault(_MADE, set[str]())
            self._crash("before commit")
        made |= self._made
        self._crash("after commit")
        return outcome

    def _transaction(self, connection: Connection, batches: Sequence[Batch]) -> Outcome:
        seq, log_from = begin(connection, self._shape, self._epoch, self._dependents.known)
        self._changes.begin(seq, log_from)
        self._crash("begun")
        self._make_temporary(connection, sum(map(len, batches)))
        positions = {(p.topic, p.partition): p for p in read_positions(connection, self._shape.view.name)}
        counts, gaps = Counts(), set[Place]()
        for _, batches_of_topic in groupby(sorted(batches, key=_topic), key=_topic):
            self._clear_touched(connection, counts)
            accepted = []
            for batch in batches_of_topic:
                place = (batch.topic, batch.partition)
                position = positions.get(place) or Position(batch.topic, batch.partition, 0, None)
                if batch.base > position.next_offset:
                    gaps.add(place)
                    continue
                part, sequenced = self._accepted(connection, _after(batch, position.next_offset), position, counts)
                positions[place] = _reached(part, position, sequenced)
                accepted.append(part)
            for batch in joined(accepted):
                self._merge(connection, batch, counts)
            if self._rows is not None:
                self._write_rows(connection, self._rows, counts)
        for follower in self._followers:
            if follower.wants_rows:
                follower.rows(connection, self._touched)
                self._crash("followed")
        self._finish(connection, [positions[place] for place in positions if place not in gaps], counts)
        return Outcome(seq, {place: position.next_offset for place, position in positions.items()}, frozenset(gaps))

    def _clear_touched(self, connection: Connection, counts: Counts) -> None:
        """Between two topics the touched keys are forgotten, unless a follower asks for all of them at the end."""
        if counts.sources and not any(follower.wants_rows for follower in self._followers):
            connection.execute(sa.delete(self._touched))
        counts.leaving = 0
        counts.sources.clear()

    def _write_rows(self, connection: Connection, rows: RowStatements, counts: Counts) -> None:
        """The rows of the touched keys, topic by topic, so that mostly one source is looked at. Rows go, and columns
        become empty, only where a record left its key."""
        if not counts.leaving and len(counts.sources) == 1:
            connection.execute(rows.upserts[min(counts.sources)])
        elif counts.sources:
            connection.execute(rows.upsert)
        self._crash("rows written")
        if counts.leaving:
            connection.execute(rows.delete)

    def _make_temporary(self, connection: Connection, events: int) -> None:
        """Temporary tables live as long as the connection, which the pool may have changed. Which of them it has is
        noted with it once they are committed: a statement for each would cost a small batch as much as its events."""
        made = connection.info.get(_MADE, ())
        needed = self._needs_touched()
        tables = [merging.stage for merging in self._merges] + ([self._touched] if needed else [])
        for table in tables:
            if table.name not in made:
                connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
        self._made = {table.name for table in tables}
        if needed:
            self._scratch.empty(connection, events)

    def _needs_touched(self) -> bool:
        return self._rows is not None or any(follower.wants_rows for follower in self._followers)

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

    def _merge(self, connection: Connection, batch: Batch, counts: Counts) -> None:
        found, late, touching = newest(batch), 0, self._needs_touched()
        for merging in self._merges:
            if merging.topic == batch.topic:
                late = merging.merge(connection, batch, found, counts, touching=touching)
        counts.applied += len(batch) - late
        counts.stale_dropped += late

    def _finish(self, connection: Connection, positions: Sequence[Position], counts: Counts) -> None:
        write_positions(connection, self._shape.view.name, positions)
        changes = {name: getattr(counts, name) for name in _COUNTED}
        if any(changes.values()):
            connection.execute(_COUNT, _bound({"name": self._shape.view.name, **changes}))

    def set_aside(self, entries: Sequence[Quarantined], batch: Batch) -> Outcome:
        """Moves past a batch without applying it: all of it is put into quarantine."""
        return self.apply([replace(selected(batch, np.zeros(len(batch), np.bool_)), refused=list(entries))])


def _topic(batch: Batch) -> str:
    return batch.topic


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
    row = connection.execute(_raise_seq(tuple(every)), _bound(every)).first()
    if row is None and connection.execute(sa.select(VIEW.c.name).filter_by(**mine)).first() is not None:
        raise DependentsChanged(view=shape.view.name)
    if row is None:
        raise Fenced(view=shape.view.name, epoch=epoch)
    return Begun(*row)


@lru_cache
def _raise_seq(names: tuple[str, ...]) -> sa.UpdateBase:
    """Made once, as all statements of a small batch: to make one takes longer than to run it."""
    having = (VIEW.c[name] == sa.bindparam(f"of_{name}") for name in names)
    return sa.update(VIEW).where(*having).values(seq=VIEW.c.seq + 1, crashes=0).returning(VIEW.c.seq, VIEW.c.log_from)


def _bound(values: Mapping[str, object]) -> dict[str, object]:
    return {f"of_{name}": value for name, value in values.items()}


_COUNTED: Final = ("applied", "stale_dropped", "null_key", "quarantined")
_COUNT: Final = (
    sa.update(VIEW)
    .where(VIEW.c.name == sa.bindparam("of_name"))
    .values({name: VIEW.c[name] + sa.bindparam(f"of_{name}") for name in _COUNTED})
)


def write_positions(connection: Connection, view: str, positions: Sequence[Position]) -> None:
    """Stores the positions of a view."""
    if not positions:
        return
    names = [column.name for column in POSITION.columns if column.name != "view"]
    rows = [{"view": view, **{name: getattr(position, name) for name in names}} for position in positions]
    connection.execute(_position_upsert(connection.dialect.name), rows)


@lru_cache
def _position_upsert(dialect: str) -> Insert:
    """Made once: to make it takes as long as to run it."""
    insert = insert_into(POSITION, dialect)
    key = ["view", "topic", "partition"]
    changes = {column.name: insert.excluded[column.name] for column in POSITION.columns if column.name not in key}
    return insert.on_conflict_do_update(index_elements=key, set_=changes)


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
