"""A grant in words: its row condition and its masks, in the reader's language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from bus.core.conditions import Atom, Condition, SubjectAttribute, Today
from bus.core.masks import Mask
from bus.web.wording import value as shown

Translate = Callable[[str], str]


def _(text: str) -> str:
    """Marks a text for the catalogue; it is translated when it is used."""
    return text


_ATOMS: Final[Mapping[str, str]] = {
    "eq": _("%(field)s is %(value)s"),
    "ne": _("%(field)s is not %(value)s"),
    "lt": _("%(field)s is below %(value)s"),
    "lte": _("%(field)s is at most %(value)s"),
    "gt": _("%(field)s is above %(value)s"),
    "gte": _("%(field)s is at least %(value)s"),
    "in": _("%(field)s is one of %(value)s"),
    "not_in": _("%(field)s is none of %(value)s"),
    "prefix": _("%(field)s begins with %(value)s"),
    "not_prefix": _("%(field)s does not begin with %(value)s"),
    "missing": _("%(field)s has no value"),
    "present": _("%(field)s has a value"),
}
_MASKS: Final[Mapping[str, str]] = {
    "constant": _("always shown as %(argument)s"),
    "keep_first": _("the first %(argument)s characters, the rest as ***"),
    "keep_last": _("the last %(argument)s characters, the rest as ***"),
    "hash": _("a code, the same for the same value, that no other consumer gets"),
    "year": _("the year only"),
    "month": _("year and month only"),
    "round": _("rounded, digits after the point: %(argument)s"),
    "prefix": _("the first %(argument)s characters only"),
}
_EVERY_ROW: Final = _("every row")
_NO_ROW: Final = _("no row")
_AND: Final = _(" and ")
_OR: Final = _("; or ")
_LISTED: Final = _(", ")
_TODAY: Final = _("the day of asking")
_LATER: Final = _("%(days)s days after the day of asking")
_EARLIER: Final = _("%(days)s days before the day of asking")
_OWN: Final = _("the asking department's own %(name)s")


def rows_in_words(condition: Condition, titles: Mapping[str, str], translate: Translate) -> str:
    """Which rows a condition shows. ``titles``: of the view's columns by name."""
    if not condition.clauses:
        return translate(_NO_ROW)
    clauses = [translate(_AND).join(_atom(atom, titles, translate) for atom in clause) for clause in condition.clauses]
    return translate(_OR).join(clauses) if all(clauses) else translate(_EVERY_ROW)


def mask_in_words(mask: Mask, translate: Translate) -> str:
    """What a mask leaves of a value."""
    return translate(_MASKS[mask.kind]) % {"argument": mask.argument}


def _atom(atom: Atom, titles: Mapping[str, str], translate: Translate) -> str:
    field = titles.get(atom.field, atom.field)
    return translate(_ATOMS[atom.op]) % {"field": field, "value": _value(atom.value, translate)}


def _value(value: Any, translate: Translate) -> str:
    if isinstance(value, tuple):
        return translate(_LISTED).join(_value(item, translate) for item in value)
    if isinstance(value, SubjectAttribute):
        return translate(_OWN) % {"name": value.name}
    if isinstance(value, Today):
        text = _TODAY if value.days == 0 else _LATER if value.days > 0 else _EARLIER
        return translate(text) % {"days": abs(value.days)}
    return shown(value)
