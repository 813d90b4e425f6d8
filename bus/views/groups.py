"""The hidden columns of an aggregate's rows: a key without nulls, and what its sums are added up from.

A group value may be null, and null is equal to nothing, so a row is found by ``_nulls`` (bit i: the i-th group value
is null) and by ``_k0``, ``_k1`` and so on (the group values, a filler in place of null). ``_rows`` counts the rows of
a group; without any the group vanishes. A sum of whole numbers or decimals is kept as two integers, ``_h`` (sum of the
values' upper halves) and ``_l`` (of the lower 32 bits), which never overflow; one of floating-point numbers exactly as
text in ``_x``; ``_n`` counts the values summed, since the sum of none is null. The number is the measure's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa

from bus.core.contracts import Kind
from bus.views.catalogue import Shape
from bus.views.values import sql_type

NULLS: Final = "_nulls"
ROWS: Final = "_rows"
_FILLERS: Final[Mapping[Kind, Any]] = {
    Kind.TEXT: "",
    Kind.INTEGER: 0,
    Kind.NUMBER: 0.0,
    Kind.DECIMAL: Decimal(0),
    Kind.BOOLEAN: False,
    Kind.DATE: dt.date(1970, 1, 1),
    Kind.TIMESTAMP: dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
    Kind.BYTES: b"",
    Kind.NESTED: "",
}


def key_names(shape: Shape) -> tuple[str, ...]:
    """The hidden key of an aggregate's rows."""
    return (NULLS, *(f"_k{index}" for index in range(len(shape.view.key))))


def key_columns(shape: Shape, *, primary: bool) -> list[sa.Column[Any]]:
    """New columns for the hidden key; ``primary``: they are the table's key, as they are, or a part of it."""
    types = [
        sa.BigInteger(),
        *(_key_type(column.kind, column.scale) for column in shape.columns[: len(shape.view.key)]),
    ]
    pairs = zip(key_names(shape), types, strict=True)
    return [sa.Column(name, kind, primary_key=primary, autoincrement=False, nullable=False) for name, kind in pairs]


def _key_type(kind: Kind, scale: int | None) -> Any:
    return sa.Text() if kind is Kind.NESTED else sql_type(kind, scale)


def key_of(shape: Shape, values: Sequence[sa.ColumnElement[Any]]) -> list[sa.ColumnElement[Any]]:
    """The hidden key of group values, in the order of `key_names`."""
    pairs = list(zip(values, shape.columns, strict=False))
    bits = [sa.case((value.is_(None), sa.literal_column(str(1 << i))), else_=sa.literal_column("0"))
            for i, (value, _) in enumerate(pairs)]  # fmt: skip
    filled = []
    for value, column in pairs:
        kind = _key_type(column.kind, column.scale)
        filled.append(
            sa.func.coalesce(sa.type_coerce(value, kind), sa.literal(_FILLERS[column.kind], kind), type_=kind)
        )
    nulls: sa.ColumnElement[Any] = bits[0]
    for bit in bits[1:]:
        nulls = nulls + bit
    return [sa.cast(nulls, sa.BigInteger), *filled]


def values_of(shape: Shape, table: sa.FromClause) -> list[sa.ColumnElement[Any]]:
    """The group values, from the hidden key in ``table``."""
    found: list[sa.ColumnElement[Any]] = []
    for index, column in enumerate(shape.columns[: len(shape.view.key)]):
        kind = sql_type(column.kind, column.scale)
        bit = table.c[NULLS].bitwise_and(sa.literal_column(str(1 << index)))
        found.append(sa.case((bit == sa.literal_column("0"), sa.type_coerce(table.c[f"_k{index}"], kind))))
    return found


def state_columns(shape: Shape) -> list[sa.Column[Any]]:
    """New columns for what an aggregate's rows are kept with beside their key."""
    found: list[sa.Column[Any]] = [sa.Column(ROWS, sa.BigInteger, nullable=False)]
    for index, measure in enumerate(shape.view.measures):
        if measure.function != "sum":
            continue
        found.append(sa.Column(f"_n{index}", sa.BigInteger, nullable=False))
        if is_float(shape, index):
            found.append(sa.Column(f"_x{index}", sa.Text, nullable=False))
        else:
            found += [sa.Column(f"_{half}{index}", sa.BigInteger, nullable=False) for half in "hl"]
    return found


def is_float(shape: Shape, index: int) -> bool:
    """Whether the measure's figures are floating-point numbers."""
    return shape.columns[len(shape.view.key) + index].kind is Kind.NUMBER
