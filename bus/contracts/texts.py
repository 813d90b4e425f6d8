"""Values that come as text (CSV) or as JSON, turned into the types that a contract's fields hold.

Nothing is guessed: a text that is not exactly a value of the field's kind stays text, and the contract refuses it
with what was received.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import decimal
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from bus.core.contracts import Contract, FieldContract, Kind

_INTEGER: Final = re.compile(r"-?[0-9]{1,40}")
_NUMBER: Final = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TRUTH: Final[Mapping[str, bool]] = {"true": True, "false": False}


def _integer(text: str) -> Any:
    return int(text) if _INTEGER.fullmatch(text) else text


def _number(text: str) -> Any:
    return float(text) if _NUMBER.fullmatch(text) else text


def _boolean(text: str) -> Any:
    return _TRUTH.get(text.lower(), text)


def _date(text: str) -> Any:
    try:
        return dt.date.fromisoformat(text) if _DATE.fullmatch(text) else text
    except ValueError:
        return text


def _timestamp(text: str) -> Any:
    try:
        return dt.datetime.fromisoformat(text) if "T" in text or " " in text else text
    except ValueError:
        return text


def _decimal(text: str) -> Any:
    return decimal.Decimal(text) if _NUMBER.fullmatch(text) else text


def _bytes(text: str) -> Any:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return text


_FROM_TEXT: Final[Mapping[Kind, Callable[[str], Any]]] = {
    Kind.INTEGER: _integer,
    Kind.NUMBER: _number,
    Kind.BOOLEAN: _boolean,
    Kind.DATE: _date,
    Kind.TIMESTAMP: _timestamp,
    Kind.DECIMAL: _decimal,
    Kind.BYTES: _bytes,
}
_TEXT_IN_JSON: Final = (Kind.DATE, Kind.TIMESTAMP, Kind.DECIMAL, Kind.BYTES)


def from_text(field: FieldContract) -> Callable[[str], Any]:
    """How a text becomes a value of the field: ISO 8601 dates and instants, plain numbers, true/false, base64."""
    return _FROM_TEXT.get(field.kind, str)


def from_json(contract: Contract, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as JSON gives it, with text turned into dates, instants, decimals and bytes where the contract
    has these. Fields that the contract does not know stay, for it to refuse."""
    return {name: _json_value(contract.field(str(name)), value) for name, value in record.items()}


def _json_value(field: FieldContract | None, value: Any) -> Any:
    if field is None or field.kind not in _TEXT_IN_JSON:
        return value
    if isinstance(value, str):
        return _FROM_TEXT[field.kind](value)
    if field.kind is Kind.DECIMAL and isinstance(value, int | float) and not isinstance(value, bool):
        return decimal.Decimal(str(value))
    return value
