"""The SELECT of a permitted question: columns of the view's own table, masks and row filter always inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from bus.access.decision import Allow
from bus.access.filters import where
from bus.access.masks import shown
from bus.errors import BadFilter
from bus.sharing.aggregates.few import LEAST
from bus.sharing.filters import Filter, Group
from bus.sharing.permitted import Permitted, Shown
from bus.sharing.question import Order
from bus.sharing.searching import terms as searching
from bus.sharing.searching.store import sought
from bus.sharing.values import ESCAPE
from bus.views.tables import live_rows

Condition = sa.ColumnElement[bool]

_COMPARE: Final[Mapping[str, Callable[[sa.ColumnElement[Any], Any], Condition]]] = {
    "eq": lambda column, value: column == value,
    "neq": lambda column, value: column != value,
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
    "like": lambda column, value: column.like(value, escape=ESCAPE),
    "ilike": lambda column, value: column.ilike(value, escape=ESCAPE),
}
_IS: Final[Mapping[str, Callable[[sa.ColumnElement[Any]], Condition]]] = {
    "null": lambda column: column.is_(None),
    "not_null": lambda column: column.is_not(None),
    "true": lambda column: column.is_(sa.true()),
    "false": lambda column: column.is_(sa.false()),
}


@dataclass(frozen=True, slots=True)
class Statements:
    """``page``: the rows asked for. ``total``: how many there are in all, within the row filter. ``lasting``: they are
    kept and may be asked again, so that they are worth preparing."""

    page: sa.Select[Any]
    total: sa.Select[int]
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Rendering:
    """What masks depend on: the database's ``dialect`` (sqlite or postgresql), the consumer's ``key`` for hashes."""

    dialect: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Base:
    """What a decision allows of a table, before any question: the masked columns of the rows that may be shown.
    Whatever is asked only narrows it. Making one costs more than running it, so doors keep them."""

    table: sa.FromClause
    page: sa.Select[Any]
    total: sa.Select[int]
    visible: Condition


def base(table: sa.FromClause, columns: Sequence[Shown], allow: Allow, rendering: Rendering) -> Base:
    """The rows and ``columns`` that the decision allows. ``table``: of `row_table`, or the view's rows at a moment."""
    visible = sa.and_(sa.true(), live_rows(table), where(allow, table))
    page = sa.select(*(_shown(table, item, rendering) for item in columns)).where(visible)
    return Base(table, page, sa.select(sa.func.count()).select_from(table).where(visible), visible)


def statements(allowed: Base, permitted: Permitted) -> Statements:
    """The statements that answer a question within what is allowed."""
    asked = [asked_of(allowed.table, item) for item in permitted.filters]
    page = allowed.page.where(*asked).order_by(*(ordering(allowed.table, order) for order in permitted.order))
    return Statements(
        page=page.limit(permitted.limit).offset(permitted.offset or None),
        total=allowed.total.where(*asked) if asked else allowed.total,
    )


def _shown(table: sa.FromClause, item: Shown, rendering: Rendering) -> sa.ColumnElement[Any]:
    column = table.c[item.column.name]
    masked = shown(column, item.mask, item.column.kind, dialect=rendering.dialect, key=rendering.key)
    if item.counted is None:
        return masked.label(item.name)
    enough = table.c[item.counted] >= LEAST if item.counted else sa.false()
    return sa.case((enough, masked)).label(item.name)


def asked_of(table: sa.FromClause, item: Filter) -> Condition:
    """A permitted filter as SQL on the rows of ``table``."""
    if isinstance(item, Group):
        parts = [asked_of(table, inner) for inner in item.items]
        # or_() of nothing would be no condition at all: it starts from false, as and_() does from true (E23).
        joined = sa.or_(sa.false(), *parts) if item.either else sa.and_(sa.true(), *parts)
        return sa.not_(joined) if item.negated else joined
    found = _comparison(table.c[item.field], item.op, item.values)
    return sa.not_(found) if item.negated else found


def _comparison(column: sa.ColumnElement[Any], op: str, values: tuple[Any, ...]) -> Condition:
    if op == "in":
        return column.in_(values)
    if op == "is":
        return _IS[values[0]](column)
    if op in searching.OPERATORS:
        return sought(column, values)
    if op not in _COMPARE:
        raise BadFilter(why=f"'{op}' is not an operator.")
    return _COMPARE[op](column, values[0])


def ordering(table: sa.FromClause, order: Order) -> sa.UnaryExpression[Any]:
    """An order as SQL on the rows of ``table``."""
    column = table.c[order.field]
    ordered = column.desc() if order.descending else column.asc()
    if not getattr(column, "nullable", True):
        return ordered  # without a word on nulls the key's index can be followed
    return ordered.nulls_first() if order.nulls_first else ordered.nulls_last()
