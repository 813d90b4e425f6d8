"""What one value of a field must be: the rules that the row-by-row and the column checks share."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from bus.contracts.physical import base_name, decimal_of
from bus.core.contracts import FieldContract, Kind
from bus.core.identifiers import IDENTIFIERS

FLOAT32_MAX: Final = 3.4028234663852886e38
Rule = tuple[str, Callable[[Any], bool]]  # what is expected, and whether a value is that
EXACT_TYPES: Final[dict[Kind, type]] = {
    Kind.TEXT: str,
    Kind.INTEGER: int,
    Kind.NUMBER: float,
    Kind.BOOLEAN: bool,
    Kind.DATE: dt.date,
    Kind.TIMESTAMP: dt.datetime,
    Kind.DECIMAL: decimal.Decimal,
    Kind.BYTES: bytes,
}


@dataclass(frozen=True, slots=True)
class FieldRules:
    """The rules of one field. ``form``: its type and range; ``stated``: what the owner adds by ``bus.`` attributes.

    A value is checked in this order; the first rule that it breaks is the reason.
    """

    field: FieldContract
    form: tuple[Rule, ...]
    stated: tuple[Rule, ...]
    filled: bool = False  # text that may not be empty

    def broken(self, value: Any) -> str | None:
        """What was expected of a value that is not null, or None where it keeps every rule."""
        for expected, holds in (*self.form, *self.stated):
            if not holds(value):
                return expected
        return "text that is not empty" if self.filled and not value else None


def rules_of(field: FieldContract, *, is_key: bool) -> FieldRules:
    """The rules of a field. Key fields may not be empty text: nobody could tell such a key from a missing one."""
    return FieldRules(field, tuple(_form(field)), tuple(_stated(field)), is_key and field.kind is Kind.TEXT)


def _form(field: FieldContract) -> Iterator[Rule]:
    match field.kind:
        case Kind.TEXT:
            yield from _text(field)
        case Kind.INTEGER:
            yield from _integer(field)
        case Kind.NUMBER:
            yield from _number(field)
        case Kind.BOOLEAN:
            yield "true or false", lambda value: isinstance(value, bool)
        case Kind.DATE:
            yield "a date", lambda value: isinstance(value, dt.date) and not isinstance(value, dt.datetime)
        case Kind.TIMESTAMP:
            yield from _timestamp(field)
        case Kind.DECIMAL:
            yield from _decimal(field)
        case Kind.BYTES:
            yield from _bytes(field)
        case Kind.NESTED:
            yield from ()  # `validation` checks nested values whole, with the Avro library


def _text(field: FieldContract) -> Iterator[Rule]:
    yield "text", lambda value: isinstance(value, str)
    yield "text of Unicode characters without U+0000", is_storable
    if base_name(field.avro) == "enum":
        symbols = tuple(field.avro["symbols"])
        yield f"one of {_list(symbols)}", symbols.__contains__
    elif isinstance(field.avro, dict) and field.avro.get("logicalType") == "uuid":
        yield "a UUID such as 123e4567-e89b-12d3-a456-426614174000", _is_uuid


def _integer(field: FieldContract) -> Iterator[Rule]:
    yield "a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)
    limit = 2 ** (field.bits - 1)
    yield f"a whole number of at most {field.bits} bits", lambda value: -limit <= value < limit


def _number(field: FieldContract) -> Iterator[Rule]:
    yield "a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool)
    largest = FLOAT32_MAX if base_name(field.avro) == "float" else 1.7976931348623157e308
    yield "a finite number", lambda value: math.isfinite(_float(value)) and abs(_float(value)) <= largest


def _timestamp(field: FieldContract) -> Iterator[Rule]:
    yield "an instant with its time zone", lambda value: isinstance(value, dt.datetime) and value.tzinfo is not None
    yield "an instant of the years 1 to 9999 in UTC", _in_calendar
    if field.avro["logicalType"] == "timestamp-millis":
        yield "an instant in whole milliseconds", lambda value: value.microsecond % 1000 == 0


def _decimal(field: FieldContract) -> Iterator[Rule]:
    precision, scale = decimal_of(field.avro)
    yield "a decimal number", lambda value: isinstance(value, decimal.Decimal) and value.is_finite()
    yield (
        f"at most {precision} digits, {scale} of them after the point",
        lambda value: fits_decimal(value, precision, scale),
    )


def _bytes(field: FieldContract) -> Iterator[Rule]:
    yield "bytes", lambda value: isinstance(value, bytes)
    if base_name(field.avro) == "fixed":
        size = int(field.avro["size"])
        yield f"{size} bytes", lambda value: len(value) == size


def _stated(field: FieldContract) -> Iterator[Rule]:
    if field.values is not None:
        yield f"one of {_list(field.values)}", frozenset(field.values).__contains__
    if field.pattern is not None:
        matches = re.compile(field.pattern).fullmatch
        yield f"text of the form {field.pattern}", lambda value: matches(value) is not None
    if field.identifier is not None:
        yield f"a valid {field.identifier.replace('_', ' ')}", IDENTIFIERS[field.identifier]
    low, high = limit_of(field, field.minimum), limit_of(field, field.maximum)
    if low is not None:
        yield f"at least {low}", lambda value: value >= low
    if high is not None:
        yield f"at most {high}", lambda value: value <= high


def limit_of(field: FieldContract, limit: Any) -> Any:
    """``bus.min`` or ``bus.max`` as a value of the field's kind. Raises ValueError where it is none."""
    if limit is None:
        return None
    if field.kind is Kind.DATE:
        return dt.date.fromisoformat(str(limit))
    if field.kind is Kind.TIMESTAMP:
        instant = dt.datetime.fromisoformat(str(limit))
        if instant.tzinfo is None:
            raise ValueError(f"{limit} has no time zone")
        return instant
    if isinstance(limit, bool) or not isinstance(limit, int | float | str):
        raise ValueError(f"{limit!r} is not a number")
    if field.kind is Kind.INTEGER:
        return _whole(limit)
    try:
        return decimal.Decimal(str(limit)) if field.kind is Kind.DECIMAL else float(limit)
    except decimal.InvalidOperation as error:
        raise ValueError(f"{limit!r} is not a number") from error


def _whole(limit: float | str) -> int:
    number = decimal.Decimal(str(limit))
    if number != number.to_integral_value() or abs(number) >= 2**63:
        raise ValueError(f"{limit} is not a whole number of 64 bits")
    return int(number)


def is_storable(text: str) -> bool:
    """No lone surrogates (UTF-8 has none), no U+0000 (PostgreSQL's text has none)."""
    try:
        return b"\x00" not in text.encode()
    except UnicodeEncodeError:
        return False


def fits_decimal(value: decimal.Decimal, precision: int, scale: int) -> bool:
    """Whether the value can be kept exactly: trailing zeros may be cut or added, digits may not."""
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or abs(exponent) > 2 * precision + len(digits):
        return value == 0
    shift = exponent + scale
    number = int("".join(map(str, digits)))
    if shift < 0:
        number, rest = divmod(number, 10**-shift)
        return bool(rest == 0 and number < 10**precision)
    return bool(number * 10**shift < 10**precision)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _in_calendar(value: dt.datetime) -> bool:
    try:
        value.astimezone(dt.UTC)
    except OverflowError:
        return False
    return True


def _is_uuid(value: str) -> bool:
    try:
        return str(uuid.UUID(value)) == value.lower()
    except ValueError:
        return False


def _list(values: tuple[Any, ...]) -> str:
    shown = ", ".join(map(str, values[:20]))
    return f"{shown}, …" if len(values) > 20 else shown
