"""How a value of each kind is stored, so that both databases keep, compare and order it alike (E25, E26)."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from bus.core.contracts import Kind

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)
DECIMAL_DIGITS: Final = 38


def microseconds(value: dt.datetime) -> int:
    """An aware instant as microseconds since 1970. Raises ValueError for a naive one."""
    if value.tzinfo is None:
        raise ValueError(f"{value} has no time zone")
    return (value - _EPOCH) // _MICROSECOND


def instant(value: int) -> dt.datetime:
    """Microseconds since 1970 as an aware instant in UTC."""
    return _EPOCH + value * _MICROSECOND


class Instant(TypeDecorator[dt.datetime]):
    """An aware instant: TIMESTAMPTZ on PostgreSQL, microseconds since 1970 (UTC) on SQLite."""

    impl = sa.BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(sa.BigInteger())

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return microseconds(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> dt.datetime | None:
        if value is None:
            return None
        return value.astimezone(dt.UTC) if isinstance(value, dt.datetime) else instant(value)


class Exact(TypeDecorator[Decimal]):
    """A decimal: NUMERIC on PostgreSQL, an integer scaled by 10^scale on SQLite (18 digits)."""

    impl = sa.BigInteger
    cache_ok = True

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.Numeric(DECIMAL_DIGITS, self.scale))
        return dialect.type_descriptor(sa.BigInteger())

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        scaled = Decimal(value).scaleb(self.scale)
        # A filter may name more digits than the column has: it then lies between two stored integers.
        return int(scaled) if scaled == scaled.to_integral_value() else float(scaled)

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        if value is None:
            return None
        return value if isinstance(value, Decimal) else Decimal(value).scaleb(-self.scale)


class Nested(TypeDecorator[Any]):
    """Arrays, maps and records: kept as JSON text, not filterable; readers get lists and dicts."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


_TEXT: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

_TYPES: Final[Mapping[Kind, TypeEngine[Any]]] = {
    Kind.TEXT: _TEXT,
    Kind.INTEGER: sa.BigInteger(),
    Kind.NUMBER: sa.Double(),
    Kind.BOOLEAN: sa.Boolean(),
    Kind.DATE: sa.Date(),
    Kind.TIMESTAMP: Instant(),
    Kind.BYTES: sa.LargeBinary(),
    Kind.NESTED: Nested(),
}


def sql_type(kind: Kind, scale: int | None = None) -> TypeEngine[Any]:
    """The column type of a kind. ``scale``: digits after the point of a decimal."""
    if kind is Kind.DECIMAL:
        return Exact(scale or 0)
    return _TYPES[kind]
