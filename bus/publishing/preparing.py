"""Records made ready for Kafka: checked against the contract, encoded, keyed, each with its partition.

By columns where a row needs no closer look, row by row else; both give the same bytes, keys and refusals.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bus.contracts.codec import Codec
from bus.contracts.columns import ColumnCheck
from bus.contracts.keys import key_of, record_keys
from bus.contracts.registry import SchemaSource, canonical
from bus.contracts.validation import Validator, Violation
from bus.contracts.wire import MAX_EVENT_BYTES, prefix
from bus.core.contracts import Contract
from bus.core.events import record_key, version_number
from bus.errors import RegistryUnavailable
from bus.publishing.events import Delete, Refused
from bus.publishing.partitions import partitions_of

TOO_LARGE: Final = "(size)"  # the field of the reason that an event is too large


@dataclass(frozen=True, slots=True)
class Prepared:
    """Events in the order of their records. ``values[i]`` is None for a delete; ``deletes`` has the
    ``ce_version`` (or None) of those rows."""

    keys: list[bytes]
    values: list[bytes | None]
    partitions: npt.NDArray[np.int64]
    deletes: Mapping[int, int | None]
    refused: list[tuple[Any, Refused]]


@dataclass(frozen=True, slots=True)
class _Event:
    key: str
    value: bytes | None
    version: int | None = None


class Preparer:
    """Everything that is needed to write events of one contract version."""

    def __init__(self, contract: Contract, schema_id: int) -> None:
        self.contract = contract
        self._prefix = prefix(schema_id)
        self._validator = Validator(contract)
        self._check = ColumnCheck(self._validator)
        self._codec = Codec(contract.schema)

    def upsert(self, record: Any) -> _Event | tuple[Violation, ...]:
        """One record as an event, or why the contract refuses it."""
        faults = self._validator.violations(record)
        if faults:
            return tuple(faults)
        whole = self._validator.normal(record)
        return _sized(_Event(key_of(self.contract, whole), self._prefix + self._codec.encode(whole)))

    def delete(self, key: Mapping[str, Any], version: Any) -> _Event | tuple[Violation, ...]:
        """The deletion of one record as an event, or why the contract refuses it."""
        faults = self._validator.key_violations(key)
        number, fault = self._version(version)
        if fault is not None:
            faults.append(fault)
        if faults:
            return tuple(faults)
        whole = self._validator.normal_key(key)
        return _sized(_Event(record_key(whole), None, number))

    def prepare(self, records: Sequence[Any], *, first_line: int, partitions: int) -> Prepared:
        """Many records, in their order. ``partitions``: how many the topic has."""
        checked = self._check.columns(records)
        good = np.flatnonzero(~checked.doubt)
        keys, values = self._by_columns(checked.batch, good, len(records))
        deletes: dict[int, int | None] = {}
        refused = []
        for index in map(int, np.flatnonzero(checked.doubt)):
            event = self._one(records[index])
            if isinstance(event, tuple):
                refused.append((records[index], Refused(first_line + index, event)))
                continue
            keys[index], values[index] = event.key.encode(), event.value
            if event.value is None:
                deletes[index] = event.version
        refused += self._oversize(keys, values, records, first_line)
        return _packed(keys, values, deletes, refused, partitions)

    def _one(self, record: Any) -> _Event | tuple[Violation, ...]:
        if isinstance(record, Delete):
            return self.delete(record.key, record.version)
        return self.upsert(record)

    def _by_columns(
        self, batch: pa.RecordBatch, good: npt.NDArray[np.int64], count: int
    ) -> tuple[list[bytes | None], list[bytes | None]]:
        keys: list[bytes | None] = [None] * count
        values: list[bytes | None] = [None] * count
        if not len(good):
            return keys, values
        rows = batch if len(good) == count else batch.take(pa.array(good))
        strict = self._check.strict(rows)
        made_keys: list[bytes | None] = record_keys(self.contract, strict).cast(pa.binary()).to_pylist()
        made_values: list[bytes | None] = [self._prefix + value for value in self._codec.encode_batch(strict)]
        if len(good) == count:
            return made_keys, made_values
        for index, key, value in zip(good.tolist(), made_keys, made_values, strict=True):
            keys[index], values[index] = key, value
        return keys, values

    def _oversize(
        self, keys: list[bytes | None], values: list[bytes | None], records: Sequence[Any], first_line: int
    ) -> list[tuple[Any, Refused]]:
        found = []
        for index, (key, value) in enumerate(zip(keys, values, strict=True)):
            if key is not None and (size := len(key) + len(value or b"")) > MAX_EVENT_BYTES:
                found.append((records[index], Refused(first_line + index, (_too_large(size),))))
                keys[index] = values[index] = None
        return found

    def _version(self, version: Any) -> tuple[int | None, Violation | None]:
        """A delete's version as the integer that its header carries (deletes carry a version: K1)."""
        name = self.contract.version
        if name is None:
            if version is None:
                return None, None
            return None, Violation("(version)", "none: the contract has no bus.version", repr(version))
        field = self.contract.field(name)
        if not isinstance(version, int | dt.date) or isinstance(version, bool) or field is None:
            return None, Violation(name, "the deleted record's version", repr(version))
        expected = self._validator.rule(name).broken(version)
        if expected is not None:
            return None, Violation(name, expected, repr(version))
        return version_number(version), None


def preparer_for(source: SchemaSource, contract: Contract) -> Preparer:
    """The preparer for the newest contract of an entity, with the id that the registry gave to its schema."""
    wanted = canonical(contract.schema)
    for schema_id in sorted(source.ids(contract.id), reverse=True):
        if canonical(source.schema(schema_id)) == wanted:
            return Preparer(contract, schema_id)
    raise RegistryUnavailable(f"The registry names no schema id for the contract of {contract.id}. Try again.")


def _sized(event: _Event) -> _Event | tuple[Violation, ...]:
    """The event if Kafka takes one so large: key and value count."""
    size = len(event.key.encode()) + len(event.value or b"")
    return event if size <= MAX_EVENT_BYTES else (_too_large(size),)


def _too_large(size: int) -> Violation:
    return Violation(TOO_LARGE, f"an event of at most {MAX_EVENT_BYTES} bytes", f"{size} bytes")


def _packed(
    keys: list[bytes | None],
    values: list[bytes | None],
    deletes: Mapping[int, int | None],
    refused: list[tuple[Any, Refused]],
    partitions: int,
) -> Prepared:
    """Only the rows that are events: a refused one has no key."""
    refused.sort(key=lambda pair: pair[1].line)
    if refused:
        kept = [index for index, key in enumerate(keys) if key is not None]
        places = {index: place for place, index in enumerate(kept)}
        deletes = {places[index]: version for index, version in deletes.items()}
        keys, values = [keys[index] for index in kept], [values[index] for index in kept]
    present = [key for key in keys if key is not None]
    return Prepared(present, values, partitions_of(pa.array(present, pa.binary()), partitions), deletes, refused)
