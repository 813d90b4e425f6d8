"""Arrow columns as the views keep them: one type for each kind, and only values that both databases can hold."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bus.core.contracts import Contract, FieldContract, Kind
from bus.core.events import NEVER
from bus.views.values import DECIMAL_DIGITS

INT64_MAX: Final = 2**63 - 1
DIGITS: Final = 18  # of a decimal: SQLite keeps it as a scaled integer of 64 bits
_TYPES: Final[Mapping[Kind, pa.DataType]] = {
    Kind.TEXT: pa.string(),
    Kind.INTEGER: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.DATE: pa.date32(),
    Kind.TIMESTAMP: pa.timestamp("us", "UTC"),
    Kind.BYTES: pa.binary(),
    Kind.NESTED: pa.string(),
}
_FIRST_DAY: Final = (dt.date(1, 1, 1) - dt.date(1970, 1, 1)).days
_LAST_DAY: Final = (dt.date(9999, 12, 31) - dt.date(1970, 1, 1)).days
_DAY_US: Final = 86_400_000_000


def scale_of(field: FieldContract) -> int:
    """Digits after the point of a decimal field."""
    return int(field.avro.get("scale", 0)) if field.kind is Kind.DECIMAL else 0


def arrow_type(field: FieldContract) -> pa.DataType:
    """The Arrow type that every column of this kind has in a batch."""
    if field.kind is Kind.DECIMAL:
        return pa.decimal128(DECIMAL_DIGITS, scale_of(field))
    return _TYPES[field.kind]


def integer(text: bytes) -> int | None:
    """A header as an integer of 64 bits; None if it is none (the smallest stands for null)."""
    try:
        number = int(text)
    except ValueError:
        return None
    return number if NEVER < number <= INT64_MAX else None


def column(batch: pa.RecordBatch, field: FieldContract, contract: Contract) -> tuple[pa.Array, list[int]]:
    """The field's column in its type; its default where the schema of the batch does not have it yet. Second: the
    rows whose value an older schema had in another type and this one cannot hold; they are null here.

    A number that is none becomes null and minus zero becomes zero: the databases would differ.
    """
    index = batch.schema.get_field_index(field.name)
    if index < 0:
        return _default(field, contract, batch.num_rows), []
    found, unread = _cast(batch.column(index), arrow_type(field))
    if field.kind is Kind.NUMBER:
        found = pc.if_else(pc.is_nan(found), None, pc.add(found, 0.0))
    return found, unread


def _cast(found: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, list[int]]:
    """The values in another type. Avro promotes a whole number to the nearest floating one; bytes to text if it is."""
    if found.type == wanted:
        return found, []
    if pa.types.is_floating(wanted):
        return found.cast(wanted, safe=False), []
    try:
        return found.cast(wanted), []
    except pa.ArrowInvalid:
        unread = [index for index, value in enumerate(found) if not _casts(value, wanted)]
    mask = np.zeros(len(found), np.bool_)
    mask[unread] = True
    return pc.if_else(pa.array(mask), None, found).cast(wanted), unread


def _casts(value: pa.Scalar, wanted: pa.DataType) -> bool:
    try:
        value.cast(wanted)
    except pa.ArrowInvalid:
        return False
    return True


def _default(field: FieldContract, contract: Contract, count: int) -> pa.Array:
    declared = next(doc for doc in contract.schema["fields"] if doc["name"] == field.name)
    value = declared.get("default")
    if value is None:
        return pa.nulls(count, arrow_type(field))
    return pa.array([_python_default(field, value)] * count, arrow_type(field))


def _python_default(field: FieldContract, value: Any) -> Any:
    """A default as Avro writes it in JSON, as the Python value of the field's kind."""
    match field.kind:
        case Kind.DATE:
            return dt.date(1970, 1, 1) + dt.timedelta(days=value)
        case Kind.TIMESTAMP:
            unit = 1_000 if field.avro.get("logicalType") == "timestamp-millis" else 1
            return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=value * unit)
        case Kind.DECIMAL:
            number = int.from_bytes(value.encode("latin-1"), "big", signed=True)
            return Decimal(number).scaleb(-scale_of(field))
        case Kind.BYTES:
            return value.encode("latin-1")
        case Kind.NESTED:
            return json.dumps(value, ensure_ascii=False)
        case _:
            return value


def unfit(field: FieldContract, values: pa.Array) -> Iterator[tuple[int, tuple[str, str]]]:
    """Values that a database cannot keep: their index, with what was expected and received."""
    if field.kind in (Kind.TEXT, Kind.NESTED):
        yield from _where(pc.match_substring(values, "\x00"), "text without U+0000", "text with U+0000")
    elif field.kind is Kind.DATE:
        days = values.cast(pa.int32())
        outside = pc.or_(pc.less(days, _FIRST_DAY), pc.greater(days, _LAST_DAY))
        yield from _where(outside, "a day of the years 1 to 9999", "a day outside")
    elif field.kind is Kind.TIMESTAMP:
        instants = values.cast(pa.int64())
        outside = pc.or_(pc.less(instants, _FIRST_DAY * _DAY_US), pc.greater_equal(instants, (_LAST_DAY + 1) * _DAY_US))
        yield from _where(outside, "an instant of the years 1 to 9999", "an instant outside")
    elif field.kind is Kind.DECIMAL:
        limit = Decimal(10) ** (DIGITS - scale_of(field))
        outside = pc.greater_equal(pc.abs(values), pa.scalar(limit, values.type))
        yield from _where(outside, f"at most {DIGITS} digits", "more digits")


def _where(found: pa.Array, expected: str, received: str) -> Iterator[tuple[int, tuple[str, str]]]:
    for index in np.flatnonzero(pc.fill_null(found, False).to_numpy(zero_copy_only=False)).tolist():
        yield index, (expected, received)


def version_numbers(values: pa.Array) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A version column as integers: itself, days or microseconds since 1970; `NEVER` for null."""
    if pa.types.is_date32(values.type):
        values = values.cast(pa.int32())
    numbers: np.ndarray[Any, np.dtype[np.int64]] = pc.fill_null(values.cast(pa.int64()), NEVER).to_numpy()
    return numbers
