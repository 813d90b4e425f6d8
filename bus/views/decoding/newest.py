"""Of each record in a batch the newest event, and how many events came too late."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from bus.core.events import NEVER
from bus.views.decoding.batches import Batch, Booleans, Integers


@dataclass(frozen=True, slots=True)
class Newest:
    """``events``: index of the newest event of each record. ``ordered``: whether offsets alone decide, so that nothing
    can come late. ``records``: for each event the number of its record."""

    events: Integers
    records: Integers
    ordered: bool


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


def stale(batch: Batch, found: Newest, known: Mapping[tuple[int, int, int], tuple[int, int, int, int]]) -> int:
    """How many events were older than what had been applied before them. ``known``: by the version of a record's
    newest event in the batch, the version (with its partition) that the table had; within a batch versions are unique
    by offset."""
    versions = list(zip(batch.stated.tolist(), batch.sequence.tolist(), batch.offsets.tolist(), strict=True))
    highest: dict[int, tuple[int, int, int, int]] = {}
    for event in found.events.tolist():
        if versions[event] in known:
            highest[int(found.records[event])] = known[versions[event]]
    late = 0
    for version, record in zip(versions, found.records.tolist(), strict=True):
        before = highest.get(record)
        if before is not None and (*version, batch.partition) <= before:
            late += 1
        else:
            highest[record] = (*version, batch.partition)
    return late


def overtaken(found: Newest, batch: Batch, offsets: Sequence[int]) -> int:
    """How many events of a batch in which offsets alone decide were late: all those of the records whose newest event,
    at one of these offsets, was older than what the table had. It happens where a record is in two partitions."""
    late = found.records[np.isin(batch.offsets, offsets)]
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
