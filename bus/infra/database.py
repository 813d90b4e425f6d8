"""The databases of the bus: three of them (views, governance, streams), SQLite files or PostgreSQL schemas.

SQLite runs in WAL mode with autocommit taken over by SQLAlchemy, so that ``BEGIN IMMEDIATE`` means what
it says; text compares by bytes on both, as OPA compares (E25).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from bus.errors import DatabaseUnavailable

Name = Literal["views", "governance", "streams"]
NAMES: Final[tuple[Name, ...]] = ("views", "governance", "streams")
SQLITE_WAIT_S: Final = 5.0
POSTGRESQL_WAIT_S: Final = 10.0
_PREPARED: Final = 1_000
_BULK_PAGES: Final = 4_000  # of the log before it goes to the file: what is written often goes there once
_END_SESSIONS: Final = sa.text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name = :label AND xact_start IS NOT NULL AND pid <> pg_backend_pid()"
)
_DISCREET: Final[dict[str, Any]] = {"hide_parameters": True}  # what is bound may be a person's, and errors are logged


def sync_url(url: str, name: Name) -> sa.URL:
    """The URL of one of the three databases. ``url``: `sqlite:///DIRECTORY` or `postgresql://…`."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return parsed.set(drivername="sqlite", database=str(Path(parsed.database or ".") / f"{name}.db"))
    return parsed.set(drivername="postgresql+psycopg")


def _tune_sqlite(durable: bool, read_only: bool, wait_s: float) -> Any:
    def connect(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy begins transactions itself, see `_begin`
        for pragma in (
            f"busy_timeout={round(wait_s * 1_000)}",
            "case_sensitive_like=ON",
            "foreign_keys=ON",
            f"synchronous={'FULL' if durable else 'NORMAL'}",
            "temp_store=MEMORY",
            "cache_size=-24576",
            *(("query_only=ON",) if read_only else ("journal_mode=WAL",)),
            *(() if durable else (f"wal_autocheckpoint={_BULK_PAGES}",)),
        ):
            connection.execute(f"PRAGMA {pragma}")

    return connect


def open_database(
    url: str, name: Name, *, durable: bool = True, read_only: bool = False, wait_s: float | None = None
) -> Engine:
    """An engine on one of the three databases, made if it is not there.

    ``durable``: False only where every commit can be built again from Kafka (views): a commit then
    need not reach the disk at once. ``read_only``: the connection refuses to write.
    ``wait_s``: how long a write waits for another's lock (5 s on SQLite, 10 s on PostgreSQL unless given).
    Raises `DatabaseUnavailable` when it cannot be reached.
    """
    target = sync_url(url, name)
    if target.get_backend_name() == "sqlite":
        return _open_sqlite(target, durable=durable, read_only=read_only, wait_s=wait_s or SQLITE_WAIT_S)
    return _open_postgresql(target, name, durable=durable, read_only=read_only, wait_s=wait_s or POSTGRESQL_WAIT_S)


def _open_sqlite(target: sa.URL, *, durable: bool, read_only: bool, wait_s: float) -> Engine:
    path = Path(target.database or "")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = sa.create_engine(target, connect_args={"check_same_thread": False}, pool_pre_ping=False, **_DISCREET)
    event.listen(engine, "connect", _tune_sqlite(durable, read_only, wait_s))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _begin_sqlite(connection: Connection) -> None:
    """Takes the write lock at once where `write` asked: a transaction that read first could be refused it later."""
    writes = connection.get_execution_options().get("bus_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def postgresql_options(name: Name, *, durable: bool, read_only: bool, wait_s: float = POSTGRESQL_WAIT_S) -> str:
    """Session settings, as libpq's ``options``: the schema, UTC, and what a lost commit would cost."""
    settings = {
        "search_path": name,
        "timezone": "UTC",
        "synchronous_commit": "on" if durable else "off",
        "default_transaction_read_only": "on" if read_only else "off",
        "lock_timeout": f"{round(wait_s * 1_000)}ms",
    }
    return " ".join(f"-c {key}={value}" for key, value in settings.items())


def _open_postgresql(target: sa.URL, name: Name, *, durable: bool, read_only: bool, wait_s: float) -> Engine:
    options = postgresql_options(name, durable=durable, read_only=read_only, wait_s=wait_s)
    arguments = {"options": options, "connect_timeout": 5}
    engine = sa.create_engine(target, connect_args=arguments, pool_pre_ping=True, **_DISCREET)
    event.listen(engine, "connect", _keep_prepared)
    if not read_only:
        with translated_errors(), engine.begin() as connection:
            # Two processes may start at once; IF NOT EXISTS alone races in PostgreSQL.
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(7205759)"))
            connection.execute(sa.schema.CreateSchema(name, if_not_exists=True))
    return engine


def label_sessions(engine: Engine, label: str, *, idle_s: float) -> None:
    """Gives the engine's sessions a name, by which `end_sessions` knows them, and has PostgreSQL end one that waits in
    the middle of a transaction for ``idle_s``: its process is stopped, and what it locked is locked for all others.
    """
    if engine.dialect.name != "postgresql":
        return

    @event.listens_for(engine, "do_connect")
    def label_it(_dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
        idle = f"-c idle_in_transaction_session_timeout={round(idle_s * 1_000)}ms"
        parameters |= {"application_name": label, "options": f"{parameters['options']} {idle}"}

    engine.dispose()


def end_sessions(connection: Connection, label: str) -> int:
    """Ends the transactions of the sessions so named, with their sessions; how many there were. None on SQLite, where
    only the end of a process ends its transaction."""
    if connection.dialect.name != "postgresql":
        return 0
    return len(connection.execute(_END_SESSIONS, {"label": label}).all())


def _keep_prepared(connection: Any, _record: Any) -> None:
    """What is run often is prepared by the server: of a hundred, as many as psycopg keeps by itself, a worker with
    twenty views would drop each before it is needed again."""
    connection.prepared_max = _PREPARED


def create_tables(engine: Engine, metadata: sa.MetaData) -> None:
    """Makes the tables that are missing, and the columns that are missing of those there; harmless when two processes
    do it at once. A column that comes later must be nullable or have a default in the database."""
    with translated_errors(), write(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(7205760)"))
        metadata.create_all(connection)
        for table in metadata.sorted_tables:
            there = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
            for column in table.columns:
                if column.name not in there:
                    _add_column(connection, table, column)


def _add_column(connection: Connection, table: sa.Table, column: sa.Column[Any]) -> None:
    """A column of a later version of the bus, in a table that an earlier one made."""
    name = connection.dialect.identifier_preparer.format_table(table)
    definition = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {definition}")


@contextmanager
def write(engine: Engine) -> Iterator[Connection]:
    """A transaction that will write."""
    with engine.execution_options(bus_write=True).begin() as connection:
        yield connection


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turns a database that cannot be reached, is locked or full into `DatabaseUnavailable`: trouble that passes. What
    is wrong with a statement itself is raised as it is, since trying again would not help."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
        if _is_defect(error):
            raise
        raise DatabaseUnavailable() from error


def _is_defect(error: sa.exc.SQLAlchemyError) -> bool:
    """SQLite calls a syntax error or a missing table operational too; PostgreSQL's driver has an error of its own."""
    original = getattr(error, "orig", None)
    return isinstance(original, sqlite3.OperationalError) and original.sqlite_errorcode == sqlite3.SQLITE_ERROR
