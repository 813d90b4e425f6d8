"""From the tree that people write to the normal form: negations are pushed inward."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bus.core import names
from bus.core.conditions.normal import ALL_ROWS, NEGATION, Atom, Clause, Clauses, Condition, SubjectAttribute, Today
from bus.errors import BadFilter, ConditionTooWide

MAX_CLAUSES: Final = 100
MAX_ITEMS: Final = 1_000
MAX_DEPTH: Final = 20
MAX_DAYS: Final = 36_525

WRITTEN: Final = ("eq", "ne", "lt", "lte", "gt", "gte", "in", "prefix", "missing")


def _value(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {"subject"} and names.is_id(value["subject"]):
            return SubjectAttribute(str(value["subject"]))
        if set(value) == {"today"}:
            return _today(value["today"], where)
        ways = "text, a number, true or false, a date, {subject: attribute} or {today: days}"
        raise BadFilter(why=f"{where}: a value is {ways}.")
    if value is None:
        raise BadFilter(why=f"{where}: a value may not be null; write {{field: f, op: missing}}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadFilter(why=f"{where}: not a finite number.")
    return value


def _today(days: Any, where: str) -> Today:
    if isinstance(days, bool) or not isinstance(days, int) or abs(days) > MAX_DAYS:
        raise BadFilter(why=f"{where}: `today` takes a whole number of days, such as -30, at most a hundred years.")
    return Today(days)


def _atom_value(op: str, doc: Mapping[str, Any], where: str) -> Any:
    if op == "missing":
        if "value" in doc:
            raise BadFilter(why=f"{where}: `missing` takes no value.")
        return None
    if "value" not in doc:
        raise BadFilter(why=f"{where}: `{op}` needs a value.")
    if op != "in":
        if isinstance(doc["value"], list | tuple):
            raise BadFilter(why=f"{where}: only `in` takes a list.")
        return _value(doc["value"], where)
    items = doc["value"]
    if not isinstance(items, list | tuple) or not items:
        raise BadFilter(why=f"{where}: `in` needs a list of at least one value.")
    if len(items) > MAX_ITEMS:
        raise BadFilter(why=f"{where}: `in` takes at most {MAX_ITEMS} values.")
    return tuple(_value(item, where) for item in items)


def _atom(doc: Mapping[str, Any], negated: bool) -> Clauses:
    extra = set(doc) - {"field", "op", "value"}
    if extra:
        raise BadFilter(why=f"'{sorted(map(str, extra))[0]}' is not known in a condition.")
    field, op = doc.get("field"), doc.get("op")
    if not names.is_id(field):
        raise BadFilter(why=f"a condition needs a field, received {field!r}.")
    if op not in WRITTEN:
        raise BadFilter(why=f"'{op}' is not an operator. {names.nearest(str(op), WRITTEN)}")
    value = _atom_value(str(op), doc, str(field))
    return ((Atom(str(field), NEGATION[str(op)] if negated else str(op), value),),)


def _too_wide(count: int) -> None:
    if count > MAX_CLAUSES:
        raise ConditionTooWide(limit=MAX_CLAUSES)


def _all(parts: Sequence[Clauses]) -> Clauses:
    count = 1
    for part in parts:
        count *= len(part)
        _too_wide(count)
    return tuple(tuple(dict.fromkeys(itertools.chain(*choice))) for choice in itertools.product(*parts))


def _merge_equals(clauses: Clauses) -> Clauses:
    """``any`` of ``eq`` (or ``in``) on one field is one ``in``: it keeps conditions narrow."""
    merged: dict[str, list[Any]] = {}
    rest: list[Clause] = []
    for clause in clauses:
        if len(clause) == 1 and clause[0].op in ("eq", "in"):
            value = clause[0].value
            merged.setdefault(clause[0].field, []).extend(value if clause[0].op == "in" else (value,))
        else:
            rest.append(clause)
    equals = []
    for field, values in merged.items():
        unique = tuple(dict.fromkeys(values))
        equals.append((Atom(field, "eq", unique[0]) if len(unique) == 1 else Atom(field, "in", unique),))
    return tuple(dict.fromkeys([*equals, *rest]))


def _any(parts: Sequence[Clauses]) -> Clauses:
    clauses = _merge_equals(tuple(itertools.chain(*parts)))
    _too_wide(len(clauses))
    return clauses


def _normalise(doc: Any, negated: bool, depth: int) -> Clauses:
    if depth > MAX_DEPTH:
        raise BadFilter(why=f"a condition may be nested {MAX_DEPTH} deep.")
    if not isinstance(doc, Mapping):
        raise BadFilter(why="a condition is a mapping: {field, op, value}, {all: [...]}, {any: [...]} or {not: ...}.")
    combinators = [name for name in ("all", "any", "not") if name in doc]
    if not combinators:
        return _atom(doc, negated)
    if len(doc) != 1:
        raise BadFilter(why=f"`{combinators[0]}` stands alone in its mapping.")
    (name,) = combinators
    if name == "not":
        return _normalise(doc["not"], not negated, depth + 1)
    items = doc[name]
    if not isinstance(items, list | tuple) or not items:
        raise BadFilter(why=f"`{name}` needs a list of at least one condition.")
    parts = [_normalise(item, negated, depth + 1) for item in items]
    return _all(parts) if (name == "all") is not negated else _any(parts)


def parse_condition(doc: Any) -> Condition:
    """The normal form of a written condition; None is every row.

    Raises `BadFilter` for what is not a condition and `ConditionTooWide` beyond 100 clauses.
    """
    if doc is None:
        return ALL_ROWS
    return Condition(_normalise(doc, negated=False, depth=0), doc)
