"""The operators of row filters: what each means in SQL and what it means in Python, side by side.

Both halves are asked about values that are there; NULL is the caller's to guard (E24). Text is compared by
UTF-8 bytes, which is Python's own order of code points, and the order of BINARY and COLLATE "C" (E25).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from bus.errors import PolicyError

Column = sa.ColumnElement[Any]
Clause = sa.ColumnElement[bool]
Test = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Operator:
    """``sql``: the clause for a column and a value; ``python``: for a value, the test of what a row holds."""

    sql: Callable[[Column, Any], Clause]
    python: Callable[[Any], Test]


def _bound(column: Column, value: Any) -> Column:
    """The value as a parameter of the column's type."""
    return sa.literal(value, column.type)


def _comparison(compare: Callable[[Any, Any], Any]) -> Operator:
    """One of Python's own comparisons: SQLAlchemy overloads it, so both halves are one function."""

    def clause(column: Column, value: Any) -> Clause:
        built: Clause = compare(column, _bound(column, value))
        return built

    def test(value: Any) -> Test:
        return lambda held: bool(compare(held, value))

    return Operator(clause, test)


def _one_of(column: Column, values: tuple[Any, ...]) -> Clause:
    if not values:
        raise PolicyError()
    return column.in_([_bound(column, value) for value in values])


def _among(values: tuple[Any, ...]) -> Test:
    if not values:
        raise PolicyError()
    return frozenset(values).__contains__


def _starts_with(column: Column, prefix: str) -> Clause:
    """Literally and by case on every database, which LIKE is on none."""
    return sa.func.substr(column, 1, len(prefix), type_=column.type) == _bound(column, prefix)


def _starting(prefix: str) -> Test:
    return lambda held: bool(held.startswith(prefix))


OPERATORS: Final[Mapping[str, Operator]] = {
    "eq": _comparison(operator.eq),
    "ne": _comparison(operator.ne),
    "lt": _comparison(operator.lt),
    "lte": _comparison(operator.le),
    "gt": _comparison(operator.gt),
    "gte": _comparison(operator.ge),
    "in": Operator(_one_of, _among),
    "startswith": Operator(_starts_with, _starting),
}


def operator_of(name: str) -> Operator:
    """Raises `PolicyError` for a name that is no operator."""
    found = OPERATORS.get(name)
    if found is None:
        raise PolicyError()
    return found
