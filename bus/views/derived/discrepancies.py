"""Reading what `disagreement` keeps: the discrepancies of a view, and how many there are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from bus.infra.database import translated_errors
from bus.views.store import DISCREPANCY

State = Literal["open", "closed"]


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One record about which two sources say different things. ``shown``: the value of ``source``, which the view
    shows; ``reported``: that of ``other``; both as text. Times in milliseconds since 1970; ``closed_ms`` None: open."""

    view: str
    key: str
    field: str
    source: str
    other: str
    shown: str
    reported: str
    topic: str
    partition: int
    offset: int
    opened_ms: int
    closed_ms: int | None


@dataclass(frozen=True, slots=True)
class Count:
    """How many discrepancies a view has between two sources about one field."""

    view: str
    field: str
    source: str
    other: str
    open: int
    closed: int


class Discrepancies:
    """The discrepancies in the views database. Blocking; every method raises `DatabaseUnavailable`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def page(
        self, view: str, pairs: Collection[tuple[str, str]], *, state: State, limit: int, offset: int
    ) -> Sequence[Discrepancy]:
        """Those of these (field, other source) pairs, in the order of keys: a page of at most ``limit``."""
        if not pairs:
            return []
        table, closed = DISCREPANCY.c, DISCREPANCY.c.closed_ms
        statement = (
            sa.select(DISCREPANCY)
            .where(table.view == view, sa.or_(*(_is(field, other) for field, other in sorted(pairs))))
            .where(closed.is_(None) if state == "open" else closed.is_not(None))
            .order_by(table.key, table.field, table.other, table.opened_ms, table.topic, table.partition, table.offset)
            .limit(limit)
            .offset(offset)
        )
        return [Discrepancy(**row) for row in self._rows(statement)]

    def counts(self) -> Sequence[Count]:
        """The counts of every view that has any, in the order of views and fields."""
        table = DISCREPANCY.c
        names = (table.view, table.field, table.source, table.other)
        still_open = sa.func.sum(sa.case((table.closed_ms.is_(None), 1), else_=0)).label("open")
        closed = sa.func.count(table.closed_ms).label("closed")
        statement = sa.select(*names, still_open, closed).group_by(*names).order_by(*names)
        return [Count(**{**row, "open": int(row["open"])}) for row in self._rows(statement)]

    def _rows(self, statement: sa.Select[Any]) -> Sequence[sa.RowMapping]:
        """No rows where no worker has made the table yet."""
        with translated_errors(), self._engine.connect() as connection:
            if not sa.inspect(connection).has_table(DISCREPANCY.name):
                return []
            return connection.execute(statement).mappings().all()


def _is(field: str, other: str) -> sa.ColumnElement[bool]:
    return sa.and_(DISCREPANCY.c.field == field, DISCREPANCY.c.other == other)
