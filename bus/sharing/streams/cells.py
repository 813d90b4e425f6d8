"""Single values of a view as Avro bytes, masked for a reader.

An Avro record is its fields one after another, so a column that many consumers see alike is masked and encoded once,
and each of their records is a concatenation.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import fastavro

from bus.contracts.physical import to_bytes, unscaled
from bus.core.columns import Column
from bus.core.contracts import Kind
from bus.core.masks import Mask, apply_mask, shown_kind
from bus.sharing.formats import document

NULL: Final = b"\x00"
_PRESENT: Final = b"\x02"  # the second branch of ["null", type]
_AVRO: Final[Mapping[Kind, Any]] = {
    Kind.TEXT: "string",
    Kind.INTEGER: "long",
    Kind.NUMBER: "double",
    Kind.BOOLEAN: "boolean",
    Kind.DATE: {"type": "int", "logicalType": "date"},
    Kind.TIMESTAMP: {"type": "long", "logicalType": "timestamp-micros"},
    Kind.BYTES: "bytes",
    Kind.DECIMAL: "bytes",
    Kind.NESTED: "string",
}
Encode = Callable[[Any], bytes]


@dataclass(frozen=True, slots=True)
class Cell:
    """A column as one reader sees it: equal for readers who see it alike. ``place``: in the view's rows; ``key``: the
    consumer's, where its values are hashed, else empty."""

    place: int
    kind: Kind
    scale: int | None
    mask: tuple[str, str] | None
    key: bytes


def cell(place: int, column: Column, mask: Mask | None, key: bytes) -> Cell:
    """The cell of a column under a mask, or none."""
    told = (mask.kind, repr(mask.argument)) if mask else None
    return Cell(place, column.kind, column.scale, told, key if mask and mask.kind == "hash" else b"")


def encoder(column: Column, mask: Mask | None, key: bytes) -> Encode:
    """From a value of the view to the Avro bytes of ``["null", type]`` as `bus.core.shares.share_schema` states it."""
    kind = shown_kind(mask, column.kind)
    scale, schema = column.scale or 0, fastavro.parse_schema(_AVRO[kind])

    def encode(value: Any) -> bytes:
        value = apply_mask(value, mask, key)
        if value is None:
            return NULL
        if kind is Kind.DECIMAL:
            value = to_bytes(unscaled(value, scale), None)
        elif kind is Kind.NESTED:
            value = document(value).decode()
        out = io.BytesIO(_PRESENT)
        out.seek(1)
        fastavro.schemaless_writer(out, schema, value)
        return out.getvalue()

    return encode
