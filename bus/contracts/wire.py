"""The Confluent wire format: a zero byte, the schema id in four bytes, then Avro."""

from __future__ import annotations

import struct
from typing import Final

from bus.errors import ContractViolation

PREFIX: Final = struct.Struct(">bI")
MAX_EVENT_BYTES: Final = 1_048_576 - 4_096  # key and value: the broker's 1 MiB, less the batch's frame and headers


def prefix(schema_id: int) -> bytes:
    """The five bytes before every event written with this schema."""
    return PREFIX.pack(0, schema_id)


def frame(schema_id: int, payload: bytes) -> bytes:
    """An event's value: the prefix and the Avro bytes."""
    return PREFIX.pack(0, schema_id) + payload


def unframe(value: bytes) -> tuple[int, bytes]:
    """The schema id and the Avro bytes of an event's value. Raises `ContractViolation`."""
    if len(value) < PREFIX.size or value[0] != 0:
        raise ContractViolation(
            entity="an event",
            field="(value)",
            expected="a zero byte, a schema id of four bytes, then Avro",
            received=f"{len(value)} bytes" + (f" that begin with {value[0]}" if value else ""),
        )
    return PREFIX.unpack_from(value)[1], value[PREFIX.size :]
