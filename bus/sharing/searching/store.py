"""Search as SQL. `bus.sharing.searching.terms.finds` is the reference."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.sql.functions import FunctionElement

from bus.sharing.searching.terms import Alternatives, Term


class _Place(FunctionElement[int]):
    """Where a text stands in another, from 1; 0 where it does not. Both databases have it, under two names."""

    type = sa.Integer()
    inherit_cache = True


@compiles(_Place)
def _sqlite(element: _Place, compiler: Any, **options: Any) -> str:
    return f"instr({compiler.process(element.clauses, **options)})"


@compiles(_Place, "postgresql")
def _postgresql(element: _Place, compiler: Any, **options: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **options)})"


def sought(column: ColumnElement[Any], alternatives: Alternatives) -> ColumnElement[bool]:
    """Whether the column's text has what is sought; null where it is null. `lower` writes A to Z small and no
    other character: SQLite's always, PostgreSQL's by the column's collation "C"."""
    text = sa.func.lower(column, type_=column.type)
    return sa.or_(
        sa.false(), *(sa.and_(sa.true(), *(_holds(text, term, column) for term in part)) for part in alternatives)
    )


def _holds(text: ColumnElement[Any], term: Term, column: ColumnElement[Any]) -> ColumnElement[bool]:
    place = _Place(text, sa.literal(term.text, column.type))
    return place == 0 if term.absent else place > 0
