"""Brings Arrow columns into a temporary table of the running transaction, by each database's fastest way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final

import pgpq
import psycopg
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection

from bus.errors import DatabaseUnavailable

_MANY: Final = 100  # rows of a batch that is written several to a statement
_MOST: Final = 4_000  # values in a statement: prepared, it takes 0.4 MB, and a connection keeps those of all views


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
    """SQLite: runs the statement, which has one row of values, for each row of the columns; rows it changed.

    Many rows are written hundreds to a statement. It costs a fifth less; and the interpreter's lock is given away at
    each run, to be waited for again while another thread decodes.
    """
    return sum(_run(connection, statement, columns) for columns in portions)


def _run(connection: Connection, statement: str, columns: Sequence[Sequence[Any]]) -> int:
    width, count = len(columns), len(columns[0])
    done = changed = 0
    if count >= _MANY:
        values = tuple(chain.from_iterable(zip(*columns, strict=True)))
        most = _MOST // width
        for size in (size for size in (most, _MANY, _MANY // 10) if 1 < size <= most):
            while count - done >= size:
                part = values[done * width : (done + size) * width]
                changed += connection.exec_driver_sql(_of_rows(statement, width, size), part).rowcount
                done += size
    if done < count:
        rest = list(zip(*(column[done:] for column in columns), strict=True))
        changed += connection.exec_driver_sql(statement, rest).rowcount
    return changed


@lru_cache(maxsize=1_000)
def _of_rows(statement: str, width: int, count: int) -> str:
    """The statement with so many rows of values."""
    row = f"({', '.join('?' * width)})"
    before, after = statement.split(f"VALUES {row}")
    return f"{before}VALUES {', '.join([row] * count)}{after}"


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


def _truths(array: pa.Array) -> list[Any]:
    """As integers: of a boolean sqlite3 asks whether somebody adapts it, which takes as long as three columns."""
    return _numbers(array.cast(pa.int8()))


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
    (pa.types.is_boolean, _truths),
)


def as_sqlite(array: pa.Array) -> list[Any]:
    """The values as SQLite stores them (see `values`): dates as text, instants and decimals as integers."""
    for is_such, converted in _CONVERTERS:
        if is_such(array.type):
            return converted(array)
    return array.to_pylist()  # type: ignore[no-any-return]
