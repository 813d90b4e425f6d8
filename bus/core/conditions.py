"""Row conditions: from the tree that people write to an *or* of *ands* of atoms that every evaluator reads.

Negations are pushed inward, so no atom is ever negated from outside. A comparison with a missing value
never matches, and neither does its negation: `matches` is the reference that OPA, SQL and stream
predicates must equal, row by row.
"""

from __future__ import annotations

import datetime as dt
import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from bus.core import names
from bus.core.contracts import Kind
from bus.errors import BadFilter, ConditionTooWide

MAX_CLAUSES: Final = 100
MAX_ITEMS: Final = 1_000
MAX_DEPTH: Final = 20
MAX_DAYS: Final = 36_525

WRITTEN: Final = ("eq", "ne", "lt", "lte", "gt", "gte", "in", "prefix", "missing")
_NEGATION: Final = {
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
OPERATORS: Final = tuple(_NEGATION)
_VALUELESS: Final = ("missing", "present")
_TEXT_ONLY: Final = ("prefix", "not_prefix")


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
        if self.op not in _VALUELESS:
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
    return ((Atom(str(field), _NEGATION[str(op)] if negated else str(op), value),),)


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
    if atom.op in _VALUELESS:
        return False
    return atom.value is None or (isinstance(atom.value, tuple) and any(item is None for item in atom.value))


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
    if atom.op in _VALUELESS or isinstance(atom.value, SubjectAttribute):
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
