"""How a contract's fields are laid out: the schema that the Avro libraries are given, and the Arrow columns.

Logical types that a library gets wrong are taken away before it sees the schema, and put back here:
``decimal`` (silently rounded on read, E22), ``uuid`` and ``time-*`` (pyruhvro panics).
"""

from __future__ import annotations

import decimal
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from bus.core.contracts import Contract, FieldContract, Json, Kind, kind_of

UTC_MICROS: Final = pa.timestamp("us", "UTC")
_ARROW: Final[Mapping[Kind, pa.DataType]] = {
    Kind.TEXT: pa.string(),
    Kind.INTEGER: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.DATE: pa.date32(),
    Kind.TIMESTAMP: UTC_MICROS,
    Kind.BYTES: pa.binary(),
    Kind.NESTED: pa.string(),
}
_STRIPPED: Final = ("uuid", "time-millis", "time-micros", "decimal")
_FAST: Final = (Kind.TEXT, Kind.INTEGER, Kind.NUMBER, Kind.BOOLEAN, Kind.DATE, Kind.TIMESTAMP)


def decimal_of(avro: Any) -> tuple[int, int]:
    """Precision and scale of a decimal type."""
    return int(avro["precision"]), int(avro.get("scale", 0))


def arrow_type(avro: Any) -> pa.DataType:
    """The Arrow type of a field's Avro type without its null branch. Nested values are JSON text."""
    kind = kind_of(avro)
    if kind is Kind.DECIMAL:
        return pa.decimal128(*decimal_of(avro))
    if kind is Kind.INTEGER and base_name(avro) == "int":
        return pa.int32()
    return _ARROW[kind]


def arrow_schema(contract: Contract) -> pa.Schema:
    """The columns of a contract's record batches, in the order of its fields."""
    return pa.schema([pa.field(field.name, arrow_type(field.avro), field.nullable) for field in contract.fields])


def base_name(avro: Any) -> str:
    """The Avro type under a logical type: ``int`` for a date."""
    while isinstance(avro, Mapping) and isinstance(avro.get("type"), Mapping):
        avro = avro["type"]
    return str(avro.get("type")) if isinstance(avro, Mapping) else str(avro)


def physical_schema(schema: Json) -> dict[str, Any]:
    """The schema without ``bus.`` attributes and without the logical types that the bus converts itself."""
    fields = [{"name": field["name"], "type": _physical(field["type"])} for field in schema["fields"]]
    named = {name: schema[name] for name in ("name", "namespace") if name in schema}
    return {"type": "record", **named, "fields": fields}


def _physical(avro: Any) -> Any:
    if isinstance(avro, list):
        return [_physical(branch) for branch in avro]
    if not isinstance(avro, Mapping):
        return avro
    if isinstance(avro.get("type"), Mapping):
        return _physical(avro["type"])
    if avro.get("logicalType") in _STRIPPED:
        left = {name: value for name, value in avro.items() if name in ("type", "name", "namespace", "size")}
        return left["type"] if len(left) == 1 else left
    return dict(avro)


def is_flat(fields: tuple[FieldContract, ...]) -> bool:
    """Whether the fast decoder knows every type: anything else makes it panic (it was tried type by type)."""
    return all(field.kind in _FAST for field in fields)


def unscaled(value: decimal.Decimal, scale: int) -> int:
    """A decimal as the integer that Avro keeps: 1.25 at scale 2 is 125."""
    sign, digits, exponent = value.as_tuple()
    number: int = int("".join(map(str, digits))) * 10 ** (int(exponent) + scale)
    return -number if sign else number


def scaled(number: int, scale: int) -> decimal.Decimal:
    """The inverse of `unscaled`; exact, whatever the precision of the current context."""
    sign = 1 if number < 0 else 0
    return decimal.Decimal((sign, tuple(map(int, str(abs(number)))), -scale))


def to_bytes(number: int, size: int | None) -> bytes:
    """Two's complement, big-endian: as short as it may be, or ``size`` bytes for a fixed."""
    length = size or ((number if number >= 0 else ~number).bit_length() // 8 + 1)
    return number.to_bytes(length, "big", signed=True)
