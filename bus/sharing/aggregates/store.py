"""The SELECT of figures: groups of the rows that may be shown; where they are guarded, only those of enough rows.

A row of an answer that is guarded (``least_group``) ends in hidden columns: for each sum the rounded number of its
values, and whether something was withheld; `withholding.finished` makes figures of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from bus.sharing.aggregates.figures import ROUNDED_TO, Measured
from bus.sharing.permitted import Permitted
from bus.sharing.question import Order
from bus.sharing.store import Base, Statements, asked_of
from bus.views.values import Exact

Expression = sa.ColumnElement[Any]
ROWS: Final = "_rows"
WITHHELD: Final = "_withheld"
_INT64: Final = 2**63


class Total(TypeDecorator[Any]):
    """The sum of whole numbers: PostgreSQL gives a numeric, which may be larger than JSON's writer takes as integer."""

    impl = sa.Numeric
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> int | Decimal | None:
        if value is None:
            return None
        whole = int(value)
        return whole if -_INT64 <= whole < _INT64 else Decimal(whole)


def grouped(allowed: Base, permitted: Permitted) -> Statements:
    """The statements that answer a question for figures within what is allowed."""
    table = allowed.table
    groups = [table.c[item.column.name].label(f"g{place}") for place, item in enumerate(permitted.shown)]
    raw = [sa.func.count().label(ROWS)]
    for place, item in enumerate(permitted.figures):
        raw += _raw(place, item, table, exact=permitted.least_group is None)
    asked = [asked_of(table, item) for item in permitted.filters]
    rows = sa.select(*groups, *raw).select_from(table).where(allowed.visible, *asked)
    found = rows.group_by(*(table.c[item.column.name] for item in permitted.shown)).subquery()
    page = _exact(found, permitted) if permitted.least_group is None else _guarded(found, permitted)
    shown = page.subquery()
    ordered = sa.select(*shown.c).order_by(*(_order(shown.c[order.field], order) for order in permitted.order))
    total = sa.select(sa.func.count()).select_from(found)
    return Statements(ordered.limit(permitted.limit).offset(permitted.offset or None), total)


def _raw(place: int, item: Measured, table: sa.FromClause, *, exact: bool) -> list[sa.Label[Any]]:
    """The figure over all rows of the group, and over how many values it is. A sum that is not exact is made of the
    average."""
    if item.column is None:
        return []
    column = table.c[item.column.name]
    count = sa.func.count(column).label(f"n{place}")
    if item.function == "count":
        return [count]
    function = item.function if exact or item.function != "sum" else "avg"
    return [_VALUES[function](column).label(f"f{place}"), count]


def _sum(column: Expression) -> Expression:
    return sa.func.sum(column, type_=Total() if isinstance(column.type, sa.BigInteger) else column.type)


def _average(column: Expression) -> Expression:
    """As floating point on both databases."""
    average = sa.cast(sa.func.avg(column, type_=sa.Double()), sa.Double)
    return sa.type_coerce(average, _Scaled(column.type.scale)) if isinstance(column.type, Exact) else average


class _Scaled(TypeDecorator[float]):
    """An average of decimals, which SQLite keeps as scaled integers."""

    impl = sa.Double
    cache_ok = True

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def process_result_value(self, value: Any, dialect: Dialect) -> float | None:
        if value is None or dialect.name == "postgresql":
            return None if value is None else float(value)
        return float(value) / float(10**self.scale)


_VALUES: Final[Mapping[str, Any]] = {
    "sum": _sum,
    "avg": _average,
    "min": lambda column: sa.func.min(column, type_=column.type),
    "max": lambda column: sa.func.max(column, type_=column.type),
}


def _values(found: sa.Subquery, place: int, item: Measured) -> Expression:
    """How many values the figure is made of."""
    return found.c[ROWS] if item.column is None else found.c[f"n{place}"]


def _exact(found: sa.Subquery, permitted: Permitted) -> sa.Select[Any]:
    groups = [found.c[f"g{place}"].label(item.name) for place, item in enumerate(permitted.shown)]
    figures = [
        (_values(found, place, item) if item.function == "count" else found.c[f"f{place}"]).label(item.name)
        for place, item in enumerate(permitted.figures)
    ]
    return sa.select(*groups, *figures)


def _guarded(found: sa.Subquery, permitted: Permitted) -> sa.Select[Any]:
    """Groups of enough rows, with null for a figure of too few values; counts are rounded."""
    least = permitted.least_group
    figures, hidden = list[sa.Label[Any]](), list[sa.Label[Any]]()
    all_enough: sa.ColumnElement[bool] = sa.true()
    for place, item in enumerate(permitted.figures):
        values = _values(found, place, item)
        enough = values >= least
        all_enough = sa.and_(all_enough, enough)
        shown = _rounded(values) if item.function == "count" else found.c[f"f{place}"]
        figures.append(sa.case((enough, shown)).label(item.name))
        if item.function == "sum":
            hidden.append(sa.case((enough, _rounded(values))).label(f"_n{place}"))
    groups = [found.c[f"g{place}"].label(item.name) for place, item in enumerate(permitted.shown)]
    withheld = sa.case((all_enough, 0), else_=1).label(WITHHELD)
    return sa.select(*groups, *figures, *hidden, withheld).where(found.c[ROWS] >= least)


def _rounded(count: Expression) -> Expression:
    """To the nearest multiple of 5, in whole numbers: the same on both databases."""
    return (count + ROUNDED_TO // 2) // ROUNDED_TO * ROUNDED_TO


def _order(column: Expression, order: Order) -> sa.UnaryExpression[Any]:
    ordered = column.desc() if order.descending else column.asc()
    return ordered.nulls_first() if order.nulls_first else ordered.nulls_last()
