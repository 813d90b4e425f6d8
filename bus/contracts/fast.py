"""The fast way between Avro bytes and Arrow record batches: pyruhvro, and what it must be told and asked.

It takes flat schemas only, gives instants without a zone and 32-bit floats, and panics (a BaseException) on types
that it does not know; `codec` decides what of it to believe.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyruhvro

from bus.contracts.physical import UTC_MICROS, base_name
from bus.core.contracts import FieldContract, Kind


class FastPath:
    """Reads and writes batches of one flat schema. ``arrow``: the columns as the bus has them."""

    def __init__(self, fields: tuple[FieldContract, ...], arrow: pa.Schema, physical: dict[str, Any]) -> None:
        self._fields = fields
        self._arrow = arrow
        self._text = json.dumps(physical)

    def read(self, values: list[bytes]) -> pa.RecordBatch:
        raw = pyruhvro.deserialize_array(values, self._text)
        columns = [_as_column(column, field.type) for column, field in zip(raw.columns, self._arrow, strict=True)]
        for column in columns:
            if pa.types.is_string(column.type):
                column.validate(full=True)  # text that is not UTF-8 passes the decoder
                if _has_nul(column):
                    raise ValueError("text with U+0000")
        return pa.RecordBatch.from_arrays(columns, schema=self._arrow)

    def write(self, batch: pa.RecordBatch) -> list[bytes]:
        if batch.num_rows == 0:
            return []
        columns = [
            _as_raw(column, base_name(field.avro), _logical(field.avro))
            for column, field in zip(batch.columns, self._fields, strict=True)
        ]
        fields = [
            pa.field(field.name, column.type, field.nullable)
            for field, column in zip(self._fields, columns, strict=True)
        ]
        raw = pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
        parts = pyruhvro.serialize_record_batch(raw, self._text, 1)
        return [value for part in parts for value in part.to_pylist()]


def _logical(avro: Any) -> str | None:
    while isinstance(avro, dict) and isinstance(avro.get("type"), dict):
        avro = avro["type"]
    return avro.get("logicalType") if isinstance(avro, dict) else None


def _as_column(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    """What the fast path gives, in the type of the contract's column: instants get their zone, floats 64 bits."""
    if column.type.equals(wanted):
        return column
    if wanted.equals(UTC_MICROS):
        return column.cast(pa.timestamp("us")).view(UTC_MICROS)
    return column.cast(wanted)


def _as_raw(column: pa.Array, base: str, logical: str | None) -> pa.Array:
    if logical == "timestamp-millis":
        return column.view(pa.timestamp("us")).cast(pa.timestamp("ms"))
    if logical == "timestamp-micros":
        return column.view(pa.timestamp("us"))
    return column.cast(pa.float32()) if base == "float" else column


def _has_nul(column: pa.Array) -> bool:
    data = column.buffers()[2]
    return data is not None and bool((np.frombuffer(data, dtype=np.uint8) == 0).any())


def sample(fields: tuple[FieldContract, ...], *, nulls: bool) -> dict[str, Any]:
    values: dict[Kind, Any] = {
        Kind.TEXT: "é好",
        Kind.INTEGER: -(2**31),
        Kind.NUMBER: -1.5,
        Kind.BOOLEAN: True,
        Kind.DATE: dt.date(1949, 10, 1),
        Kind.TIMESTAMP: dt.datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=dt.UTC),
    }
    return {
        field.name: None
        if nulls and field.nullable
        else field.avro["symbols"][-1]
        if base_name(field.avro) == "enum"
        else values[field.kind]
        for field in fields
    }


def raise_unless_of_rust(error: BaseException) -> None:
    """A Rust panic reaches Python as a BaseException; Ctrl-C and the like are not ours to keep."""
    if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
        raise error
