"""The tables of budgets: what was asked today, how often and, as keyed hashes, with which filters."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from bus.infra.database import create_tables, translated_errors, write

KEPT_DAYS: Final = 2
MOST_COMPARED: Final = 1_000
_METADATA: Final = sa.MetaData()
_SPENT: Final = sa.Table(
    "sharing_budget",
    _METADATA,
    *(sa.Column(name, sa.Text, primary_key=True) for name in ("consumer", "view", "purpose", "channel", "day")),
    sa.Column("used", sa.Integer, nullable=False),
)
_ASKED: Final = sa.Table(
    "sharing_asked",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("consumer", "view", "purpose", "channel", "day")),
    sa.Column("filters", sa.Text, nullable=False),  # a JSON list of keyed hashes
    sa.Index("sharing_asked_by", "consumer", "view", "purpose", "day"),
)
Account = Mapping[str, str]
"""consumer, view, purpose and channel."""


class BudgetStore:
    """Counts by account and day. Methods are synchronous and safe from several threads and processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        create_tables(engine, _METADATA)

    def spend(
        self, account: Account, day: dt.date, limit: int, filters: frozenset[str] | None
    ) -> list[frozenset[str]] | None:
        """Counts one question; None where ``limit`` are used already. With ``filters``, the earlier ones of the day
        (the newest thousand), and these are kept for the next. Raises `DatabaseUnavailable`."""
        today = {**account, "day": day.isoformat()}
        with translated_errors(), write(self._engine) as connection:
            if not self._count(connection, today, limit):
                return None
            return [] if filters is None else _compare(connection, today, filters)

    def used(self, account: Account, day: dt.date) -> int:
        """How many were asked that day."""
        query = sa.select(_SPENT.c.used).where(*_of(_SPENT, {**account, "day": day.isoformat()}))
        with translated_errors(), self._engine.connect() as connection:
            return int(connection.scalar(query) or 0)

    def _count(self, connection: Connection, today: Account, limit: int) -> bool:
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        first = insert(_SPENT).values(**today, used=1)
        counted = first.on_conflict_do_update(
            index_elements=list(_SPENT.primary_key.columns),
            set_={"used": _SPENT.c.used + 1},
            where=_SPENT.c.used < limit,
        ).returning(_SPENT.c.used)
        used = connection.scalar(counted)
        if used == 1:
            _forget(connection, dt.date.fromisoformat(today["day"]))
        return used is not None


def _of(table: sa.Table, today: Account) -> list[sa.ColumnElement[bool]]:
    return [table.c[name] == value for name, value in today.items()]


def _forget(connection: Connection, day: dt.date) -> None:
    """What no question is compared with any more goes with the first of a new day."""
    oldest = (day - dt.timedelta(days=KEPT_DAYS)).isoformat()
    for table in (_SPENT, _ASKED):
        connection.execute(sa.delete(table).where(table.c.day < oldest))


def _compare(connection: Connection, today: Account, filters: frozenset[str]) -> list[frozenset[str]]:
    earlier = sa.select(_ASKED.c.filters).where(*_of(_ASKED, today)).order_by(_ASKED.c.id.desc()).limit(MOST_COMPARED)
    found: list[Any] = list(connection.scalars(earlier))
    connection.execute(sa.insert(_ASKED).values(**today, filters=json.dumps(sorted(filters))))
    return [frozenset(json.loads(text)) for text in found]
