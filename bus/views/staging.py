"""Brings Arrow columns into a temporary table of the running transaction, by each database's fastest way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import pgpq
import psycopg
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection

from bus.errors import DatabaseUnavailable


def load(connection: Connection, table: sa.Table, columns: Mapping[str, pa.Array]) -> None:
    """Appends the columns (all of ``table``'s, equally long) to the table."""
    names = [column.name for column in table.columns]
    arrays = [columns[name] for name in names]
    if connection.dialect.name == "postgresql":
        _copy(connection, table, pa.record_batch(arrays, names=names))
    else:
        load_by(connection, insertion(table), [[as_sqlite(array) for array in arrays]])


@lru_cache(maxsize=1_000)
def insertion(table: sa.Table) -> str:
    """SQLite: the insertion of a row. To make the statement takes as long as to run it for a few rows."""
    return str(sa.insert(table).compile(dialect=sqlite.dialect()))


def load_by(connection: Connection, statement: str, portions: Iterable[Sequence[Sequence[Any]]]) -> int:
    """SQLite: runs the statement once for each row of the columns, which are its parameters; rows it changed."""
    runs = (connection.exec_driver_sql(statement, list(zip(*columns, strict=True))) for columns in portions)
    return sum(run.rowcount for run in runs)


def _copy(connection: Connection, table: sa.Table, batch: pa.RecordBatch) -> None:
    """PostgreSQL: binary COPY, encoded in Rust. What goes wrong on the wire passes by itself: the batch is retried."""
    encoder = pgpq.ArrowToPostgresBinaryEncoder(batch.schema)
    name = connection.dialect.identifier_preparer.format_table(table)
    raw = connection.connection.driver_connection
    if not isinstance(raw, psycopg.Connection):
        raise TypeError(f"{type(raw)} cannot COPY")
    try:
        with raw.cursor() as cursor, cursor.copy(f"COPY {name} FROM STDIN WITH (FORMAT BINARY)") as copy:
            copy.write(encoder.write_header())
            copy.write(encoder.write_batch(batch))
            copy.write(encoder.finish())
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise DatabaseUnavailable() from error


def _dates(array: pa.Array) -> list[Any]:
    return array.cast(pa.string()).to_pylist()  # type: ignore[no-any-return]


def _instants(array: pa.Array) -> list[Any]:
    return _numbers(array.cast(pa.int64()))


def _decimals(array: pa.Array) -> list[Any]:
    scale = array.type.scale
    return [None if value is None else int(value.scaleb(scale)) for value in array.to_pylist()]


def _numbers(array: pa.Array) -> list[Any]:
    return array.to_pylist() if array.null_count else array.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]


_CONVERTERS: Final[Sequence[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], list[Any]]]]] = (
    (pa.types.is_date32, _dates),
    (pa.types.is_timestamp, _instants),
    (pa.types.is_decimal, _decimals),
    (pa.types.is_integer, _numbers),
    (pa.types.is_floating, _numbers),
)


def as_sqlite(array: pa.Array) -> list[Any]:
    """The values as SQLite stores them (see `values`): dates as text, instants and decimals as integers."""
    for is_such, converted in _CONVERTERS:
        if is_such(array.type):
            return converted(array)
    return array.to_pylist()  # type: ignore[no-any-return]
