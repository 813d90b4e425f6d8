"""Alarms in the governance database until Kafka has acknowledged them: what the stores of every kind have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from bus.infra.database import create_tables, translated_errors, write


class Identified(Protocol):
    """An alarm. ``event_id``: of the CloudEvent, the same whenever it is sent again."""

    @property
    def event_id(self) -> str: ...


A = TypeVar("A", bound=Identified)


class AlarmStore(Generic[A]):
    """One table of alarms, with the columns ``event_id`` and ``sent``. Blocking; every method raises
    `DatabaseUnavailable`. ``order``: columns by which the oldest comes first; ``read``: a row as an alarm."""

    def __init__(
        self, engine: Engine, table: sa.Table, order: Sequence[sa.Column[Any]], read: Callable[[sa.RowMapping], A]
    ) -> None:
        self._engine, self._table, self._order, self._read = engine, table, order, read
        create_tables(engine, table.metadata)

    def unsent(self) -> list[A]:
        """The alarms that wait, oldest first."""
        return self._all(sa.select(self._table).where(self._table.c.sent.is_(False)).order_by(*self._order))

    def alarms(self, limit: int = 100) -> list[A]:
        """The newest alarms, sent or not, newest first."""
        newest = (column.desc() for column in self._order)
        return self._all(sa.select(self._table).order_by(*newest).limit(limit))

    def sent(self, alarm: A) -> None:
        """Kafka has acknowledged it."""
        of = self._table.c.event_id == alarm.event_id
        with translated_errors(), write(self._engine) as connection:
            connection.execute(sa.update(self._table).where(of).values(sent=True))

    def _all(self, query: sa.Select[Any]) -> list[A]:
        with translated_errors(), self._engine.connect() as connection:
            return [self._read(row) for row in connection.execute(query).mappings()]
