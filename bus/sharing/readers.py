"""Who runs the statements: short ones at once in the event loop, long ones aside, all within a time limit.

How long a question takes is measured, not guessed. On SQLite each one may first use a small number of
the database's own instructions in the loop (about a millisecond: six times the answers of a thread pool,
performance.md); one that needs more is stopped there and run aside, and its like goes aside at once the
next time. On PostgreSQL the async driver waits and the server keeps the limit.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from bus.access.masks import register_functions
from bus.errors import BadFilter, DatabaseUnavailable
from bus.infra.database import open_database, postgresql_options, sync_url, translated_errors
from bus.infra.prepared import Prepared
from bus.sharing.store import Statements

Rows = Sequence[Any]  # of values by place; rows of statements that last have no names
STEP: Final = 2_000  # instructions between two looks at the budget or the clock
SHORT_STEPS: Final = 25  # 50,000 instructions: about 1 ms, or 200 wide rows
SHORT_ROWS: Final = 250  # more rows take longer to convert than to find
REMEMBERED: Final = 1_000


class Reader(Protocol):
    """Runs the statements of one question on one state of the database."""

    dialect: str

    async def read(self, statements: Statements, *, kind: Hashable, rows: int, count: bool) -> tuple[Rows, int | None]:
        """The page, and the total if ``count``. ``rows``: how many the page has at most; ``kind``: equal for
        questions that differ in their values only.

        Raises `BadFilter` for a question beyond the time limit, `DatabaseUnavailable` for the rest.
        """

    async def close(self) -> None:
        """Gives the connections back."""


def open_reader(url: str, *, timeout_s: float = 5.0, connections: int = 4) -> Reader:
    """A reader of the views database. ``connections``: for long questions, at once."""
    if sync_url(url, "views").get_backend_name() == "sqlite":
        return SqliteReader(open_database(url, "views", read_only=True), timeout_s=timeout_s, workers=connections)
    return PostgresqlReader(url, timeout_s=timeout_s, connections=connections * 4)


def _too_long(timeout_s: float) -> BadFilter:
    return BadFilter(
        why=f"the question took longer than {timeout_s:g} s. Ask a narrower one: filter by the key, "
        "ask for fewer rows, or leave out the count.",
        timeout_s=timeout_s,
    )


def _too_large() -> BadFilter:
    return BadFilter(why="a number in the question is larger than the database can hold.")


class _Stopped(Exception):
    """The statement used up its budget."""


class _Session:
    """One SQLite connection whose statements stop when ``enough`` says so."""

    def __init__(self, engine: sa.Engine) -> None:
        with translated_errors():
            self._connection = engine.connect()
        self._driver: Any = self._connection.connection.driver_connection

    def run(self, statements: Sequence[sa.Select[Any]], enough: Callable[[], bool]) -> list[Rows]:
        """The rows of each, all of one state of the database. Raises `_Stopped`."""
        self._driver.set_progress_handler(enough, STEP)
        try:
            with translated_errors(), self._connection.begin():
                return [self._connection.execute(statement).all() for statement in statements]
        except OverflowError as error:
            raise _too_large() from error
        except DatabaseUnavailable as error:
            if "interrupted" in str(error.__cause__):
                raise _Stopped from error
            raise
        except sa.exc.DBAPIError as error:
            # Anything else that was refused, such as a table that a dropped view just lost.
            raise DatabaseUnavailable() from error
        finally:
            self._driver.set_progress_handler(None, 0)

    def rows(self, prepared: Prepared, enough: Callable[[], bool]) -> Rows:
        """The same for one statement that is prepared: it sees one state of the database by itself."""
        self._driver.set_progress_handler(enough, STEP)
        try:
            return prepared.rows(self._driver)
        except OverflowError as error:
            raise _too_large() from error
        except sqlite3.Error as error:
            if "interrupted" in str(error):
                raise _Stopped from error
            raise DatabaseUnavailable() from error
        finally:
            self._driver.set_progress_handler(None, 0)

    def close(self) -> None:
        self._connection.close()


class SqliteReader:
    """Reads one SQLite file: one connection in the loop, ``workers`` threads with one each."""

    dialect = "sqlite"

    def __init__(self, engine: sa.Engine, *, timeout_s: float = 5.0, workers: int = 4) -> None:
        self._engine, self._timeout_s = engine, timeout_s
        register_functions(engine)
        self._here: _Session | None = None
        self._idle: list[_Session] = []
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="question")
        self._long: OrderedDict[Hashable, None] = OrderedDict()
        self._prepared: WeakKeyDictionary[sa.Select[Any], Prepared | None] = WeakKeyDictionary()

    async def read(self, statements: Statements, *, kind: Hashable, rows: int, count: bool) -> tuple[Rows, int | None]:
        asked = [statements.page, *((statements.total,) if count else ())]
        prepared = self._again(statements.page) if statements.lasting and not count else None
        found = self._try_here(asked, prepared, kind) if rows <= SHORT_ROWS else None
        if found is None:
            deadline = time.monotonic() + self._timeout_s
            found = await asyncio.get_running_loop().run_in_executor(self._pool, self._aside, asked, deadline)
        return found[0], (int(found[1][0][0]) if count else None)

    def _again(self, statement: sa.Select[Any]) -> Prepared | None:
        """The statement prepared, if it was asked before: making one takes longer than running it once."""
        if statement not in self._prepared:
            self._prepared[statement] = None
            return None
        found = self._prepared[statement] or Prepared(statement, self._engine.dialect)
        self._prepared[statement] = found
        return found

    def _try_here(
        self, asked: Sequence[sa.Select[Any]], prepared: Prepared | None, kind: Hashable
    ) -> Sequence[Rows] | None:
        """The answer, if it is a matter of a millisecond; else None."""
        if kind in self._long:
            self._long.move_to_end(kind)
            return None
        self._here = self._here or _Session(self._engine)
        enough = _countdown(SHORT_STEPS)
        try:
            return [self._here.rows(prepared, enough)] if prepared else self._here.run(asked, enough)
        except _Stopped:
            self._remember(kind)
            return None

    def _remember(self, kind: Hashable) -> None:
        self._long[kind] = None
        if len(self._long) > REMEMBERED:
            self._long.popitem(last=False)

    def _aside(self, asked: Sequence[sa.Select[Any]], deadline: float) -> list[Rows]:
        if time.monotonic() > deadline:
            raise _too_long(self._timeout_s)  # it waited all its time for a free connection
        session = self._session()
        try:
            return session.run(asked, lambda: time.monotonic() > deadline)
        except _Stopped as stopped:
            raise _too_long(self._timeout_s) from stopped
        finally:
            self._idle.append(session)

    def _session(self) -> _Session:
        try:
            return self._idle.pop()
        except IndexError:
            return _Session(self._engine)

    async def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        for session in [*self._idle, *([self._here] if self._here else [])]:
            session.close()
        self._engine.dispose()


def _countdown(steps: int) -> Callable[[], bool]:
    left = iter(range(steps))
    return lambda: next(left, None) is None


class PostgresqlReader:
    """Reads PostgreSQL through its async driver; the server ends what takes too long."""

    dialect = "postgresql"

    def __init__(self, url: str, *, timeout_s: float = 5.0, connections: int = 16) -> None:
        options = postgresql_options("views", durable=False, read_only=True)
        options += f" -c statement_timeout={round(timeout_s * 1000)} -c jit=off"
        self._timeout_s = timeout_s
        self._engine: AsyncEngine = create_async_engine(
            sync_url(url, "views"),
            connect_args={"options": options, "connect_timeout": 5},
            pool_size=connections,
            max_overflow=0,
            pool_timeout=2,
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
            hide_parameters=True,  # what is bound may be a person's, and errors are logged
        )

    async def read(self, statements: Statements, *, kind: Hashable, rows: int, count: bool) -> tuple[Rows, int | None]:
        del kind, rows  # the server's driver never holds the loop
        try:
            with translated_errors():
                async with self._engine.connect() as connection:
                    page = (await connection.execute(statements.page)).all()
                    total = (await connection.execute(statements.total)).scalar_one() if count else None
                    return page, total
        except DatabaseUnavailable as error:
            if type(getattr(error.__cause__, "orig", None)).__name__ == "QueryCanceled":
                raise _too_long(self._timeout_s) from error
            raise
        except sa.exc.DBAPIError as error:
            # Anything else the server refused, such as a table that a dropped view just lost.
            raise DatabaseUnavailable() from error

    async def close(self) -> None:
        await self._engine.dispose()
