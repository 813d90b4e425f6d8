"""Reads one consistent state of a view in batches, on connections of its own, within a time limit.

The rows stay in the database until they are asked for: a cursor of the server on PostgreSQL, a statement that is
stepped on SQLite. Memory is one batch, whatever the number of rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bus.access.masks import register_functions
from bus.errors import DatabaseUnavailable
from bus.infra.database import open_database, translated_errors
from bus.sharing.store import Statements

Rows = Sequence[sa.Row[Any]]
BATCH: Final = 500
_STEP: Final = 10_000  # of SQLite's instructions, between two looks at the clock


class TookTooLong(DatabaseUnavailable):
    """The export took longer than the {seconds} seconds that its grant allows. Ask for a part of it: filter it, or
    export it by ranges of the key."""


class ExportReader:
    """Reads the views database for exports, on at most ``connections`` of its own."""

    def __init__(
        self, url: str, *, connections: int = 4, batch: int = BATCH, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = open_database(url, "views", read_only=True)
        register_functions(self._engine)
        self.connections, self._batch, self._clock = connections, batch, clock

    def read(self, asked: Statements, *, seconds: float) -> Iterator[int | Rows]:
        """How many rows there are, then the rows in batches; all of one state of the database.

        Raises `TookTooLong`, `DatabaseUnavailable`. Closing the iterator gives the connection back.
        """
        deadline = self._clock() + seconds
        try:
            with translated_errors(), self._engine.connect() as connection:
                yield from self._rows(connection, asked, deadline, seconds)
        except DatabaseUnavailable as error:
            cause = error.__cause__
            if "interrupted" in str(cause) or type(getattr(cause, "orig", None)).__name__ == "QueryCanceled":
                raise TookTooLong(seconds=seconds) from error
            raise
        except sa.exc.DBAPIError as error:
            # Anything else that was refused, such as a table that a dropped view just lost.
            raise DatabaseUnavailable() from error

    def _rows(self, connection: Connection, asked: Statements, deadline: float, seconds: float) -> Iterator[int | Rows]:
        driver: Any = connection.connection.driver_connection
        if self._engine.dialect.name == "sqlite":
            driver.set_progress_handler(lambda: self._clock() > deadline, _STEP)
        else:
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        try:
            with connection.begin():
                if self._engine.dialect.name != "sqlite":
                    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {round(seconds * 1000)}")
                yield int(connection.execute(asked.total).scalar_one())
                found = connection.execute(asked.page, execution_options={"yield_per": self._batch})
                for batch in found.partitions():
                    if self._clock() > deadline:
                        raise TookTooLong(seconds=seconds)
                    yield batch
        finally:
            if self._engine.dialect.name == "sqlite":
                driver.set_progress_handler(None, 0)

    def close(self) -> None:
        """Gives the connections back."""
        self._engine.dispose()
