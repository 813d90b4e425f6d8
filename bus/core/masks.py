"""Masks: how a field is shown in part. A null stays null; what a mask hides never leaves the database."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import hmac
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal, localcontext
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
MAX_DIGITS: Final = 18
HASH_DIGITS: Final = 32
EXACT: Final = 2.0**53
"""From here on a float has no digits after the point: rounding it to any is the float itself."""
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
    if kind == "round" and abs(argument) > MAX_DIGITS:
        raise BadFilter(why=f"the mask 'round' of '{field}' takes at most {MAX_DIGITS} digits.")
    if kind in ("hash", "year", "month") and argument is not True:
        raise BadFilter(why=f"the mask '{kind}' of '{field}' takes only `true`.")
    if kind == "constant" and not isinstance(argument, str | int | float | bool):
        raise BadFilter(why=f"the constant of '{field}' is text, a number, true or false.")
    return Mask(str(kind), argument)


def check_mask(mask: Mask, field: str, kind: Kind) -> None:
    """Raises `BadFilter` where the mask does not apply to the field's kind."""
    if kind not in APPLIES[mask.kind]:
        raise BadFilter(why=f"the mask '{mask.kind}' does not apply to '{field}', which is {kind}.")


def shown_kind(mask: Mask | None, kind: Kind) -> Kind:
    """The kind of what a reader gets: a year, a month and a hash are text, a constant is what it is."""
    if mask is None:
        return kind
    if mask.kind in ("hash", "year", "month"):
        return Kind.TEXT
    if mask.kind == "constant":
        kinds = {bool: Kind.BOOLEAN, int: Kind.INTEGER, float: Kind.NUMBER}
        return kinds.get(type(mask.argument), Kind.TEXT)
    return kind


@functools.lru_cache(maxsize=1_000)
def consumer_key(secret: bytes, consumer: str) -> bytes:
    """The key that a consumer's hashes are made with: stable for it, useless to compare with another's."""
    return hmac.digest(secret, b"bus.mask\0" + consumer.encode(), "sha256")


def keyed_hash(key: bytes, text: str) -> str:
    """The first 32 hex digits of HMAC-SHA-256 (RFC 2104)."""
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:HASH_DIGITS]


def _round_decimal(value: Decimal, digits: int) -> Decimal:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or digits >= -exponent:
        return value
    with localcontext(prec=80):  # of the digits of the widest decimal, twice
        step = Decimal(1).scaleb(-digits)
        steps = (value.scaleb(digits) + Decimal("0.5")).to_integral_value(ROUND_FLOOR)
        return (steps * step).quantize(value)


def _round(value: Any, digits: int) -> Any:
    """Half up (toward plus infinity), as floor(x * 10^n + 1/2) / 10^n: the same on every database."""
    if isinstance(value, Decimal):
        return _round_decimal(value, digits)
    if isinstance(value, int):
        if digits >= 0:
            return value
        step_of = int(10**-digits)
        return (2 * value + step_of) // (2 * step_of) * step_of
    scale = 10.0 ** abs(digits)
    if abs(value) >= (EXACT / scale if digits > 0 else EXACT):
        return value
    if digits < 0:
        return math.floor(value / scale + 0.5) * scale
    return math.floor(value * scale + 0.5) / scale


def _month(value: dt.date) -> str:
    day = value.astimezone(dt.UTC) if isinstance(value, dt.datetime) else value
    return f"{day.year:04}-{day.month:02}"


_APPLY: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "constant": lambda _, argument: argument,
    "keep_first": lambda value, count: value[:count] + MASKED if len(value) > count else MASKED,
    "keep_last": lambda value, count: MASKED + value[len(value) - count :] if len(value) > count else MASKED,
    "year": lambda value, _: _month(value)[:4],
    "month": lambda value, _: _month(value),
    "round": _round,
    "prefix": lambda value, count: value[:count],
}


def apply_mask(value: Any, mask: Mask | None, key: bytes = b"") -> Any:
    """What is shown of one Python value: the reference that both databases must equal.

    ``key``: of the consumer, for `hash`. Text is counted in code points; times are in UTC. ``prefix`` is the first
    characters and nothing else, so a shorter value shows whole.
    """
    if value is None or mask is None:
        return value
    if mask.kind == "hash":
        return keyed_hash(key, str(value))
    return _APPLY[mask.kind](value, mask.argument)
