"""Conditions in normal form: an *or* of *ands* of atoms, each a comparison of a field with a value."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final

NEGATION: Final = {
    "eq": "ne",
    "ne": "eq",
    "lt": "gte",
    "gte": "lt",
    "gt": "lte",
    "lte": "gt",
    "in": "not_in",
    "not_in": "in",
    "prefix": "not_prefix",
    "not_prefix": "prefix",
    "missing": "present",
    "present": "missing",
}
OPERATORS: Final = tuple(NEGATION)
VALUELESS: Final = ("missing", "present")


@dataclass(frozen=True, slots=True)
class SubjectAttribute:
    """A value known only when somebody asks: an attribute of the asking subject, such as its district."""

    name: str


@dataclass(frozen=True, slots=True)
class Today:
    """A day counted from the one on which somebody asks (UTC); on a timestamp field its first instant."""

    days: int


@dataclass(frozen=True, slots=True)
class Atom:
    """``field op value``. Ops: those of `OPERATORS`; ``missing`` and ``present`` take no value."""

    field: str
    op: str
    value: Any = None

    def as_fact(self) -> dict[str, Any]:
        """The atom as JSON for OPA: values as text, number or boolean."""
        fact: dict[str, Any] = {"field": self.field, "op": self.op}
        if self.op not in VALUELESS:
            fact["value"] = _plain(self.value)
        return fact


Clause = tuple[Atom, ...]
Clauses = tuple[Clause, ...]
EVERY_ROW: Final[Clauses] = ((),)
NO_ROW: Final[Clauses] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition in normal form, with the document it came from."""

    clauses: Clauses
    document: Any = None

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(atom.field for clause in self.clauses for atom in clause))

    @property
    def subject_attributes(self) -> frozenset[str]:
        """The attributes of the subject that the condition reads: part of what a decision depends on."""
        values = (atom.value for clause in self.clauses for atom in clause)
        return frozenset(value.name for value in values if isinstance(value, SubjectAttribute))

    @property
    def reads_the_day(self) -> bool:
        """Whether the condition means other rows tomorrow."""
        values = (atom.value for clause in self.clauses for atom in clause)
        flat = (item for value in values for item in (value if isinstance(value, tuple) else (value,)))
        return any(isinstance(item, Today) for item in flat)


ALL_ROWS: Final = Condition(EVERY_ROW)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dt.datetime):
        # not strftime: it writes the year 999 with three digits, which would order after 1000
        return value.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, dt.date):
        return value.isoformat()
    return value
