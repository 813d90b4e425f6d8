"""What OPA answered, read as closed sums: anything unknown or ill-formed is `PolicyError`, never "no filter".

A deny of the Compile API is HTTP 200 with ``{}``, and an unconditional allow differs from it by one empty
object (E1): so both are matched exactly, and `bus.access.decision` lets the second count only with
``allow_all``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bus.core.conditions import typed
from bus.core.contracts import Kind
from bus.errors import BadFilter, PolicyError

MAX_DEPTH: Final = 20
MAX_NODES: Final = 1_000
MAX_ITEMS: Final = 1_000
MAX_HINT: Final = 500
REASONS: Final = ("ok", "not_granted", "purpose_not_granted", "channel_not_granted", "ambiguous")
_ROW: Final = "row."
_ORDER: Final = ("eq", "ne", "lt", "lte", "gt", "gte")


@dataclass(frozen=True, slots=True)
class EveryRow:
    """OPA put no condition on the row."""


@dataclass(frozen=True, slots=True)
class NoRow:
    """No row can be allowed."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """``field op value``; ops: eq ne lt lte gt gte in startswith. A value of None goes with eq and ne only."""

    field: str
    op: str
    value: Any


@dataclass(frozen=True, slots=True)
class Not:
    """The negation of one comparison with a value."""

    item: Comparison


@dataclass(frozen=True, slots=True)
class And:
    """All of at least one."""

    items: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of at least one."""

    items: tuple[Filter, ...]


Filter = EveryRow | NoRow | Comparison | Not | And | Or
EVERY_ROW: Final = EveryRow()
NO_ROW: Final = NoRow()


def both(first: Filter, second: Filter) -> Filter:
    """The rows that both let through."""
    if NO_ROW in (first, second):
        return NO_ROW
    if EVERY_ROW in (first, second):
        return second if first == EVERY_ROW else first
    return And((first, second))


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What the view's own rule says but the rows; ``ruled`` is False where the view has none. ``hint``: for who is
    refused."""

    ruled: bool = False
    allow: bool = False
    allow_all: bool = False
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """OPA's answer but the rows, under ``revision`` of the rules (None: no bundle is loaded)."""

    allow: bool
    allow_all: bool
    grants: tuple[str, ...]
    channels: tuple[str, ...]
    reason: str
    revision: int | None
    narrowing: Narrowing = Narrowing()


def _members(value: Any, names: set[str], optional: frozenset[str] = frozenset()) -> Mapping[str, Any]:
    """``value`` as an object with exactly these members."""
    if not isinstance(value, dict) or not names <= set(value) <= names | optional:
        raise PolicyError()
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise PolicyError()
    return tuple(value)


_BESIDE: Final = frozenset({"provenance", "decision_id"})


def parse_verdict(body: Any, bundle: str) -> Verdict:
    """The verdict in a Data API answer. Undefined (``{}``) and anything but ``true`` and ``false`` are refused (E4)."""
    answer = _members(body, {"result"}, _BESIDE)
    result = _members(answer["result"], {"allow", "allow_all", "grants", "channels", "reason", "narrowing"})
    allow, allow_all, reason = result["allow"], result["allow_all"], result["reason"]
    if not isinstance(allow, bool) or not isinstance(allow_all, bool) or reason not in REASONS:
        raise PolicyError()
    if (reason == "ok") is not allow or (allow_all and not allow):
        raise PolicyError()
    grants, channels = _texts(result["grants"]), _texts(result["channels"])
    narrowing = _narrowing(result["narrowing"])
    return Verdict(allow, allow_all, grants, channels, reason, bundle_revision(answer, bundle), narrowing)


def _narrowing(value: Any) -> Narrowing:
    found = _members(value, {"ruled", "allow", "allow_all", "hint"})
    ruled, allow, allow_all, hint = (found[name] for name in ("ruled", "allow", "allow_all", "hint"))
    if not all(isinstance(answer, bool) for answer in (ruled, allow, allow_all)) or not isinstance(hint, str):
        raise PolicyError()
    if (allow and not ruled) or (allow_all and not allow) or len(hint) > MAX_HINT:
        raise PolicyError()
    return Narrowing(ruled, allow, allow_all, hint)


def parse_canary(body: Any, bundle: str) -> tuple[bool, int | None]:
    """Whether the built-in decision came out right, and the revision it was made under."""
    answer = _members(body, {"result"}, _BESIDE)
    return answer["result"] is True, bundle_revision(answer, bundle)


def bundle_revision(answer: Mapping[str, Any], bundle: str) -> int | None:
    """The revision of the loaded rules, None where no such bundle is loaded. Raises `PolicyError` for another form."""
    bundles = answer.get("provenance", {})
    for member in ("bundles", bundle):
        if not isinstance(bundles, dict):
            raise PolicyError()
        if member not in bundles:
            return None
        bundles = bundles[member]
    text = bundles.get("revision") if isinstance(bundles, dict) else None
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 15:
        raise PolicyError()
    return int(text)


def parse_filter(body: Any, kinds: Mapping[str, Kind]) -> Filter:
    """The filter in a Compile API answer (UCAST), values of their columns' types.

    ``kinds``: the view's columns; a filter on anything else is refused. ``{}`` is no row. Raises
    `PolicyError` beyond a depth of 20, 1,000 nodes or 1,000 items (A03).
    """
    if body == {} and isinstance(body, dict):
        return NO_ROW
    query = _members(_members(body, {"result"})["result"], {"query"})["query"]
    if query == {} and isinstance(query, dict):
        return EVERY_ROW
    return _Reader(kinds).node(query, 1)


class _Reader:
    """Reads one tree, counting its nodes."""

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self._kinds = kinds
        self._nodes = 0

    def node(self, value: Any, depth: int) -> Filter:
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH or not isinstance(value, dict):
            raise PolicyError()
        if value.get("type") == "compound":
            return self._compound(value, depth)
        if value.get("type") == "field":
            return self._comparison(value)
        raise PolicyError()

    def _compound(self, value: dict[str, Any], depth: int) -> Filter:
        _members(value, {"type", "operator", "value"})
        if not isinstance(value["value"], list) or not value["value"]:
            raise PolicyError()  # SQLAlchemy reads an empty compound as no condition at all (E23)
        items = tuple(self.node(item, depth + 1) for item in value["value"])
        if value["operator"] == "and":
            return And(items)
        if value["operator"] == "or":
            return Or(items)
        if value["operator"] == "not" and len(items) == 1:
            (item,) = items
            if isinstance(item, Comparison) and item.value is not None:
                return Not(item)
        raise PolicyError()

    def _comparison(self, value: dict[str, Any]) -> Comparison:
        _members(value, {"type", "operator", "field", "value"})
        field, op = value["field"], value["operator"]
        if not isinstance(field, str) or not field.startswith(_ROW) or not isinstance(op, str):
            raise PolicyError()
        name = field.removeprefix(_ROW)
        kind = self._kinds.get(name)
        if kind is None:
            raise PolicyError()
        return Comparison(name, op, self._value(name, op, value["value"], kind))

    def _value(self, name: str, op: str, value: Any, kind: Kind) -> Any:
        if value is None and op in ("eq", "ne"):
            return None
        try:
            if op in _ORDER or (op == "startswith" and kind is Kind.TEXT):
                return typed(value, kind, name)
            if op == "in" and isinstance(value, list) and 0 < len(value) <= MAX_ITEMS:
                return tuple(typed(item, kind, name) for item in value)
        except BadFilter as error:
            raise PolicyError() from error
        raise PolicyError()
