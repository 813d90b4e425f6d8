"""Of each record in a batch the newest event, and how many events came too late."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from bus.core.events import NEVER
from bus.views.decoding.batches import Batch, Booleans, Integers

Version = tuple[int, ...]  # stated, sequence, offset, partition


@dataclass(frozen=True, slots=True)
class Newest:
    """``events``: index of the newest event of each record. ``ordered``: whether offsets alone decide, so that nothing
    can come late. ``records``: for each event the number of its record."""

    events: Integers
    records: Integers
    ordered: bool


def joined(batches: Sequence[Batch]) -> list[Batch]:
    """Batches of several partitions of one topic as one, for what looks at records only: a statement for each partition
    costs a small batch more than its events. They stay apart where a record is in two of them (which one is late
    depends on the order of partitions then), and so does an empty one."""
    parts = [batch for batch in batches if len(batch)]
    if len(parts) < 2:
        return parts
    keys = [part.keys.unique() for part in parts]
    if len(pa.concat_arrays(keys).unique()) < sum(map(len, keys)):
        return parts
    numbers = ("offsets", "live", "stated", "sequence", "appended_ms")
    together: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in numbers}
    names = parts[0].columns
    return [
        dataclasses.replace(
            parts[0],
            **together,
            keys=pa.concat_arrays([part.keys for part in parts]),
            columns={name: pa.concat_arrays([part.columns[name] for part in parts]) for name in names},
            partitions=np.concatenate([part.places for part in parts]),
            records=parts[0].records.of(np.zeros(len(parts[0]), np.bool_)),
            refused=(),
        )
    ]


def newest(batch: Batch) -> Newest:
    """The newest event of each record by (stated, sequence, offset)."""
    records = batch.keys.dictionary_encode().indices.to_numpy().astype(np.int64)
    count = int(records.max()) + 1 if len(records) else 0
    last = np.empty(count, np.int64)
    ordered = bool((batch.stated == NEVER).all() and (batch.sequence == NEVER).all())
    order = np.arange(len(records)) if ordered else np.lexsort((batch.offsets, batch.sequence, batch.stated))
    last[records[order]] = order  # of equal indices numpy keeps the last
    return Newest(np.sort(last), records, ordered)


def without_sequence(batch: Batch, sequenced: bool) -> tuple[Booleans, bool]:
    """Which events lack a sequence although one was seen before them in their partition; and whether one was now.

    Null would be older than all, so such an event would be lost without a word.
    """
    has = batch.sequence != NEVER
    if not has.any():
        return np.full(len(has), sequenced, np.bool_), sequenced
    seen = np.logical_or.accumulate(has) | sequenced
    return ~has & seen, True


def stale(batch: Batch, found: Newest, known: Mapping[Version, Version]) -> int:
    """How many events were older than what had been applied before them. ``known``: by the version of a record's
    newest event in the batch, the version that the table had, both with their partitions: so they are unique."""
    parts = (batch.stated, batch.sequence, batch.offsets, batch.places)
    versions = list(zip(*(part.tolist() for part in parts), strict=True))
    highest: dict[int, Version] = {}
    for event in found.events.tolist():
        if versions[event] in known:
            highest[int(found.records[event])] = known[versions[event]]
    late = 0
    for version, record in zip(versions, found.records.tolist(), strict=True):
        before = highest.get(record)
        if before is not None and version <= before:
            late += 1
        else:
            highest[record] = version
    return late


def overtaken(found: Newest, batch: Batch, events: Collection[tuple[int, int]]) -> int:
    """How many events of a batch in which offsets alone decide were late: all those of the records whose newest event,
    one of these (offset, partition), was older than what the table had. It happens where a record is in two
    partitions."""
    places = zip(batch.offsets.tolist(), batch.places.tolist(), strict=True)
    late = found.records[[index for index, place in enumerate(places) if place in events]]
    return int(np.isin(found.records, late).sum())


def selected(batch: Batch, kept: Any) -> Batch:
    """The batch with only these good events. ``kept``: a boolean array."""
    mask = pa.array(kept)
    return dataclasses.replace(
        batch,
        offsets=batch.offsets[kept],
        keys=batch.keys.filter(mask),
        live=batch.live[kept],
        stated=batch.stated[kept],
        sequence=batch.sequence[kept],
        appended_ms=batch.appended_ms[kept],
        columns={name: column.filter(mask) for name, column in batch.columns.items()},
        records=batch.records.of(kept),
        known=None if batch.known is None else batch.known[kept],
    )
