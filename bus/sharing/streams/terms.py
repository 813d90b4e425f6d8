"""What a stream's decision comes to: which rows, columns and masks, for which purpose; and whether another shows less.

The digest is how the process that writes a topic and the doors that serve it know that they speak of the same terms.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Self

from bus.access.answers import EVERY_ROW, NO_ROW, And, Comparison, EveryRow, Filter, NoRow, Not, Or
from bus.access.decision import Allow
from bus.core.masks import Mask

_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "date": dt.date.fromisoformat,
    "datetime": dt.datetime.fromisoformat,
    "Decimal": Decimal,
}


@dataclass(frozen=True, slots=True)
class Terms:
    """What one consumer may see of one view by way of its stream. Two decisions of equal terms have equal digests."""

    consumer: str
    view: str
    purpose: str
    columns: tuple[str, ...]
    masks: Mapping[str, Mask]
    filter: Filter

    @classmethod
    def of(cls, allow: Allow) -> Self:
        """The terms of a decision."""
        return cls(allow.consumer, allow.view, allow.purpose, allow.columns, dict(allow.masks), allow.filter)

    @classmethod
    def read(cls, text: str) -> Self:
        """The terms that `text` wrote."""
        doc = json.loads(text)
        masks = {name: Mask(kind, argument) for name, (kind, argument) in doc["masks"].items()}
        names = (doc["consumer"], doc["view"], doc["purpose"])
        return cls(*names, tuple(doc["columns"]), masks, _filter(doc["filter"]))

    @property
    def text(self) -> str:
        """The terms as JSON, to be kept; its hash is the digest."""
        doc = {
            "consumer": self.consumer,
            "view": self.view,
            "purpose": self.purpose,
            "columns": list(self.columns),
            "masks": {name: [mask.kind, mask.argument] for name, mask in self.masks.items()},
            "filter": _document(self.filter),
        }
        return json.dumps(doc, ensure_ascii=False, sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """SHA-256 of everything above, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def masked(self) -> tuple[str, ...]:
        """The masked columns, sorted."""
        return tuple(sorted(name for name in self.columns if name in self.masks))

    def opaque_key(self, key: tuple[str, ...]) -> bool:
        """Whether a record's key must not show the view's ``key``: some column of it is hidden or masked."""
        return any(name not in self.columns or name in self.masks for name in key)

    def narrows(self, old: Terms) -> bool:
        """Whether something that was shown under the ``old`` terms may not be any more. When in doubt it may not: then
        only work is lost. Another purpose narrows: what was given for one may not stay there for another."""
        if self.purpose != old.purpose or not set(old.columns) <= set(self.columns):
            return True
        if any(self.masks.get(name) not in (None, old.masks.get(name)) for name in old.columns):
            return True
        return not _within(old.filter, self.filter)


def _within(old: Filter, new: Filter) -> bool:
    """Whether every row of ``old`` is surely one of ``new``."""
    if isinstance(new, EveryRow) or isinstance(old, NoRow):
        return True
    if isinstance(old, EveryRow) or isinstance(new, NoRow):
        return False
    return all(any(_implied(clause, wider) for wider in _clauses(new)) for clause in _clauses(old))


def _clauses(rows: Filter) -> tuple[tuple[Filter, ...], ...]:
    """An *or* of *ands*, which is what the rules compile to; what is deeper stands as one atom."""
    items = rows.items if isinstance(rows, Or) else (rows,)
    return tuple(item.items if isinstance(item, And) else (item,) for item in items)


def _implied(clause: tuple[Filter, ...], wider: tuple[Filter, ...]) -> bool:
    return all(any(_implies(atom, other) for atom in clause) for other in wider)


def _implies(atom: Filter, other: Filter) -> bool:
    """Whether a row of ``atom`` is surely one of ``other``. A comparison never matches a missing value."""
    if atom == other or isinstance(atom, NoRow) or isinstance(other, EveryRow):
        return True
    if not isinstance(other, Comparison) or not isinstance(atom, Comparison | Not):
        return False
    mine = atom.item if isinstance(atom, Not) else atom
    if mine.field != other.field or mine.value is None:
        return False
    if other.value is None:
        return other.op == "ne"
    return isinstance(atom, Comparison) and (atom.op, other.op) in _IMPLIED and _compare(atom, other)


def _compare(atom: Comparison, other: Comparison) -> bool:
    return _IMPLIED[(atom.op, other.op)](atom.value, other.value)


_IMPLIED: Final[Mapping[tuple[str, str], Callable[[Any, Any], bool]]] = {
    ("eq", "in"): lambda one, many: one in many,
    ("in", "in"): lambda few, many: set(few) <= set(many),
    ("lt", "lt"): lambda one, other: one <= other,
    ("lt", "lte"): lambda one, other: one <= other,
    ("lte", "lte"): lambda one, other: one <= other,
    ("lte", "lt"): lambda one, other: one < other,
    ("gt", "gt"): lambda one, other: one >= other,
    ("gt", "gte"): lambda one, other: one >= other,
    ("gte", "gte"): lambda one, other: one >= other,
    ("gte", "gt"): lambda one, other: one > other,
    ("eq", "lte"): lambda one, other: one <= other,
    ("eq", "gte"): lambda one, other: one >= other,
    ("startswith", "startswith"): lambda one, other: one.startswith(other),
}


def _document(rows: Filter) -> Any:
    match rows:
        case EveryRow():
            return True
        case NoRow():
            return False
        case Comparison(field, op, value):
            return [field, op, _plain(value)]
        case Not(item):
            return {"not": _document(item)}
        case And(items):
            return {"and": [_document(item) for item in items]}
        case Or(items):
            return {"or": [_document(item) for item in items]}


def _plain(value: Any) -> Any:
    """A value with its type: the text of a date and the date are two terms."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    name = type(value).__name__
    return {name: value.isoformat() if name != "Decimal" else str(value)} if name in _READ else value


def _filter(doc: Any) -> Filter:
    if isinstance(doc, bool):
        return EVERY_ROW if doc else NO_ROW
    if isinstance(doc, list):
        return Comparison(doc[0], doc[1], _value(doc[2]))
    ((word, inner),) = doc.items()
    if word == "not":
        item = _filter(inner)
        return Not(item) if isinstance(item, Comparison) else NO_ROW
    items = tuple(_filter(item) for item in inner)
    return And(items) if word == "and" else Or(items)


def _value(doc: Any) -> Any:
    if isinstance(doc, list):
        return tuple(_value(item) for item in doc)
    if isinstance(doc, dict):
        ((name, text),) = doc.items()
        return _READ[name](text)
    return doc
