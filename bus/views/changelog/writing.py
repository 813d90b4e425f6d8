"""Appends to the log of a view what its touched keys' rows are after a transaction, within that transaction."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bus.views.catalogue import Shape
from bus.views.changelog.tables import AT, SEQ, log_table
from bus.views.decoding.batches import Batch
from bus.views.groups import ROWS, key_names, values_of
from bus.views.tables import LIVE, Records, live_rows, row_table

_SEQ_NOW: Final = "_seq_now"  # no column of a view begins with an underscore, so these bind nothing else
_MS_NOW: Final = "_ms_now"


class LogRows:
    """The statement for one view. ``touched``: the temporary table of its touched keys: view keys in the key's order,
    or an aggregate's hidden keys."""

    def __init__(self, shape: Shape, touched: sa.Table) -> None:
        self._shape, self._touched = shape, touched

    def append(self, connection: Connection, seq: int) -> None:
        """``seq``: the view's, in this transaction."""
        connection.execute(self._insert, {_SEQ_NOW: seq, _MS_NOW: time.time_ns() // 1_000_000})

    @cached_property
    def _insert(self) -> sa.Insert:
        """Made when it is first needed: most views are not streamed."""
        shape, touched = self._shape, self._touched
        rows, key = row_table(shape), shape.view.key
        if shape.view.kind == "aggregate":
            pairs = [(touched.c[name], rows.c[name]) for name in key_names(shape)]
            shown, there = values_of(shape, touched), rows.c[ROWS].is_not(None)
        else:
            pairs = list(zip(touched.columns, (rows.c[name] for name in key), strict=True))
            shown, there = list(touched.columns), rows.c[key[0]].is_not(None)
        others = [rows.c[column.name] for column in shape.columns[len(key) :]]
        found = touched.outerjoin(rows, sa.and_(*(mine == theirs for mine, theirs in pairs), live_rows(rows)))
        columns: list[sa.ColumnElement[Any]] = [sa.bindparam(_SEQ_NOW, type_=sa.BigInteger), *shown, *others, there]
        columns.append(sa.bindparam(_MS_NOW, type_=sa.BigInteger))
        names = [SEQ, *(column.name for column in shape.columns), LIVE, AT]
        return sa.insert(log_table(shape)).from_select(names, sa.select(*columns).select_from(found))


class ChangeFollower:
    """Keeps the log of the view that a builder writes; the last of its followers, when the rows are as they stay."""

    def __init__(self, shape: Shape, touched: sa.Table) -> None:
        self._rows = LogRows(shape, touched)
        self._seq: int | None = None

    def begin(self, seq: int, log_from: int | None) -> None:
        """A transaction begins: what the view's row says once it is locked."""
        self._seq = seq if log_from is not None else None

    @property
    def wants_rows(self) -> bool:
        return self._seq is not None

    def events(self, connection: Connection, records: Records, batch: Batch) -> None:
        """Nothing: the log is of rows."""

    def rows(self, connection: Connection, touched: sa.Table) -> None:
        """Appends what the touched keys' rows are now."""
        if self._seq is not None:
            self._rows.append(connection, self._seq)
