"""From records to Avro bytes and back, one at a time or as Arrow record batches.

Batches take the fast path (pyruhvro) where every type of the schema is one that it reads rightly. It is not trusted
further than that: what it decoded is encoded again, and every event whose bytes then differ (bytes left over, an
integer out of range, an over-long number: E19) is judged by the slow path, as is every event that it refuses.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import avro.errors
import avro.io
import avro.schema
import fastavro
import numpy as np
import pyarrow as pa

from bus.contracts.columns import out_of_calendar
from bus.contracts.fast import FastPath, raise_unless_of_rust, sample
from bus.contracts.physical import (
    arrow_type,
    decimal_of,
    is_flat,
    physical_schema,
    scaled,
    to_bytes,
    unscaled,
)
from bus.contracts.wire import frame, unframe
from bus.core.contracts import Contract, FieldContract, Json, Kind, parse_contract
from bus.errors import ContractViolation

__all__ = ["Bad", "Codec", "Decoded", "frame", "unframe"]

_BISECT_TO = 8  # below this many events, one by one is as quick as another try of the fast path
_INT32 = range(-(2**31), 2**31)
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class Bad:
    """An event of a batch that could not be decoded: its place in what was given, and why."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """The good events as a record batch; ``good[i]`` is the place of its row i in what was given."""

    batch: pa.RecordBatch
    good: list[int]
    bad: list[Bad]


class Codec:
    """Reads and writes events of one schema version. No wire prefix: see `wire`. Safe to use from several threads."""

    def __init__(self, schema: Json) -> None:
        self.contract: Contract = parse_contract(schema)
        self.arrow = pa.schema([pa.field(f.name, arrow_type(f.avro), f.nullable) for f in self.contract.fields])
        self._physical = physical_schema(schema)
        self._parsed = fastavro.parse_schema(self._physical)
        self._fast = FastPath(self.contract.fields, self.arrow, self._physical)
        self._reference: Any = None
        decimals = (field for field in self.contract.fields if field.kind is Kind.DECIMAL)
        self._decimals = {field.name: (decimal_of(field.avro)[1], field.avro.get("size")) for field in decimals}
        self.fast = is_flat(self.contract.fields) and self._probe()

    def _probe(self) -> bool:
        """Whether the fast path reads and writes a record of this schema as the slow one does."""
        samples = [sample(self.contract.fields, nulls=nulls) for nulls in (False, True)]
        try:
            values = [self.encode(sample) for sample in samples]
            batch = self._fast.read(values)
            return batch.to_pylist() == samples and self._fast.write(batch) == values
        except BaseException as error:
            raise_unless_of_rust(error)
            return False

    # One at a time

    def encode(self, record: dict[str, Any]) -> bytes:
        """The Avro bytes of a record that keeps the contract (see `validation`). Raises `ContractViolation`."""
        out = io.BytesIO()
        try:
            fastavro.schemaless_writer(out, self._parsed, self._to_physical(record), strict=True)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, IndexError) as error:
            raise self._violation("a record that can be encoded", f"{error}") from error
        return out.getvalue()

    def decode(self, data: bytes) -> dict[str, Any]:
        """The record in the Avro bytes, with Python values by `Kind`. Raises `ContractViolation`."""
        stream = io.BytesIO(data)
        try:
            record = fastavro.schemaless_reader(stream, self._parsed, None)
            if stream.tell() != len(data):
                raise self._violation("the end of the event", f"{len(data) - stream.tell()} bytes left over")
            if not self._is_canonical(record, data):
                self._decode_by_reference(data)
        except ContractViolation:
            raise
        except Exception as error:  # whatever a library makes of random bytes; nothing is lost: it is the reason
            raise self._violation("Avro of this schema", f"{type(error).__name__}: {error}") from error
        return self._from_physical(record)

    def _is_canonical(self, record: Any, data: bytes) -> bool:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self._parsed, record, strict=True)
        return out.getvalue() == data

    def _decode_by_reference(self, data: bytes) -> None:
        """Unusual bytes may still be Avro (maps in blocks, padded numbers). Avro's own reader refuses what is not."""
        if self._reference is None:
            self._reference = avro.schema.make_avsc_object(self._physical)
        decoder = avro.io.BinaryDecoder(io.BytesIO(data))
        avro.io.DatumReader(self._reference).read(decoder)

    def _to_physical(self, record: dict[str, Any]) -> dict[str, Any]:
        if not self._decimals:
            return record
        changed = dict(record)
        for name, (scale, size) in self._decimals.items():
            if record.get(name) is not None:
                changed[name] = to_bytes(unscaled(record[name], scale), size)
        return changed

    def _from_physical(self, record: Any) -> dict[str, Any]:
        for field in self.contract.fields:
            value = record[field.name]
            if value is not None:
                record[field.name] = self._checked(field, value)
        return dict(record)

    def _checked(self, field: FieldContract, value: Any) -> Any:
        if field.kind is Kind.DECIMAL:
            return self._decimal(field, value)
        if field.kind is Kind.INTEGER and value not in (_INT32 if field.bits == 32 else _INT64):
            raise self._violation(f"an integer of {field.bits} bits", str(value), field.name)
        if field.kind is Kind.TEXT and "\x00" in value:
            raise self._violation("text without U+0000", "text with U+0000", field.name)
        return value

    def _decimal(self, field: FieldContract, value: bytes) -> Any:
        precision, scale = decimal_of(field.avro)
        number = int.from_bytes(value, "big", signed=True)
        if abs(number) >= 10**precision:
            raise self._violation(f"at most {precision} digits", f"{len(str(abs(number)))} digits", field.name)
        return scaled(number, scale)

    def _violation(self, expected: str, received: str, field: str = "(value)") -> ContractViolation:
        return ContractViolation(entity=self.contract.id, field=field, expected=expected, received=received[:200])

    # Batches

    def decode_batch(self, values: Sequence[bytes]) -> Decoded:
        """Decodes what can be decoded, in the order given; the rest is in ``bad``, each with its reason."""
        batches: list[pa.RecordBatch] = []
        good: list[int] = []
        bad: list[Bad] = []
        for part, places, faults in self._parts(list(values), 0):
            batches.append(part)
            good += places
            bad += faults
        table = pa.Table.from_batches(batches, self.arrow).combine_chunks()
        whole = table.to_batches()
        return Decoded(whole[0] if whole else self._rows([]), good, bad)

    def _parts(self, values: list[bytes], start: int) -> Iterator[tuple[pa.RecordBatch, list[int], list[Bad]]]:
        if not self.fast or len(values) <= _BISECT_TO:
            yield self._one_by_one(values, start)
            return
        try:
            batch = self._fast.read(values)
            doubtful = self._doubtful(batch, values)
        except BaseException as error:
            raise_unless_of_rust(error)
            middle = len(values) // 2
            yield from self._parts(values[:middle], start)
            yield from self._parts(values[middle:], start + middle)
            return
        yield from self._around(batch, values, start, doubtful)

    def _around(
        self, batch: pa.RecordBatch, values: list[bytes], start: int, doubtful: list[int]
    ) -> Iterator[tuple[pa.RecordBatch, list[int], list[Bad]]]:
        """The fast path's rows, with the doubtful ones decided one by one in their places."""
        done = 0
        for index in doubtful:
            yield batch.slice(done, index - done), list(range(start + done, start + index)), []
            yield self._one_by_one(values[index : index + 1], start + index)
            done = index + 1
        yield batch.slice(done), list(range(start + done, start + len(values))), []

    def _doubtful(self, batch: pa.RecordBatch, values: list[bytes]) -> list[int]:
        """Rows whose bytes the fast path does not write again as they were, or whose values nobody can hold."""
        doubt = np.zeros(len(values), dtype=bool)
        # Joined first: comparing two strings costs a fifth of comparing two columns.
        written = self._fast.write(batch)
        if b"".join(written) != b"".join(values) or list(map(len, written)) != list(map(len, values)):
            doubt |= np.fromiter((a != b for a, b in zip(written, values, strict=True)), dtype=bool, count=len(values))
        for column in batch.columns:
            doubt |= out_of_calendar(column)
        return [int(index) for index in np.flatnonzero(doubt)]

    def _one_by_one(self, values: Sequence[bytes], start: int) -> tuple[pa.RecordBatch, list[int], list[Bad]]:
        records, good, bad = [], [], []
        for index, value in enumerate(values, start):
            try:
                records.append(self.decode(value))
                good.append(index)
            except ContractViolation as violation:
                bad.append(Bad(index, violation.detail))
        return self._rows(records), good, bad

    def _rows(self, records: list[dict[str, Any]]) -> pa.RecordBatch:
        columns = []
        for field, arrow_field in zip(self.contract.fields, self.arrow, strict=True):
            column = [record[field.name] for record in records]
            if field.kind is Kind.NESTED:
                column = [None if value is None else as_json_text(value) for value in column]
            columns.append(pa.array(column, arrow_field.type))
        return pa.RecordBatch.from_arrays(columns, schema=self.arrow)

    def encode_batch(self, batch: pa.RecordBatch) -> list[bytes]:
        """The Avro bytes of each row. The batch has this codec's columns (`arrow`) and keeps the contract.

        Raises ValueError for other columns, for a null where there may be none, and for nested columns,
        which are JSON text here and only `encode` can write.
        """
        if not batch.schema.equals(self.arrow):
            raise ValueError(f"columns {batch.schema} are not those of {self.contract.id}: {self.arrow}")
        batch.validate(full=True)
        if any(field.kind is Kind.NESTED for field in self.contract.fields):
            raise ValueError(f"{self.contract.id} has nested fields: encode its records one by one")
        for field, column in zip(self.contract.fields, batch.columns, strict=True):
            if column.null_count and not field.nullable:
                raise ValueError(f"'{field.name}' of {self.contract.id} may not be null")
        return self._fast.write(batch) if self.fast else [self.encode(record) for record in batch.to_pylist()]


def as_json_text(value: Any) -> str:
    """A nested value as JSON: dates and instants in ISO 8601, decimals as text, bytes in hexadecimal."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=_json_default)


def _json_default(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)
