"""From OPA's filter to a WHERE clause: the table of `bus.access.operators`, one recursive function, values bound.

NULL is guarded in every comparison, so that a missing value is hidden by a negation as well (E24); text
is compared by bytes, since the views' text columns are BINARY or COLLATE "C" (E25).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

import sqlalchemy as sa

from bus.access.answers import And, Comparison, EveryRow, Filter, NoRow, Not, Or
from bus.access.decision import Allow
from bus.access.operators import operator_of
from bus.errors import PolicyError

Columns = Mapping[str, sa.ColumnElement[Any]]


def where(allow: Allow, table: sa.FromClause) -> sa.ColumnElement[bool]:
    """The rows of ``table`` that may be shown. Needs the `Allow` of a decision on this very view.

    Raises `PolicyError` for what cannot be said in SQL.
    """
    return sa.or_(sa.false(), condition(allow.filter, dict(table.c.items())))


def condition(rows: Filter, columns: Columns) -> sa.ColumnElement[bool]:
    """One filter as SQL over these columns. Raises `PolicyError`."""
    match rows:
        case EveryRow():
            return sa.true()
        case NoRow():
            return sa.false()
        case Comparison():
            return _comparison(rows, columns, negated=False)
        case Not(item=item):
            return _comparison(item, columns, negated=True)
        case And(items=items) | Or(items=items):
            if not items:
                raise PolicyError()
            parts = [condition(item, columns) for item in items]
            return sa.and_(sa.true(), *parts) if isinstance(rows, And) else sa.or_(sa.false(), *parts)
        case _:
            assert_never(rows)


def _comparison(rows: Comparison, columns: Columns, *, negated: bool) -> sa.ColumnElement[bool]:
    if rows.field not in columns or rows.field.startswith("_"):
        raise PolicyError()
    column = columns[rows.field]
    if rows.value is None:
        if negated or rows.op not in ("eq", "ne"):
            raise PolicyError()
        return column.is_(None) if rows.op == "eq" else column.is_not(None)
    compared = operator_of(rows.op).sql(column, rows.value)
    return sa.and_(column.is_not(None), sa.not_(compared) if negated else compared)
