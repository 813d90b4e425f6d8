"""The values of a condition in the types of the fields that they are compared with."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from bus.core import names
from bus.core.conditions.normal import VALUELESS, Atom, Condition, SubjectAttribute, Today
from bus.core.contracts import Kind
from bus.errors import BadFilter

_TEXT_ONLY: Final = ("prefix", "not_prefix")


def as_instant(value: Any) -> dt.datetime:
    """An aware instant from ISO 8601 text or a datetime. Raises ValueError without an offset."""
    instant = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(str(value))
    if instant.tzinfo is None:
        raise ValueError(f"{value} has no time zone")
    return instant.astimezone(dt.UTC)


_CAST: Final[Mapping[Kind, Callable[[Any], Any]]] = {
    Kind.TEXT: str,
    Kind.INTEGER: int,
    Kind.NUMBER: float,
    Kind.DECIMAL: lambda value: Decimal(str(value)),
    Kind.DATE: lambda value: value if isinstance(value, dt.date) else dt.date.fromisoformat(str(value)),
    Kind.TIMESTAMP: as_instant,
    Kind.BOOLEAN: bool,
}
_ACCEPTED: Final[Mapping[Kind, tuple[type, ...]]] = {
    Kind.TEXT: (str,),
    Kind.INTEGER: (int,),
    Kind.NUMBER: (int, float),
    Kind.DECIMAL: (int, float, Decimal, str),
    Kind.DATE: (dt.date, str),
    Kind.TIMESTAMP: (dt.datetime, str),
    Kind.BOOLEAN: (bool,),
}


def typed(value: Any, kind: Kind, field: str) -> Any:
    """``value`` as the Python type of ``kind``. Raises `BadFilter` when it is of another type."""
    accepted = _ACCEPTED.get(kind)
    if accepted is None:
        raise BadFilter(why=f"field '{field}' ({kind}) cannot be compared.")
    wrong_boolean = isinstance(value, bool) is not (kind is Kind.BOOLEAN)
    if wrong_boolean or not isinstance(value, accepted):
        raise BadFilter(why=f"field '{field}' is {kind}, the value {value!r} is not.")
    try:
        return _CAST[kind](value)
    except (ValueError, ArithmeticError) as error:
        raise BadFilter(why=f"field '{field}' is {kind}, the value {value!r} is not.") from error


def _on_day(value: Today, kind: Kind, field: str, today: dt.date | None) -> Any:
    """The day meant, in the type of the field; as it was written where nobody is asking yet."""
    if kind not in (Kind.DATE, Kind.TIMESTAMP):
        raise BadFilter(why=f"`today` needs a date or a timestamp, '{field}' is {kind}.")
    if today is None:
        return value
    day = today + dt.timedelta(days=value.days)
    return day if kind is Kind.DATE else dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)


def _typed_atom(atom: Atom, kinds: Mapping[str, Kind], today: dt.date | None) -> Atom:
    kind = kinds.get(atom.field)
    if kind is None:
        raise BadFilter(why=f"there is no field '{atom.field}'. {names.nearest(atom.field, kinds)}")
    if atom.op in VALUELESS or isinstance(atom.value, SubjectAttribute):
        return atom
    if atom.op in _TEXT_ONLY and kind is not Kind.TEXT:
        raise BadFilter(why=f"`prefix` needs a text field, '{atom.field}' is {kind}.")

    def value_of(item: Any) -> Any:
        if isinstance(item, SubjectAttribute):
            return item
        return _on_day(item, kind, atom.field, today) if isinstance(item, Today) else typed(item, kind, atom.field)

    if not isinstance(atom.value, tuple):
        return replace(atom, value=value_of(atom.value))
    return replace(atom, value=tuple(value_of(item) for item in atom.value))


def check(condition: Condition, kinds: Mapping[str, Kind], today: dt.date | None = None) -> Condition:
    """The condition with each value in the type of its field. ``kinds``: the view's columns; ``today``: the UTC day
    on which somebody asks, None while a declaration is checked (`Today` then stays as it is written).

    Raises `BadFilter` for an unknown field or a value of the wrong type.
    """
    clauses = tuple(tuple(_typed_atom(atom, kinds, today) for atom in clause) for clause in condition.clauses)
    return replace(condition, clauses=clauses)
