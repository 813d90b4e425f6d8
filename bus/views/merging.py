"""Brings the newest event of each record into the records of one source, where it is newer than what is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bus.views.decoding.batches import Batch, Integers
from bus.views.decoding.newest import Newest, overtaken, stale
from bus.views.derived.followers import Follower
from bus.views.staging import load, load_by
from bus.views.statements import MergeStatements, Scratch
from bus.views.tables import LIVE, PARTITION, VERSION, Records


@dataclass(slots=True)
class Counts:
    """What one transaction does. ``leaving``: live records that leave the view key they had; ``sources``: the topics'
    places among the view's sources."""

    applied: int = 0
    stale_dropped: int = 0
    null_key: int = 0
    quarantined: int = 0
    leaving: int = 0
    sources: set[int] = field(default_factory=set)


class Merging:
    """One source of one view, the ``place``-th. ``crash``: called after each step."""

    def __init__(self, place: int, records: Records, statements: MergeStatements, crash: Callable[[str], None]) -> None:
        self._place, self._records, self._statements, self._crash = place, records, statements, crash
        self._scratch = Scratch(statements.stage)

    @property
    def topic(self) -> str:
        return self._records.contract.topic

    @property
    def stage(self) -> sa.Table:
        return self._statements.stage

    def merge(
        self,
        connection: Connection,
        batch: Batch,
        found: Newest,
        counts: Counts,
        *,
        touching: bool,
    ) -> int:
        """Merges one batch; returns how many of its events came too late. ``touching``: whether the touched view keys
        are noted."""
        statements = self._statements
        direct = statements.direct and found.ordered and not touching
        if not direct:
            self._stage(connection, _columns(self._records, batch, found.events))
            self._crash("staged")
        late = 0
        if not found.ordered:
            rows = connection.execute(statements.versions).all()
            late = stale(batch, found, {tuple(row[:4]): tuple(row[4:]) for row in rows})
        if touching:
            self._touch(connection, counts)
        merged = self._directly(connection, batch, found) if direct else self._from_stage(connection)
        self._crash("merged")
        if found.ordered and merged < len(found.events):
            late = overtaken(found, batch, {tuple(row) for row in connection.execute(statements.overtaken)})
        return late

    def follow(self, connection: Connection, batch: Batch, followers: Sequence[Follower]) -> None:
        """Hands the events of one partition to those who keep more than the newest of each record."""
        for follower in followers:
            follower.events(connection, self._records, batch)

    def _touch(self, connection: Connection, counts: Counts) -> None:
        statements = self._statements
        if not self._records.group:
            connection.execute(statements.staged_keys)
            return
        null_keys, leaving = connection.execute(statements.changes).one()
        if leaving:
            connection.execute(statements.old_keys)
        connection.execute(statements.new_keys)
        counts.null_key, counts.leaving = counts.null_key + null_keys, counts.leaving + leaving
        counts.sources.add(self._place)

    def _stage(self, connection: Connection, columns: dict[str, pa.Array]) -> None:
        self._scratch.empty(connection, len(columns[LIVE]))
        load(connection, self.stage, columns)

    def _from_stage(self, connection: Connection) -> int:
        return connection.execute(self._statements.merge).rowcount

    def _directly(self, connection: Connection, batch: Batch, found: Newest) -> int:
        """Without a stage, which on SQLite is a third of the writing, where nobody asks what the stage could answer.
        Sorted by key, so that neighbours in the table are written together; returns how many records were newer."""
        events = found.events[_by_key(self._records, batch, found.events)]
        columns = _columns(self._records, batch, events)
        arrays = [columns[column.name] for column in self._records.stored]
        merged = load_by(connection, self._statements.direct, arrays)
        if merged < len(events):  # late events are counted by comparing with the stage
            self._stage(connection, columns)
        return merged


def _by_key(records: Records, batch: Batch, events: Integers) -> Integers:
    """The order of these events by their keys."""
    fields, chosen = records.fields(records.key), pa.array(events)
    keys = pa.table({name: batch.columns[name].take(chosen) for name in fields})
    found: Integers = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in fields]).to_numpy()
    return found


def _columns(records: Records, batch: Batch, events: Integers) -> dict[str, pa.Array]:
    """The newest events as columns of the records table."""
    every = np.array_equal(events, np.arange(len(batch)))
    chosen = pa.array(events)

    def taken(array: pa.Array) -> pa.Array:
        return array if every else array.take(chosen)

    columns = {cell.column: taken(batch.columns[cell.field.name]) for cell in records.cells}
    columns |= {
        name: taken(pa.array(values))
        for name, values in zip(VERSION, (batch.stated, batch.sequence, batch.offsets), strict=True)
    }
    partitions = taken(pa.array(batch.places.astype(np.int32)))
    return {**columns, LIVE: taken(pa.array(batch.live)), PARTITION: partitions}
