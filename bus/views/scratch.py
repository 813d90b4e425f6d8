"""Temporary tables that a view's transactions use again and again."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bus.views.prepared import Prepared


class Scratch:
    """A temporary table for every transaction of a view, emptied before it is used. PostgreSQL is not asked to empty it
    at the end of each: it would then empty those of all views, which took nine tenths of a small commit with twenty
    views. What is deleted is only marked so, and nobody tidies temporary tables up: hence truncated now and then.

    It lives as long as the connection, which the pool may have changed. Which of them a connection has is noted with it
    once they are committed: a statement for each would cost a small batch as much as its events."""

    _MANY: Final = 10_000
    _MADE: Final = "temporary tables"
    _MAKING: Final = "temporary tables of this transaction"

    def __init__(self, table: sa.Table, dialect: str) -> None:
        self.table, self._left = table, 0
        self._delete = Prepared(sa.delete(table), dialect)

    def ready(self, connection: Connection, about: int) -> None:
        """Makes it or empties it; about so many rows come in then."""
        if self.table.name not in connection.info.get(self._MADE, ()):
            connection.execute(sa.schema.CreateTable(self.table, if_not_exists=True))
            connection.info[self._MAKING].add(self.table.name)
        if connection.dialect.name == "postgresql" and self._left > self._MANY:
            name = connection.dialect.identifier_preparer.format_table(self.table)
            connection.exec_driver_sql(f"TRUNCATE {name}")
            self._left = 0
        else:
            self._delete.run(connection)
        self._left += about

    @classmethod
    def begun(cls, connection: Connection) -> set[str]:
        """A transaction begins; the names of the tables that it will have made."""
        making = connection.info[cls._MAKING] = set[str]()
        return making

    @classmethod
    def committed(cls, info: dict[Any, Any], making: set[str]) -> None:
        """What the transaction made stays. ``info``: of its connection, which may be another's by now."""
        info.setdefault(cls._MADE, set()).update(making)
