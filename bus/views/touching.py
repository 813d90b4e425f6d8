"""The view keys that a transaction touches, and the rows of a view with two levels, which are computed from them.

The keys are in a temporary table where something is asked there: by a follower, by a large batch, and where records
leave their keys. On PostgreSQL those of a small batch are bound as values, and no temporary table is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bus.views.picking import different
from bus.views.prepared import Prepared, encoded, given
from bus.views.scratch import Scratch
from bus.views.statements import RowStatements, best_one_by_one, insert_into, of_source
from bus.views.tables import Layout


class _Rows:
    """The statements of `RowStatements`, ready to run."""

    def __init__(self, layout: Layout, touched: sa.Table, dialect: str) -> None:
        made = RowStatements(layout, touched, dialect)
        self.upsert, self.delete = Prepared(made.upsert, dialect), Prepared(made.delete, dialect)
        self.upserts = [Prepared(upsert, dialect) for upsert in made.upserts]


class Touched:
    """The touched keys of one view, transaction by transaction and topic by topic. ``table``: the temporary one;
    ``leaving``: live records of this topic that leave the view key they had; ``sources``: the places of those among the
    view's sources that touched keys."""

    def __init__(self, layout: Layout, table: sa.Table, dialect: str) -> None:
        self.table, self._scratch = table, Scratch(table, dialect)
        self._rows = None if layout.one_level else _Rows(layout, table, dialect)
        if dialect == "postgresql":
            source = given(list(table.columns))
            found = sa.select(*source.c).where(sa.true())
            names = [column.name for column in table.columns]
            insert = insert_into(table, dialect).from_select(names, found).on_conflict_do_nothing()
            self._insert = Prepared(insert, dialect)
            self._by_values = [
                Prepared(of_source(layout, records, best_one_by_one(records, source), dialect), dialect)
                for records in (() if layout.one_level else layout.records)
            ]
        self._given: list[Sequence[pa.Array]] = []
        self._events, self._every = 0, False
        self._emptied = self._tabled = False
        self.leaving, self.sources = 0, set[int]()

    @property
    def wanted(self) -> bool:
        """Whether anybody asks for them."""
        return self._every or self._rows is not None

    def begin(self, connection: Connection, events: int, *, every: bool) -> None:
        """A transaction of so many events begins. ``every``: at its end all touched keys are wanted in the table."""
        self._events, self._every, self._emptied = events, every, False
        if every:
            self._empty(connection)
        self._next_topic()

    def begin_table(self, connection: Connection) -> None:
        """What comes next puts keys of this topic into the table."""
        self._empty(connection)
        self._tabled = True

    def add(self, keys: Sequence[pa.Array]) -> None:
        """Keys as columns, all different (PostgreSQL only)."""
        if len(keys[0]):
            self._given.append(keys)

    def end_topic(self, connection: Connection, crash: Callable[[str], None]) -> None:
        """Writes the rows of the keys that this topic touched, which are forgotten then unless all are wanted at the
        end: so mostly one source is looked at."""
        alone = not self.leaving and len(self.sources) == 1
        by_values = self._rows is not None and alone and bool(self._given) and not self._tabled
        if self._given and (self._every or not by_values):
            self._empty(connection)
            for keys in self._given:
                self._insert.run(connection, self._bound(keys))
        if self._rows is not None:
            if by_values:
                self._write_given(connection)
            elif alone and self._emptied:
                self._rows.upserts[min(self.sources)].run(connection)
            elif self.sources and self._emptied:
                self._rows.upsert.run(connection)
            crash("rows written")
            if self.leaving:  # rows go, and columns become empty, only where a record left its key
                self._rows.delete.run(connection)
        self._next_topic()

    def _write_given(self, connection: Connection) -> None:
        keys = self._given[0]
        if len(self._given) > 1:
            keys = different([pa.concat_arrays(parts) for parts in zip(*self._given, strict=True)])
        self._by_values[min(self.sources)].run(connection, self._bound(keys))

    def _next_topic(self) -> None:
        self._emptied = self._emptied and self._every
        self._tabled = False
        self._given.clear()
        self.leaving = 0
        self.sources.clear()

    def _empty(self, connection: Connection) -> None:
        if not self._emptied:
            self._scratch.ready(connection, self._events)
            self._emptied = True

    def _bound(self, keys: Sequence[pa.Array]) -> dict[str, Any]:
        return {column.name: encoded(part) for column, part in zip(self.table.columns, keys, strict=True)}
