"""What OPA is told: a closed model of the request and of the grants. Nothing a client sent is merged in (E3)."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import orjson

from bus.access.identity import Subject
from bus.core import conditions, names
from bus.core.conditions import Atom, Clauses, Condition
from bus.core.contracts import Kind
from bus.core.grants import Grant
from bus.errors import BadFilter, PolicyError

MAX_INTEGER: Final = 2**53


def exact(value: Any) -> bool:
    """Whether a number survives OPA's Compile API, which answers in 64-bit floating point (tried on 1.22.2:
    9007199254740993 came back as …992, which would be another filter)."""
    if isinstance(value, bool):
        return True
    if isinstance(value, int):
        return abs(value) <= MAX_INTEGER
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Decimal):
        return value.is_finite() and Decimal(repr(float(value))) == value
    return True


def refuse_inexact(condition: Condition) -> None:
    """Raises `BadFilter` for a number that OPA would change on the way."""
    for clause in condition.clauses:
        for atom in clause:
            for value in atom.value if isinstance(atom.value, tuple) else (atom.value,):
                if not exact(value):
                    raise BadFilter(why=f"the value {value} of '{atom.field}' has more digits than OPA keeps (15).")


def typed_clauses(grant: Grant, subject: Subject, kinds: Mapping[str, Kind], today: dt.date) -> Clauses:
    """The grant's condition for this subject on this UTC day, each value of its column's type.

    Raises `PolicyError` where the condition does not fit the view (any more), or the attribute the column.
    """
    try:
        resolved = Condition(conditions.resolve(grant.rows.clauses, subject.attributes))
        checked = conditions.check(resolved, kinds, today)
        refuse_inexact(checked)
    except BadFilter as error:
        raise PolicyError() from error
    return checked.clauses


def _number(value: Any) -> Any:
    """Decimals as JSON numbers, digit for digit."""
    if isinstance(value, Decimal):
        return orjson.Fragment(f"{value:f}".encode())
    return [_number(item) for item in value] if isinstance(value, list) else value


def atom_fact(atom: Atom) -> dict[str, Any]:
    """The atom as OPA reads it."""
    return {name: _number(value) for name, value in atom.as_fact().items()}


def grant_fact(grant: Grant, subject: Subject, kinds: Mapping[str, Kind], today: dt.date) -> dict[str, Any]:
    """What the rules may know about a grant. Raises `PolicyError`, see `typed_clauses`."""
    return {
        "id": grant.id,
        "consumer": grant.consumer,
        "view": grant.view,
        "purpose": grant.purpose,
        "channels": list(grant.channels),
        "valid_from": grant.valid_from.isoformat(),
        "valid_to": grant.valid_to.isoformat(),
        "rows": [[atom_fact(atom) for atom in clause] for clause in typed_clauses(grant, subject, kinds, today)],
    }


def request_input(
    subject: Subject,
    view: str,
    kinds: Mapping[str, Kind],
    *,
    purpose: str | None,
    channel: str,
    at: dt.datetime,
    grants: Sequence[Grant],
) -> dict[str, Any]:
    """The whole input of one decision. A purpose that is no id is as good as none (A08)."""
    today = at.astimezone(dt.UTC).date()
    return {
        "subject": {
            "department": subject.department,
            "officer": subject.officer,
            "attributes": dict(subject.attributes),
        },
        "view": view,
        "purpose": purpose if names.is_id(purpose) else None,
        "channel": channel,
        "time": f"{today.isoformat()}T00:00:00+00:00",  # a decision holds for the day, so no rule may read the hour
        "grants": [grant_fact(grant, subject, kinds, today) for grant in grants],
    }
