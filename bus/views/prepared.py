"""Statements compiled once, and rows bound as arrays: what a small transaction costs besides its events.

To have SQLAlchemy find a compiled statement in its cache takes longer than SQLite takes to run it. PostgreSQL is given
the rows of a small batch as an array for each column: nothing is staged, and its plans are made for few rows, where of
a temporary table it knows nothing and read the whole view instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pgpq
import psycopg
import pyarrow as pa
import sqlalchemy as sa
from psycopg.adapt import Dumper
from psycopg.pq import Format
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect
from sqlalchemy.dialects.sqlite import pysqlite
from sqlalchemy.engine import Connection, CursorResult, Dialect

_DIALECTS: Final[Mapping[str, Dialect]] = {
    "sqlite": pysqlite.dialect(),
    "postgresql": psycopg_dialect.dialect(),  # type: ignore[no-untyped-call]
}
_NONE: Final[Mapping[str, Any]] = {}


class Prepared:
    """A statement for one dialect. ``text``: its SQL. What is bound must be as the driver takes it."""

    def __init__(self, statement: sa.ClauseElement, dialect: str) -> None:
        compiled: Any = statement.compile(dialect=_DIALECTS[dialect])
        self.text = str(compiled)
        self._constants = dict(compiled.params)
        self._order: Sequence[str] | None = compiled.positiontup

    def run(self, connection: Connection, values: Mapping[str, Any] = _NONE) -> CursorResult[*tuple[Any, ...]]:
        """Runs it with these values by the names of its bound parameters."""
        return connection.exec_driver_sql(self.text, self._bound(values))

    def run_many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> CursorResult[*tuple[Any, ...]]:
        """Runs it once for each."""
        return connection.exec_driver_sql(self.text, [self._bound(row) for row in rows])

    def _bound(self, values: Mapping[str, Any]) -> Any:
        every = {**self._constants, **values}
        return every if self._order is None else tuple(every[name] for name in self._order)


@dataclass(frozen=True, slots=True)
class Values:
    """An array in PostgreSQL's binary form. ``oid``: of the array's type."""

    data: bytes
    oid: int


class _ValuesDumper(Dumper):
    """Hands an array to the driver as it is."""

    format = Format.BINARY

    def get_key(self, obj: Values, format: Any) -> Any:  # noqa: A002
        return (Values, obj.oid)

    def upgrade(self, obj: Values, format: Any) -> Dumper:  # noqa: A002
        found = _ValuesDumper(Values)
        found.oid = obj.oid
        return found

    def dump(self, obj: Values) -> bytes:
        return obj.data


psycopg.adapters.register_dumper(Values, _ValuesDumper)

_OIDS: Final = (  # of an element and of an array of them; PostgreSQL never changes those of its own types
    (pa.types.is_string, 25, 1009),
    (pa.types.is_int64, 20, 1016),
    (pa.types.is_int32, 23, 1007),
    (pa.types.is_boolean, 16, 1000),
    (pa.types.is_float64, 701, 1022),
    (pa.types.is_date32, 1082, 1182),
    (pa.types.is_timestamp, 1184, 1185),
    (pa.types.is_decimal, 1700, 1231),
    (pa.types.is_binary, 17, 1001),
)
_FIELD: Final = slice(6, -2)  # of a COPY row with one field: what is after its length and before the end of the rows
_ELEMENT: Final = slice(8, 12)  # of an array's head: the type of its elements


def encoded(array: pa.Array) -> Values:
    """The values (at least one) as an array, encoded in Rust: as the only field of a COPY row."""
    element, oid = next((element, oid) for is_such, element, oid in _OIDS if is_such(array.type))
    listed = pa.ListArray.from_arrays(pa.array([0, len(array)], pa.int32()), array)
    batch = pa.record_batch([listed], names=["values"])
    encoder = pgpq.ArrowToPostgresBinaryEncoder(batch.schema)
    encoder.write_header()
    data = bytearray(encoder.write_batch(batch) + encoder.finish())[_FIELD]
    data[_ELEMENT] = element.to_bytes(4, "big")  # it would say of an instant that it has no zone
    return Values(bytes(data), oid)


def given(columns: Sequence[sa.Column[Any]]) -> sa.TableValuedAlias:
    """PostgreSQL: rows bound as an array for each column, by the columns' names."""
    arrays = [sa.bindparam(column.name, type_=postgresql.ARRAY(column.type)) for column in columns]
    named = [sa.column(column.name, column.type) for column in columns]
    return sa.func.unnest(*arrays).table_valued(*named).render_derived(name="given")
