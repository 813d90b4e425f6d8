"""Events of one partition, decoded once for all views that read them: columns, keys, versions, what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from bus.contracts.quarantine import Quarantined

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
    ``stated`` and ``sequence`` are the first two parts of the version (`NEVER` for null). ``appended_ms``: when each
    event reached the topic, by the broker's clock. ``end_offset``: where the
    partition ended when this was read; ``read_ms``: when that was. ``records``: as they were consumed; ``known``: since
    when the bus has each event, in milliseconds, where a view's history asks for it.
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
    appended_ms: Integers
    refused: Sequence[Quarantined]
    source_time_ms: int | None = None
    end_offset: int = 0
    read_ms: int = 0
    records: Sequence[Record] = ()
    known: Integers | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def quarantined(self, index: int, field: str, expected: str, received: str) -> Quarantined:
        """The good event at ``index``, set aside after all."""
        key, offset = self.keys[index].as_py(), int(self.offsets[index])
        return _quarantined(self, offset, key, self.values[index], _reason(field, expected, received))


class Work:
    """The records of one batch while they are decoded: which are refused (by index), and why."""

    def __init__(self, topic: str, partition: int, entity: str, records: Sequence[Record]) -> None:
        self.topic, self.partition, self.entity, self.records = topic, partition, entity, records
        self.refused: dict[int, Quarantined] = {}

    def refuse(self, index: int, field: str, expected: str, received: str) -> None:
        """Sets the record at ``index`` aside; its first reason stays."""
        record = self.records[index]
        if index not in self.refused:
            reason = _reason(field, expected, received)
            self.refused[index] = _quarantined(self, record.offset, record.key, record.value, reason)


def _reason(field: str, expected: str, received: str) -> dict[str, str]:
    return {"field": field, "expected": expected, "received": received}


def _quarantined(
    place: Batch | Work, offset: int, key: bytes | None, value: bytes | None, reason: dict[str, str]
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
