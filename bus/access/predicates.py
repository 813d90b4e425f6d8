"""From OPA's filter to a test of one row in memory, by the operator table that SQL uses.

Compiled once and asked for every change of a view: so a row is a tuple, and a filter a nest of closures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, assert_never

from bus.access.answers import And, Comparison, EveryRow, Filter, NoRow, Not, Or
from bus.access.operators import operator_of
from bus.errors import PolicyError

Row = Sequence[Any]
Predicate = Callable[[Row], bool]


def predicate(rows: Filter, names: Sequence[str]) -> Predicate:
    """The test of one row: its values in the order of ``names``, as the query door reads them (str, int, float,
    Decimal, date, aware datetime, bool, None).

    Raises `PolicyError` for a field that is not among ``names`` and for what has no meaning; the test itself
    raises it for a row that is too short, and for a value that cannot be compared.
    """
    test = _compiled(rows, {name: index for index, name in enumerate(names) if not name.startswith("_")})

    def tested(row: Row) -> bool:
        try:
            return test(row)
        except (TypeError, AttributeError, IndexError) as error:
            raise PolicyError() from error

    return tested


def _compiled(rows: Filter, places: Mapping[str, int]) -> Predicate:
    match rows:
        case EveryRow():
            return lambda row: True
        case NoRow():
            return lambda row: False
        case Comparison():
            return _comparison(rows, places)
        case Not(item=item):
            return _negation(item, places)
        case And(items=items) | Or(items=items):
            return _combined(rows, [_compiled(item, places) for item in items])
        case _:
            assert_never(rows)


def _combined(rows: And | Or, parts: Sequence[Predicate]) -> Predicate:
    if not parts:
        raise PolicyError()  # all() of nothing would show every row
    if isinstance(rows, And):
        return lambda row: all(part(row) for part in parts)
    return lambda row: any(part(row) for part in parts)


def _place(rows: Comparison, places: Mapping[str, int]) -> int:
    if rows.field not in places:
        raise PolicyError()
    return places[rows.field]


def _comparison(rows: Comparison, places: Mapping[str, int]) -> Predicate:
    place = _place(rows, places)
    if rows.value is None:
        if rows.op == "eq":
            return lambda row: row[place] is None
        if rows.op == "ne":
            return lambda row: row[place] is not None
        raise PolicyError()
    test = operator_of(rows.op).python(rows.value)
    return lambda row: row[place] is not None and test(row[place])


def _negation(rows: Comparison, places: Mapping[str, int]) -> Predicate:
    if rows.value is None:
        raise PolicyError()
    place, test = _place(rows, places), operator_of(rows.op).python(rows.value)
    return lambda row: row[place] is not None and not test(row[place])
