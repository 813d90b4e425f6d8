"""Record keys between their text and their typed values, whole columns at once."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from bus.core.contracts import FieldContract, Kind
from bus.core.events import NEVER, record_key, split_key, version_number
from bus.views.decoding.columns import DIGITS, INT64_MAX, integer, scale_of

_VECTORISED: Final = (Kind.TEXT, Kind.INTEGER, Kind.BOOLEAN, Kind.DATE)


def _part_texts(values: pa.Array, kind: Kind) -> pa.Array:
    if kind is not Kind.TEXT:
        return values.cast(pa.string())
    if not pc.any(pc.match_substring_regex(values, r"[|\\]")).as_py():
        return values
    return pc.replace_substring(pc.replace_substring(values, "\\", "\\\\"), "|", "\\|")


def key_texts(columns: Sequence[pa.Array], fields: Sequence[FieldContract]) -> pa.Array:
    """The record key of every row as UTF-8 bytes, as `core.events.record_key` writes it; null where a part is null."""
    if not all(field.kind in _VECTORISED for field in fields):
        rows = zip(*(column.to_pylist() for column in columns), strict=True)
        texts = [None if None in row else record_key(row).encode() for row in rows]
        return pa.array(texts, pa.binary())
    parts = [_part_texts(column, field.kind) for column, field in zip(columns, fields, strict=True)]
    joined = parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, "|")
    return joined.cast(pa.binary())


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text]


def _integer(text: str) -> int:
    number = int(text)
    if not -INT64_MAX - 1 <= number <= INT64_MAX:
        raise ValueError(text)
    return number


def _decimal(text: str, field: FieldContract) -> Decimal:
    """A decimal at the field's own scale (1.5 is not how 1.50 is written) that both databases can hold."""
    value = Decimal(text)
    if value.as_tuple().exponent != -scale_of(field) or len(value.as_tuple().digits) > DIGITS:
        raise ValueError(text)
    if value.is_zero() and value.is_signed():
        raise ValueError(text)
    return value


def _text(text: str) -> str:
    if "\x00" in text:
        raise ValueError("U+0000")
    return text


_PARSERS: Final[Mapping[Kind, Callable[[str], Any]]] = {
    Kind.TEXT: _text,
    Kind.INTEGER: _integer,
    Kind.BOOLEAN: _boolean,
    Kind.DATE: dt.date.fromisoformat,
    Kind.TIMESTAMP: dt.datetime.fromisoformat,
}


def _parsed(text: str, field: FieldContract) -> Any:
    return _decimal(text, field) if field.kind is Kind.DECIMAL else _PARSERS[field.kind](text)


def parse_key(text: bytes, fields: Sequence[FieldContract]) -> tuple[Any, ...] | None:
    """The typed key of a record key; None if it is not one, written exactly as `record_key` writes it."""
    try:
        decoded = text.decode()
        parts = split_key(decoded)
        if len(parts) != len(fields):
            return None
        key = tuple(_parsed(part, field) for field, part in zip(fields, parts, strict=True))
        return key if record_key(key) == decoded else None
    except (ValueError, KeyError, OverflowError, InvalidOperation):
        return None


def parse_version(text: bytes | None, field: FieldContract | None) -> int | None:
    """The version that a delete states; `NEVER` where the contract has none. None: it has, and the delete lacks it.

    It is an integer, or the field's value in ISO 8601.
    """
    if field is None:
        return NEVER
    if text is None:
        return None
    number = integer(text)
    if number is not None or field.kind is Kind.INTEGER:
        return number
    try:
        value = _PARSERS[field.kind](text.decode())
        return version_number(value)
    except (ValueError, TypeError):  # a naive instant cannot be compared
        return None
