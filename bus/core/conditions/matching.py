"""Whether a row meets a condition: the reference that OPA, SQL and stream predicates must equal, row by row."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from bus.core.conditions.normal import VALUELESS, Atom, Clauses, SubjectAttribute


def resolve(clauses: Clauses, attributes: Mapping[str, Any]) -> Clauses:
    """The clauses with the subject's attributes put in; a clause that needs one it lacks is dropped,
    because a comparison with a missing value never matches."""

    def put_in(value: Any) -> Any:
        if isinstance(value, SubjectAttribute):
            return attributes.get(value.name)
        return tuple(put_in(item) for item in value) if isinstance(value, tuple) else value

    resolved = (tuple(replace(atom, value=put_in(atom.value)) for atom in clause) for clause in clauses)
    return tuple(clause for clause in resolved if not any(_lacks(atom) for atom in clause))


def _lacks(atom: Atom) -> bool:
    if atom.op in VALUELESS:
        return False
    return atom.value is None or (isinstance(atom.value, tuple) and any(item is None for item in atom.value))


def _bytewise(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Orders text by UTF-8 bytes, as OPA, BINARY and COLLATE "C" do."""

    def compared(left: Any, right: Any) -> bool:
        if isinstance(left, str) and isinstance(right, str):
            return compare(left.encode(), right.encode())
        return compare(left, right)

    return compared


_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": _bytewise(operator.lt),
    "lte": _bytewise(operator.le),
    "gt": _bytewise(operator.gt),
    "gte": _bytewise(operator.ge),
    "in": lambda left, right: left in right,
    "not_in": lambda left, right: left not in right,
    "prefix": lambda left, right: left.startswith(right),
    "not_prefix": lambda left, right: not left.startswith(right),
}


def _matches_atom(atom: Atom, row: Mapping[str, Any]) -> bool:
    value = row.get(atom.field)
    if atom.op == "missing":
        return value is None
    if atom.op == "present":
        return value is not None
    return value is not None and _COMPARE[atom.op](value, atom.value)


def matches(clauses: Clauses, row: Mapping[str, Any]) -> bool:
    """Whether the row meets at least one clause in full. ``row``: Python values by field name."""
    return any(all(_matches_atom(atom, row) for atom in clause) for clause in clauses)
