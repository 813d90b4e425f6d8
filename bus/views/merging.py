"""Brings the newest event of each record into the records of one source, where it is newer than what is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.engine import Connection

from bus.views.decoding.batches import Batch
from bus.views.decoding.newest import overtaken, stale
from bus.views.derived.followers import Follower
from bus.views.picking import Picked, wanted
from bus.views.prepared import given
from bus.views.scratch import Scratch
from bus.views.staging import insertion, load, load_by
from bus.views.statements import MergeStatements, merge_of_one, stage_of
from bus.views.tables import Records
from bus.views.touching import Touched

_FEW: Final = 2_000  # records that PostgreSQL is given as values; of more, COPY and a plan for many are as quick


@dataclass(slots=True)
class Counts:
    """What one transaction does."""

    applied: int = 0
    stale_dropped: int = 0
    null_key: int = 0
    quarantined: int = 0


class Merging:
    """One source of one view, the ``place``-th. ``crash``: called after each step."""

    def __init__(
        self,
        place: int,
        records: Records,
        touched: Touched,
        *,
        dialect: str,
        suffix: str,
        crash: Callable[[str], None],
    ) -> None:
        self._place, self._records, self._touched, self._crash = place, records, touched, crash
        self._wanted, self._names = wanted(records), [column.name for column in records.stored]
        self.stage = stage_of(records, dialect, suffix)
        self._scratch = Scratch(self.stage, dialect)
        self._staged = MergeStatements(records, self.stage, dialect, touched.table)
        self._given = MergeStatements(records, given(records.stored), dialect) if dialect == "postgresql" else None
        self._direct = merge_of_one(records) if dialect == "sqlite" and not records.group else ""

    @property
    def topic(self) -> str:
        return self._records.contract.topic

    @property
    def key(self) -> tuple[str, ...]:
        """The entity's."""
        return self._records.contract.key

    def follow(self, connection: Connection, batch: Batch, followers: Sequence[Follower]) -> None:
        """Hands the events of one partition to those who keep more than the newest of each record."""
        for follower in followers:
            follower.events(connection, self._records, batch)

    def merge(self, connection: Connection, picked: Picked, counts: Counts) -> int:
        """Merges one batch; returns how many of its events came too late."""
        few = len(picked) <= _FEW
        late = self._by_values(connection, self._given, picked, counts) if self._given and few else None
        if late is None and self._direct and picked.found.ordered and not self._touched.wanted:
            late = self._one_by_one(connection, picked)
        if late is None:
            self._stage(connection, picked)
            self._crash("staged")
            late = self._late_by_version(connection, self._staged, picked, {})
            if self._touched.wanted:
                self._touch(connection, counts)
            merged = self._staged.merge.run(connection).rowcount
            late += self._late_by_place(connection, self._staged, picked, merged, {})
        self._crash("merged")
        return late

    def _by_values(
        self, connection: Connection, statements: MergeStatements, picked: Picked, counts: Counts
    ) -> int | None:
        """PostgreSQL: the records bound to each statement. None, and nothing was done, where records leave their view
        keys: which those were must be asked before they are gone."""
        values = dict(zip(self._names, picked.values(self._wanted), strict=True))
        if self._records.group:
            null_keys, leaving = statements.changes.run(connection, values).one()
            if leaving:
                return None
            counts.null_key += null_keys
            self._touched.sources.add(self._place)
        late = self._late_by_version(connection, statements, picked, values)
        if self._touched.wanted:
            names = self._records.group or self._records.key
            self._touched.add(picked.keys(self._records.fields(names), live=bool(self._records.group)))
        merged = statements.merge.run(connection, values).rowcount
        return late + self._late_by_place(connection, statements, picked, merged, values)

    def _late_by_version(
        self, connection: Connection, statements: MergeStatements, picked: Picked, values: dict[str, Any]
    ) -> int:
        """Events that are older than what there is, where they state versions: to be asked before they are merged."""
        if picked.found.ordered:
            return 0
        rows = statements.versions.run(connection, values).all()
        return stale(picked.batch, picked.found, {tuple(row[:4]): tuple(row[4:]) for row in rows})

    def _late_by_place(
        self, connection: Connection, statements: MergeStatements, picked: Picked, merged: int, values: dict[str, Any]
    ) -> int:
        """The same where offsets decide: only where fewer were ``merged`` than there are."""
        if not picked.found.ordered or merged >= len(picked):
            return 0
        rows = statements.overtaken.run(connection, values)
        return overtaken(picked.found, picked.batch, {tuple(row) for row in rows})

    def _touch(self, connection: Connection, counts: Counts) -> None:
        statements, touched = self._staged, self._touched
        touched.begin_table(connection)
        if not self._records.group:
            statements.staged_keys.run(connection)
            return
        null_keys, leaving = statements.changes.run(connection).one()
        if leaving:
            statements.old_keys.run(connection)
        statements.new_keys.run(connection)
        counts.null_key += null_keys
        touched.leaving += leaving
        touched.sources.add(self._place)

    def _stage(self, connection: Connection, picked: Picked) -> None:
        self._scratch.ready(connection, len(picked))
        if connection.dialect.name == "postgresql":
            load(connection, self.stage, dict(zip(self._names, map(picked.array, self._wanted), strict=True)))
        else:
            load_by(connection, insertion(self.stage), picked.listed(self._wanted))

    def _one_by_one(self, connection: Connection, picked: Picked) -> int:
        """SQLite: without a stage, which is a third of the writing, where nobody asks what the stage could answer."""
        merged = load_by(connection, self._direct, picked.listed(self._wanted))
        if merged < len(picked):  # late events are found by comparing with the stage
            self._stage(connection, picked)
        return self._late_by_place(connection, self._staged, picked, merged, {})
