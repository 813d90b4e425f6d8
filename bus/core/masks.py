"""Masks: how a field is shown in part. A null stays null; what a mask hides never leaves the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bus.core import names
from bus.core.contracts import Kind
from bus.errors import BadFilter

MASKED: Final = "***"
_TEXT: Final = (Kind.TEXT,)
_TIME: Final = (Kind.DATE, Kind.TIMESTAMP)
_NUMERIC: Final = (Kind.INTEGER, Kind.NUMBER, Kind.DECIMAL)
APPLIES: Final[Mapping[str, tuple[Kind, ...]]] = {
    "constant": tuple(kind for kind in Kind if kind is not Kind.NESTED),
    "keep_first": _TEXT,
    "keep_last": _TEXT,
    "hash": (Kind.TEXT, Kind.INTEGER),
    "year": _TIME,
    "month": _TIME,
    "round": _NUMERIC,
    "prefix": _TEXT,
}
COUNTED: Final = ("keep_first", "keep_last", "round", "prefix")


@dataclass(frozen=True, slots=True)
class Mask:
    """One mask: its kind and its argument (a count, a constant, or True)."""

    kind: str
    argument: Any

    def as_fact(self) -> dict[str, Any]:
        return {self.kind: self.argument}


def parse_mask(doc: Any, field: str) -> Mask:
    """The mask that ``{keep_first: 3}`` or the like states. Raises `BadFilter`."""
    if not isinstance(doc, Mapping) or len(doc) != 1:
        raise BadFilter(why=f"the mask of '{field}' needs one of {', '.join(APPLIES)}.")
    ((kind, argument),) = doc.items()
    if kind not in APPLIES:
        raise BadFilter(why=f"'{kind}' is not a mask. {names.nearest(str(kind), APPLIES)}")
    if kind in COUNTED and (isinstance(argument, bool) or not isinstance(argument, int)):
        raise BadFilter(why=f"the mask '{kind}' of '{field}' needs a whole number.")
    if kind in COUNTED and kind != "round" and argument < 0:
        raise BadFilter(why=f"the mask '{kind}' of '{field}' needs a number of characters from 0.")
    if kind in ("hash", "year", "month") and argument is not True:
        raise BadFilter(why=f"the mask '{kind}' of '{field}' takes only `true`.")
    if kind == "constant" and not isinstance(argument, str | int | float | bool):
        raise BadFilter(why=f"the constant of '{field}' is text, a number, true or false.")
    return Mask(str(kind), argument)


def check_mask(mask: Mask, field: str, kind: Kind) -> None:
    """Raises `BadFilter` where the mask does not apply to the field's kind."""
    if kind not in APPLIES[mask.kind]:
        raise BadFilter(why=f"the mask '{mask.kind}' does not apply to '{field}', which is {kind}.")
