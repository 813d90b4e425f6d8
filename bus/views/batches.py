"""Events of one partition, decoded once for all views that read them: columns, keys, versions, what is refused."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bus.contracts.codec import Codec
from bus.contracts.quarantine import Quarantined
from bus.contracts.registry import SchemaSource
from bus.core.contracts import Contract, Json
from bus.core.events import NEVER
from bus.errors import NotFound
from bus.views import columns as convert
from bus.views.keys import key_texts, parse_key, parse_version

PREFIX: Final = 5  # a zero byte and the schema's id in four
Integers = np.ndarray[Any, np.dtype[np.int64]]
Booleans = np.ndarray[Any, np.dtype[np.bool_]]


class Record(Protocol):
    """What is used of aiokafka's ConsumerRecord."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one partition in the order of offsets, from ``base`` up to but not including ``next_offset``.

    All arrays are of the good events only. ``columns``: by the contract's field, null for deletes but in the key.
    ``stated`` and ``sequence`` are the first two parts of the version (`NEVER` for null). ``end_offset``: where the
    partition ended when this was read; ``read_ms``: when that was.
    """

    topic: str
    partition: int
    entity: str
    base: int
    next_offset: int
    offsets: Integers
    keys: pa.Array
    live: Booleans
    stated: Integers
    sequence: Integers
    columns: Mapping[str, pa.Array]
    values: Sequence[bytes | None]
    refused: Sequence[Quarantined]
    source_time_ms: int | None = None
    end_offset: int = 0
    read_ms: int = 0

    def __len__(self) -> int:
        return len(self.offsets)

    def quarantined(self, index: int, field: str, expected: str, received: str) -> Quarantined:
        """The good event at ``index``, set aside after all."""
        key, offset = self.keys[index].as_py(), int(self.offsets[index])
        return _quarantined(self, offset, key, self.values[index], _reason(field, expected, received))


def _reason(field: str, expected: str, received: str) -> dict[str, str]:
    return {"field": field, "expected": expected, "received": received}


def _quarantined(
    place: Batch | _Work, offset: int, key: bytes | None, value: bytes | None, reason: dict[str, str]
) -> Quarantined:
    return Quarantined(
        origin="topic",
        entity=place.entity,
        reasons=[reason],
        topic=place.topic,
        partition=place.partition,
        offset=offset,
        key=key.decode("utf-8", "backslashreplace") if key is not None else None,
        payload=value,
    )


class _Work:
    """One batch while it is decoded: which events are refused, and why."""

    def __init__(self, topic: str, partition: int, entity: str, records: Sequence[Record]) -> None:
        self.topic, self.partition, self.entity, self.records = topic, partition, entity, records
        self.refused: dict[int, Quarantined] = {}

    def refuse(self, index: int, field: str, expected: str, received: str) -> None:
        record = self.records[index]
        if index not in self.refused:
            reason = _reason(field, expected, received)
            self.refused[index] = _quarantined(self, record.offset, record.key, record.value, reason)


class Decoder:
    """Decodes the events of one entity. Raises `RegistryUnavailable` for an unknown schema id while nobody can say
    whose it is; everything that is wrong with an event itself is in `Batch.refused`."""

    def __init__(self, contract: Contract, registry: SchemaSource) -> None:
        self._contract = contract
        self._registry = registry
        self._codecs: dict[int, Codec] = {}
        self._keys = tuple(field for name in contract.key for field in contract.fields if field.name == name)
        self._version = contract.field(contract.version) if contract.version else None
        self._operations: dict[tuple[bytes | None, bytes | None], str | tuple[str, str, str]] = {}

    def decode(
        self,
        topic: str,
        partition: int,
        records: Sequence[Record],
        *,
        base: int,
        next_offset: int,
        end_offset: int = 0,
        read_ms: int = 0,
        banned: frozenset[int] = frozenset(),
    ) -> Batch:
        """The batch of ``records``, which are all that the partition has in ``[base, next_offset)``. ``banned``:
        offsets not to be decoded, since that ends the process."""
        work = _Work(topic, partition, self._contract.id, records)
        headers = [dict(record.headers) for record in records]
        for index, record in enumerate(records if banned else ()):
            if record.offset in banned:
                work.refuse(index, "value", "a record of the schema", "bytes that end the process that decodes them")
        self._check_envelopes(work, headers)
        indices, columns = self._decode_values(work)
        self._check_columns(work, indices, columns)
        deletes = self._deletes(work, headers)
        sequence = _sequences(work, headers)
        stated = self._stated(columns, len(indices))
        live = np.ones(len(indices), np.bool_)
        if deletes:
            columns = self._with_deletes(columns, [key for _, key, _ in deletes])
            indices = np.concatenate([indices, np.array([index for index, _, _ in deletes], np.int64)])
            stated = np.concatenate([stated, np.array([version for _, _, version in deletes], np.int64)])
            live = np.concatenate([live, np.zeros(len(deletes), np.bool_)])
        if deletes or work.refused:
            kept = np.flatnonzero(~np.isin(indices, np.fromiter(work.refused, np.int64, len(work.refused))))
            order = kept[np.argsort(indices[kept], kind="stable")]
            columns = {name: column.take(pa.array(order)) for name, column in columns.items()}
            indices, stated, live = indices[order], stated[order], live[order]
        good = records if len(indices) == len(records) else [records[index] for index in indices.tolist()]
        return Batch(
            topic=topic,
            partition=partition,
            entity=self._contract.id,
            base=base,
            next_offset=next_offset,
            offsets=np.fromiter((record.offset for record in good), np.int64, len(good)),
            keys=pa.array([record.key for record in good], pa.binary()),
            live=live,
            stated=stated,
            sequence=sequence[indices],
            columns=columns,
            values=[record.value for record in good],
            refused=[work.refused[index] for index in sorted(work.refused)],
            source_time_ms=_source_time(records, headers),
            end_offset=end_offset,
            read_ms=read_ms,
        )

    def _check_envelopes(self, work: _Work, headers: Sequence[Mapping[str, bytes]]) -> None:
        for index, (record, header) in enumerate(zip(work.records, headers, strict=True)):
            envelope = (header.get("ce_source"), header.get("ce_type"))
            operation = self._operations.get(envelope)
            if operation is None:
                operation = self._operations[envelope] = self._operation(*envelope)
            if isinstance(operation, tuple):
                work.refuse(index, *operation)
            elif (operation == "delete") is not (record.value is None):
                work.refuse(
                    index, "ce_type", "upsert with a value, delete without", str(envelope[1] or b"", "utf-8", "replace")
                )
            elif record.key is None:
                work.refuse(index, "key", "the record's key", "null")

    def _operation(self, source: bytes | None, kind: bytes | None) -> str | tuple[str, str, str]:
        """``upsert`` or ``delete``; or field, expected and received of an envelope that is not the topic owner's."""
        own = f"/{self._contract.department}"
        stated = str(source or b"", "utf-8", "replace")
        if stated != own and not stated.startswith(f"{own}/"):
            return "ce_source", f"producer_mismatch: {own} or a path below it", stated or "null"
        entity, _, operation = str(kind or b"", "utf-8", "replace").rpartition(".")
        if entity != self._contract.id or operation not in ("upsert", "delete"):
            return "ce_type", f"producer_mismatch: {self._contract.id}.upsert or .delete", f"{entity}.{operation}"
        return operation

    def _decode_values(self, work: _Work) -> tuple[Integers, dict[str, pa.Array]]:
        """Decodes by schema: the indices of what could be decoded, in order, and their columns."""
        by_prefix: dict[bytes, list[int]] = {}
        for index, record in enumerate(work.records):
            if record.value is not None and index not in work.refused:
                by_prefix.setdefault(record.value[:PREFIX], []).append(index)
        parts = [
            part for prefix, found in by_prefix.items() if (part := self._decode_group(work, prefix, found)) is not None
        ]
        if not parts:
            empty = {field.name: pa.nulls(0, convert.arrow_type(field)) for field in self._contract.fields}
            return np.empty(0, np.int64), empty
        indices = np.concatenate([part[0] for part in parts])
        if len(parts) == 1:
            return parts[0]
        order = np.argsort(indices, kind="stable")
        names = [field.name for field in self._contract.fields]
        merged = {name: pa.concat_arrays([part[1][name] for part in parts]).take(pa.array(order)) for name in names}
        return indices[order], merged

    def _decode_group(
        self, work: _Work, prefix: bytes, indices: Sequence[int]
    ) -> tuple[Integers, dict[str, pa.Array]] | None:
        codec = self._codec(work, prefix, indices)
        if codec is None:
            return None
        decoded = codec.decode_batch([(work.records[index].value or b"")[PREFIX:] for index in indices])
        for bad in decoded.bad:
            work.refuse(indices[bad.index], "value", "a record of the schema", bad.reason)
        good = np.asarray(indices, np.int64)[np.asarray(decoded.good, np.int64)]
        columns = {}
        for field in self._contract.fields:
            try:
                columns[field.name] = convert.column(decoded.batch, field, self._contract)
            except pa.ArrowException as error:
                for index in good.tolist():
                    work.refuse(index, field.name, str(field.kind), f"not readable as such: {error}")
                return None
        return good, columns

    def schema_of(self, prefix: bytes) -> Json | None:
        """The schema that the first bytes of a value name; None if they name none of this entity."""
        schema_id = int.from_bytes(prefix[1:PREFIX], "big")
        return self._registry.schema(schema_id) if schema_id in self._registry.ids(self._contract.id) else None

    def _codec(self, work: _Work, prefix: bytes, indices: Sequence[int]) -> Codec | None:
        if len(prefix) < PREFIX or prefix[0] != 0:
            self._refuse_all(work, indices, "0 and a schema id in front", f"0x{prefix.hex()}")
            return None
        schema_id = int.from_bytes(prefix[1:], "big")
        if schema_id in self._codecs:
            return self._codecs[schema_id]
        if schema_id not in self._registry.ids(self._contract.id):
            try:
                self._registry.schema(schema_id)
            except NotFound:
                self._refuse_all(work, indices, "a schema id of the registry", str(schema_id))
                return None
            self._refuse_all(work, indices, f"a schema of {self._contract.subject}", f"schema {schema_id} of another")
            return None
        codec = self._codecs[schema_id] = Codec(self._registry.schema(schema_id))
        return codec

    def _refuse_all(self, work: _Work, indices: Sequence[int], expected: str, received: str) -> None:
        for index in indices:
            work.refuse(index, "value", expected, received)

    def _check_columns(self, work: _Work, indices: Integers, columns: Mapping[str, pa.Array]) -> None:
        """Refuses values that no database can keep, and records that are not what their key says."""
        for field in self._contract.fields:
            for place, why in convert.unfit(field, columns[field.name]):
                work.refuse(int(indices[place]), field.name, *why)
        stated = pa.array([work.records[index].key for index in indices.tolist()], pa.binary())
        own = key_texts([columns[field.name] for field in self._keys], self._keys)
        differ = pc.fill_null(pc.not_equal(own, stated), True)
        for place in np.flatnonzero(differ.to_numpy(zero_copy_only=False)).tolist():
            work.refuse(int(indices[place]), "key", "the key of the value", "another key")

    def _deletes(self, work: _Work, headers: Sequence[Mapping[str, bytes]]) -> list[tuple[int, tuple[Any, ...], int]]:
        """Of each delete its index, its key as Python values, and the version it states."""
        found = []
        for index, record in enumerate(work.records):
            if record.value is not None or index in work.refused:
                continue
            key = parse_key(record.key or b"", self._keys)
            version = parse_version(headers[index].get("ce_version"), self._version)
            if key is None:
                work.refuse(index, "key", "|".join(self._contract.key), "not such a key")
            elif version is None:
                work.refuse(index, "ce_version", f"'{self._contract.version}' of the record", "null or not readable")
            else:
                found.append((index, key, version))
        return found

    def _stated(self, columns: Mapping[str, pa.Array], count: int) -> Integers:
        if self._version is None:
            return np.full(count, NEVER, np.int64)
        return convert.version_numbers(columns[self._version.name])

    def _with_deletes(self, columns: Mapping[str, pa.Array], keys: Sequence[tuple[Any, ...]]) -> dict[str, pa.Array]:
        """The columns with a row for each delete: its key, else null."""
        parts: dict[str, pa.Array] = {
            field.name: pa.array([key[index] for key in keys], convert.arrow_type(field))
            for index, field in enumerate(self._keys)
        }
        return {
            field.name: pa.concat_arrays(
                [columns[field.name], parts.get(field.name, pa.nulls(len(keys), convert.arrow_type(field)))]
            )
            for field in self._contract.fields
        }


def _sequences(work: _Work, headers: Sequence[Mapping[str, bytes]]) -> Integers:
    """``ce_sequence`` of every event, `NEVER` where there is none."""
    stated = [header.get("ce_sequence") for header in headers]
    found = np.full(len(stated), NEVER, np.int64)
    for index, text in enumerate(stated):
        if text is None:
            continue
        number = convert.integer(text)
        if number is None:
            work.refuse(index, "ce_sequence", "an integer of 64 bits", str(text, "utf-8", "replace"))
        else:
            found[index] = number
    return found


def _source_time(records: Sequence[Record], headers: Sequence[Mapping[str, bytes]]) -> int | None:
    """When the newest event happened: what it says itself, else when it reached the topic."""
    if not records:
        return None
    stated = headers[-1].get("ce_time")
    try:
        if stated is not None:
            return int(dt.datetime.fromisoformat(stated.decode()).timestamp() * 1_000)
    except ValueError:  # a time that cannot be read orders nothing: the broker's will do
        return records[-1].timestamp
    return records[-1].timestamp
