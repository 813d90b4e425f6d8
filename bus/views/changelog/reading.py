"""Reads what changed in a view: all of it from some position on, or all its rows at one position to begin with.

A reader that has the view's rows as of some ``seq`` and applies `changes` from there has its rows as of ``upto``. Where
the log does not reach back so far (its tables were made anew, or what is older was pruned), `ChangesGone` says so: the
reader begins again with a `snapshot`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.errors import ChangesGone
from bus.infra.database import translated_errors
from bus.views.catalogue import Shape
from bus.views.changelog.tables import SEQ, log_table
from bus.views.store import VIEW
from bus.views.tables import LIVE, live_rows, row_table

Row = tuple[Any, ...]
Change = tuple[int, Row, Row | None]
"""The ``seq`` of its transaction, the key, and the row after it (None: gone)."""
_UNDEFINED_TABLE: Final = "42P01"
_STANDING: Final = sa.select(VIEW.c.name, VIEW.c.seq, VIEW.c.log_from, VIEW.c.fingerprint, VIEW.c.state)


@dataclass(frozen=True, slots=True)
class LogStanding:
    """Where a view is: its ``seq``, after which one its log is complete (None: it has none), the ``fingerprint`` of its
    tables' shape and its ``state``. Of a view that no worker has taken up: 0, None and empty."""

    seq: int = 0
    log_from: int | None = None
    fingerprint: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed after some ``seq``, up to and with ``upto``: whole transactions in their order, of each all keys
    that it touched, once. A row may be the same as before."""

    upto: int
    rows: list[Change]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All rows as of ``seq``, by portions in no particular order; tuples in the order of the shape's columns."""

    seq: int
    rows: Iterator[list[Row]]


class ChangeLog:
    """Reads logs and rows of one views database, each answer from one state of it. Thread-safe; calls block.

    Values are Python's, as the query door reads them. Raises `DatabaseUnavailable`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._there = False

    def standing(self, view: str) -> LogStanding:
        """Where one view is."""
        return self.standings(view).get(view, LogStanding())

    def standings(self, *views: str) -> dict[str, LogStanding]:
        """Where these views are, or all; those that no worker has taken up are left out."""
        wanted = _STANDING.where(VIEW.c.name.in_(views)) if views else _STANDING
        with translated_errors(), self._engine.connect() as connection:
            self._there = self._there or sa.inspect(connection).has_table(VIEW.name)  # before workers
            return {row[0]: LogStanding(*row[1:]) for row in connection.execute(wanted)} if self._there else {}

    def changes(self, shape: Shape, after: int, limit: int) -> Changes:
        """What changed after ``after``: about ``limit`` rows, more where one transaction has more. Raises `ChangesGone`
        where the log does not reach back so far, or where the view's tables are of another shape now."""
        view, log = shape.view.name, log_table(shape)
        with self._reading(view, log.name) as connection:
            standing = self._of_shape(connection, shape)
            if standing.log_from is None:
                raise ChangesGone(view=view, why="no log is kept of it now")
            if not standing.log_from <= after <= standing.seq:
                raise ChangesGone(view=view, why=f"the log begins after {standing.log_from}, not {after}")
            upto = _boundary(connection, log, after, limit) or standing.seq
            width = len(shape.view.key)
            columns = [log.c[column.name] for column in shape.columns]
            wanted = sa.select(log.c[SEQ], log.c[LIVE], *columns).where(log.c[SEQ] > after, log.c[SEQ] <= upto)
            found = connection.execute(wanted.order_by(log.c[SEQ])).all()
        return Changes(upto, [(row[0], tuple(row[2 : 2 + width]), tuple(row[2:]) if row[1] else None) for row in found])

    @contextmanager
    def snapshot(self, shape: Shape, *, portion: int = 2_000, at_random: bool = False) -> Iterator[Snapshot]:
        """All rows at one moment, in portions of so many; the transaction is open until the context ends.
        ``at_random``: in an order that says nothing of their keys. Raises `ChangesGone` where the view's tables are of
        another shape now."""
        rows = row_table(shape)
        columns = [rows.c[column.name] for column in shape.columns]
        with self._reading(shape.view.name, rows.name) as connection:
            standing = self._of_shape(connection, shape)
            wanted = sa.select(*columns).where(live_rows(rows))
            wanted = wanted.order_by(sa.func.random()) if at_random else wanted
            found = connection.execution_options(yield_per=portion).execute(wanted)
            yield Snapshot(standing.seq, ([tuple(row) for row in part] for part in found.partitions()))

    @contextmanager
    def _reading(self, view: str, table: str) -> Iterator[Connection]:
        """One state of the database. PostgreSQL: the table is locked against others taking its name before that state
        is chosen; what has gone before it was locked is `ChangesGone`."""
        with translated_errors(), self._engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ")
                name = connection.dialect.identifier_preparer.quote_identifier(table)
                try:
                    connection.exec_driver_sql(f"LOCK TABLE {name} IN ACCESS SHARE MODE")
                except sa.exc.ProgrammingError as error:
                    if getattr(error.orig, "sqlstate", None) != _UNDEFINED_TABLE:
                        raise
                    raise ChangesGone(view=view, why="it has no such table now") from error
            yield connection

    def _of_shape(self, connection: Connection, shape: Shape) -> LogStanding:
        row = connection.execute(_STANDING.where(VIEW.c.name == shape.view.name)).first()
        if row is None or row.fingerprint != shape.fingerprint:
            raise ChangesGone(view=shape.view.name, why="its tables are of another shape")
        return LogStanding(*row[1:])


def _boundary(connection: Connection, log: sa.Table, after: int, limit: int) -> int | None:
    """The transaction with the ``limit``-th row after ``after``; None where there are fewer."""
    rows = sa.select(log.c[SEQ]).where(log.c[SEQ] > after).order_by(log.c[SEQ])
    found: int | None = connection.scalar(rows.offset(max(limit, 1) - 1).limit(1))
    return found
