"""Decodes the events of one entity, batch by batch: by columns where that is the same, one by one where it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bus.contracts.codec import Codec
from bus.contracts.registry import SchemaSource
from bus.core.contracts import Contract, Json
from bus.core.events import NEVER
from bus.errors import NotFound
from bus.views.decoding import columns as convert
from bus.views.decoding.batches import Batch, Booleans, Chosen, Integers, Record
from bus.views.decoding.envelopes import Envelopes, sequences, source_time
from bus.views.decoding.events import PREFIX, Fetched, Listed, Work
from bus.views.decoding.keys import key_texts


@dataclass(frozen=True, slots=True)
class _Rows:
    """The good events of a batch by columns. ``indices``: their places among its records."""

    indices: Integers
    columns: dict[str, pa.Array]
    live: Booleans
    stated: Integers
    sequence: Integers


class Decoder:
    """Decodes the events of one entity. Raises `RegistryUnavailable` for an unknown schema id while nobody can say
    whose it is; everything that is wrong with an event itself is in `Batch.refused`."""

    def __init__(self, contract: Contract, registry: SchemaSource) -> None:
        self._contract = contract
        self._registry = registry
        self._codecs: dict[int, Codec] = {}
        self._keys = tuple(field for name in contract.key for field in contract.fields if field.name == name)
        self._version = contract.field(contract.version) if contract.version else None
        self._envelopes = Envelopes(contract, self._keys)

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
        events = records if isinstance(records, Fetched) else Listed(records)
        work = Work(topic, partition, self._contract.id, events)
        for index in np.flatnonzero(np.isin(events.offsets, list(banned))).tolist() if banned else ():
            work.refuse(index, "value", "a record of the schema", "bytes that end the process that decodes them")
        self._envelopes.check(work)
        rows = self._rows(work)
        every = len(rows.indices) == len(events)
        return Batch(
            topic=topic,
            partition=partition,
            entity=self._contract.id,
            base=base,
            next_offset=next_offset,
            offsets=events.offsets[rows.indices],
            keys=events.keys if every else events.keys.take(pa.array(rows.indices)),
            live=rows.live,
            stated=rows.stated,
            sequence=rows.sequence,
            columns=rows.columns,
            records=Chosen(events, rows.indices),
            appended_ms=events.timestamps[rows.indices],
            refused=[work.refused[index] for index in sorted(work.refused)],
            source_time_ms=source_time(events),
            end_offset=end_offset,
            read_ms=read_ms,
        )

    def _rows(self, work: Work) -> _Rows:
        """The good events in the order of offsets, upserts and deletes together."""
        indices, columns = self._decode_values(work)
        self._check_columns(work, indices, columns)
        deletes = self._envelopes.deletes(work)
        sequence = sequences(work)
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
        return _Rows(indices, columns, live, stated, sequence[indices])

    def _decode_values(self, work: Work) -> tuple[Integers, dict[str, pa.Array]]:
        """Decodes by schema: the indices of what could be decoded, in order, and their columns."""
        wanted = ~work.records.deletes
        wanted[list(work.refused)] = False
        groups = work.records.prefixes(np.flatnonzero(wanted))
        parts = [
            part for prefix, found in groups.items() if (part := self._decode_group(work, prefix, found)) is not None
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
        self, work: Work, prefix: bytes, indices: Integers
    ) -> tuple[Integers, dict[str, pa.Array]] | None:
        codec = self._codec(work, prefix, indices)
        if codec is None:
            return None
        decoded = codec.decode_batch(work.records.bodies(indices))
        for bad in decoded.bad:
            work.refuse(int(indices[bad.index]), "value", "a record of the schema", bad.reason)
        good = indices[np.asarray(decoded.good, np.int64)]
        columns = {}
        for field in self._contract.fields:
            columns[field.name], unread = convert.column(decoded.batch, field, self._contract)
            for place in unread:
                work.refuse(int(good[place]), field.name, str(field.kind), "a value not readable as such")
        return good, columns

    def schema_of(self, prefix: bytes) -> Json | None:
        """The schema that the first bytes of a value name; None if they name none of this entity."""
        schema_id = int.from_bytes(prefix[1:PREFIX], "big")
        return self._registry.schema(schema_id) if schema_id in self._registry.ids(self._contract.id) else None

    def _codec(self, work: Work, prefix: bytes, indices: Integers) -> Codec | None:
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

    def _refuse_all(self, work: Work, indices: Integers, expected: str, received: str) -> None:
        for index in indices.tolist():
            work.refuse(index, "value", expected, received)

    def _check_columns(self, work: Work, indices: Integers, columns: Mapping[str, pa.Array]) -> None:
        """Refuses values that no database can keep, and records that are not what their key says."""
        for field in self._contract.fields:
            for place, why in convert.unfit(field, columns[field.name]):
                work.refuse(int(indices[place]), field.name, *why)
        stated = work.records.keys
        if len(indices) < len(stated):
            stated = stated.take(pa.array(indices))
        own = key_texts([columns[field.name] for field in self._keys], self._keys)
        differ = pc.fill_null(pc.not_equal(own, stated), True)
        for place in np.flatnonzero(differ.to_numpy(zero_copy_only=False)).tolist():
            work.refuse(int(indices[place]), "key", "the key of the value", "another key")

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
