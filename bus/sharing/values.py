"""Values and patterns of a question: from text to the Python type of the field they are compared with."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from bus.core.conditions import as_instant
from bus.core.contracts import Kind
from bus.errors import BadFilter

MAX_PATTERN: Final = 256
MAX_WILDCARDS: Final = 8  # LIKE backtracks: each further `%` multiplies the time of one comparison
ESCAPE: Final = "\\"
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?")
_LIMIT: Final = 2**63


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text) or not -_LIMIT <= int(text) < _LIMIT:
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError(text)
    return float(text)


def _decimal(text: str) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return Decimal(text)


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text]


_READ: Final[Mapping[Kind, tuple[Callable[[str], Any], str]]] = {
    Kind.TEXT: (str, "text"),
    Kind.INTEGER: (_integer, "a whole number"),
    Kind.NUMBER: (_number, "a number"),
    Kind.DECIMAL: (_decimal, "a decimal number"),
    Kind.BOOLEAN: (_boolean, "true or false"),
    Kind.DATE: (dt.date.fromisoformat, "a date as 2026-01-31"),
    Kind.TIMESTAMP: (as_instant, "an instant as 2026-01-31T08:00:00Z (in a URL, + is written %2B)"),
}


def refuse_control(text: str, field: str) -> None:
    """Raises `BadFilter` for NUL and for half characters, which no stored text holds."""
    if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise BadFilter(why=f"the value for '{field}' has a character that text cannot hold.", field=field)


def typed_value(text: str, kind: Kind, field: str) -> Any:
    """``text`` as the Python type of ``kind``. Raises `BadFilter` naming what is expected."""
    refuse_control(text, field)
    if kind not in _READ:
        raise BadFilter(why=f"'{field}' ({kind}) can only be compared with is.null or not.is.null.", field=field)
    read, expected = _READ[kind]
    try:
        return read(text)
    except (ValueError, KeyError, InvalidOperation, OverflowError) as error:
        raise BadFilter(
            why=f"'{field}' is {kind}: expected {expected}, received '{text[:60]}'.", field=field
        ) from error


def like_pattern(text: str, field: str) -> str:
    """The SQL pattern (escape ``\\``) for ``%`` or ``*`` any text, ``_`` one character, ``\\`` escape.

    Raises `BadFilter` for a pattern that is too long, has too many wildcards or ends in its escape.
    """
    refuse_control(text, field)
    if len(text) > MAX_PATTERN:
        raise BadFilter(why=f"the pattern for '{field}' is longer than {MAX_PATTERN} characters.", field=field)
    parts: list[str] = []
    chars = iter(text)
    for char in chars:
        if char == ESCAPE:
            literal = next(chars, None)
            if literal is None:
                raise BadFilter(why=f"the pattern for '{field}' ends in its escape character.", field=field)
            parts.append(ESCAPE + literal if literal in "%_\\" else literal)
        elif char in "*%":
            if not parts or parts[-1] != "%":
                parts.append("%")
        else:
            parts.append(char)
    if parts.count("%") > MAX_WILDCARDS:
        raise BadFilter(why=f"the pattern for '{field}' has more than {MAX_WILDCARDS} wildcards.", field=field)
    return "".join(parts)
