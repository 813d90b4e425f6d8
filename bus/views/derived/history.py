"""A history view's versions: every event of its entity, kept for good, and the rows as they were known or held then.

The table is filled in the transactions that build the view, so it is never ahead of the view or behind it. Reading it
as of an instant gives of each record the highest version among the events that the bus had by then.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bus.core.events import NEVER
from bus.views.catalogue import Shape
from bus.views.decoding.batches import Batch, Chosen, Integers
from bus.views.staging import as_sqlite, load
from bus.views.statements import insert_into, temporary
from bus.views.tables import (
    KNOWN,
    LIVE,
    ORDER,
    PARTITION,
    UNTIL,
    VALID,
    VERSION,
    History,
    Records,
    layout,
    table_name,
)
from bus.views.values import microseconds

_DAY_US: Final = 86_400_000_000
_MILLISECOND_US: Final = 1_000


@dataclass(frozen=True, slots=True)
class Moment:
    """The instants (aware) that a question is about. ``as_of``: what the bus knew then; ``valid_at``: what held then,
    according to what was known at ``as_of``. None: now."""

    as_of: dt.datetime | None = None
    valid_at: dt.datetime | None = None

    def __bool__(self) -> bool:
        return self.as_of is not None or self.valid_at is not None


NOW: Final = Moment()


class Keeper:
    """Follows a builder and keeps each good event of a history view, late ones and deletes included."""

    def __init__(self, shape: Shape, dialect: str) -> None:
        history = layout(shape).history
        if history is None:
            raise ValueError(f"{shape.view.name} is no history view")
        self._history, self._dialect = history, dialect
        self._valid = (*shape.view.valid, None, None)[:2]
        table = history.table
        columns = [sa.Column(column.name, column.type) for column in table.columns]
        self._stage = temporary(table_name(f"s_{table.name}", shape.fingerprint[:8]), columns, dialect)
        insert = insert_into(table, dialect)
        if dialect == "postgresql":
            names, found = list(table.columns.keys()), sa.select(self._stage).where(sa.true())
            insert = insert.from_select(names, found)
        self._insert = insert.on_conflict_do_nothing()

    @property
    def wants_rows(self) -> bool:
        return False

    def events(self, connection: Connection, records: Records, batch: Batch) -> None:
        """Appends the batch's events; its ``known`` must be given."""
        columns = self._columns(batch)
        if self._dialect != "postgresql":
            arrays = (as_sqlite(columns[column.name]) for column in self._history.table.columns)
            statement = str(self._insert.compile(dialect=connection.dialect))
            connection.exec_driver_sql(statement, list(zip(*arrays, strict=True)))
            return
        connection.execute(sa.schema.CreateTable(self._stage, if_not_exists=True))
        load(connection, self._stage, columns)
        connection.execute(self._insert)
        connection.execute(sa.delete(self._stage))

    def rows(self, connection: Connection, touched: sa.Table) -> None:
        """Nothing: versions are never changed."""

    def _columns(self, batch: Batch) -> dict[str, pa.Array]:
        if batch.known is None:
            raise ValueError("the batch does not say since when its events are known")
        begins, ends = self._valid
        valid = event_times(batch.records, batch.known)
        if begins is not None:
            stated = instants(batch.columns[begins])
            valid = np.where(stated == NEVER, valid, stated)
        until = instants(batch.columns[ends]) if ends is not None else np.full(len(batch), NEVER, np.int64)
        columns = {name: batch.columns[field] for name, field in self._history.fields}
        versions = zip(VERSION, (batch.stated, batch.sequence, batch.offsets), strict=True)
        return {
            **columns,
            **{name: pa.array(values) for name, values in versions},
            LIVE: pa.array(batch.live),
            PARTITION: pa.array(np.full(len(batch), batch.partition, np.int32)),
            KNOWN: pa.array(batch.known),
            VALID: pa.array(valid),
            UNTIL: pa.array(until, mask=until == NEVER),
        }


def event_times(records: Chosen, known: Integers) -> Integers:
    """When each event happened, in microseconds: what it says itself (``ce_time``), else since when it is known.

    ``known``: milliseconds. A ``ce_time`` that cannot be read or has no time zone counts as none.
    """
    stated = records.header("ce_time")
    times = np.array([_read_time(text) for text in stated.texts], np.int64)
    found = times[stated.codes]
    return np.where(found == NEVER, known * _MILLISECOND_US, found)


def _read_time(text: bytes | None) -> int:
    try:
        return NEVER if text is None else microseconds(dt.datetime.fromisoformat(text.decode()))
    except (ValueError, OverflowError):
        return NEVER


def instants(values: pa.Array) -> Integers:
    """A date's start (UTC) or an instant, in microseconds since 1970; `NEVER` for null."""
    if pa.types.is_date32(values.type):
        days = values.cast(pa.int32()).cast(pa.int64()).fill_null(NEVER).to_numpy()
        return np.where(days == NEVER, NEVER, days * _DAY_US)
    found: Integers = values.cast(pa.int64()).fill_null(NEVER).to_numpy()
    return found


def knowing(appended_ms: Integers, before: int | None) -> Integers:
    """Since when each event is known, in milliseconds: when the broker appended it, but never before the one ahead of
    it in its partition, whatever the broker's clock did. ``before``: of the last event that was applied."""
    least = NEVER if before is None else before
    found: Integers = np.maximum.accumulate(np.maximum(appended_ms, least))
    return found


def rows_at(shape: Shape, moment: Moment, keys: Sequence[sa.ColumnElement[bool]] = ()) -> sa.Subquery:
    """The rows of a history view at that moment, with the view's own columns and no hidden ones.

    ``keys``: conditions on key columns of `versions`, which only narrow what is looked at. The highest version among
    those known and begun by then decides: a record that it deletes, or that had ended, has no row.
    """
    history = versions(shape)
    table, key = history.table, [history.table.c[name] for name in shape.view.key]
    newest_first = [table.c[name].desc() for name in ORDER]
    place = sa.func.row_number().over(partition_by=key, order_by=newest_first).label("_place")
    ranked = sa.select(table, place).where(sa.true(), *_begun(table, moment), *keys).subquery()
    holds = [ranked.c["_place"] == 1, ranked.c[LIVE].is_(True)]
    if moment.valid_at is not None:
        at = microseconds(moment.valid_at)
        holds.append(sa.or_(ranked.c[UNTIL].is_(None), ranked.c[UNTIL] > at))
    return sa.select(*(ranked.c[name] for name, _ in history.fields)).where(*holds).subquery()


def _begun(table: sa.Table, moment: Moment) -> list[sa.ColumnElement[bool]]:
    """Known and valid by then."""
    found: list[sa.ColumnElement[bool]] = []
    if moment.as_of is not None:
        found.append(table.c[KNOWN] <= microseconds(moment.as_of) // _MILLISECOND_US)
    if moment.valid_at is not None:
        found.append(table.c[VALID] <= microseconds(moment.valid_at))
    return found


def versions(shape: Shape) -> History:
    """The table of all versions of a history view. Raises ValueError for a view of another kind."""
    history = layout(shape).history
    if history is None:
        raise ValueError(f"{shape.view.name} is no history view")
    return history


def read_versions(connection: Connection, shape: Shape) -> list[dict[str, Any]]:
    """Every version with its hidden columns, in no particular order."""
    return [dict(row) for row in connection.execute(sa.select(versions(shape).table)).mappings()]
