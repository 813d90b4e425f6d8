"""Events of one partition, decoded once for all views that read them: columns, keys, versions, what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, overload

import numpy as np
import pyarrow as pa

from bus.contracts.quarantine import Quarantined

Integers = np.ndarray[Any, np.dtype[np.int64]]
Booleans = np.ndarray[Any, np.dtype[np.bool_]]


class Record(Protocol):
    """What is used of a consumed record (aiokafka's ConsumerRecord has it)."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class Place(Protocol):
    """Where events come from."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def entity(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Coded:
    """One header of every record: ``texts[codes[i]]`` is the i-th record's, None where it has none."""

    codes: Integers
    texts: Sequence[bytes | None]


class Columnar(Protocol):
    """All records of a batch, by record and by column."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Record: ...
    def header(self, name: str) -> Coded:
        """The last header of that name of each record."""


class Chosen(Sequence[Record]):
    """Some of the records of a batch (``rows``: which), made into objects only when somebody asks."""

    def __init__(self, records: Columnar, rows: Integers) -> None:
        self._records, self._rows = records, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return Chosen(self._records, self._rows[index])
        return self._records[int(self._rows[index])]

    def header(self, name: str) -> Coded:
        """The last header of that name (one of `parsing.NEEDED`) of each record."""
        coded = self._records.header(name)
        return Coded(coded.codes[self._rows], coded.texts)

    def of(self, kept: Booleans) -> Chosen:
        """Those where ``kept`` is true."""
        return Chosen(self._records, self._rows[kept])


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one partition in the order of offsets, from ``base`` up to but not including ``next_offset``.

    All arrays are of the good events only. ``columns``: by the contract's field, null for deletes but in the key.
    ``stated`` and ``sequence`` are the first two parts of the version (`NEVER` for null). ``appended_ms``: when each
    event reached the topic, by the broker's clock. ``end_offset``: where the
    partition ended when this was read; ``read_ms``: when that was. ``records``: as they were consumed; ``known``: since
    when the bus has each event, in milliseconds, where a view's history asks for it. ``partitions``: of each event,
    where `newest.joined` put several partitions together.
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
    records: Chosen
    appended_ms: Integers
    refused: Sequence[Quarantined]
    source_time_ms: int | None = None
    end_offset: int = 0
    read_ms: int = 0
    known: Integers | None = None
    partitions: Integers | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def places(self) -> Integers:
        """The partition of each event."""
        return np.full(len(self), self.partition, np.int64) if self.partitions is None else self.partitions

    def quarantined(self, index: int, field: str, expected: str, received: str) -> Quarantined:
        """The good event at ``index``, set aside after all."""
        key, offset = self.keys[index].as_py(), int(self.offsets[index])
        return quarantined(self, offset, key, self.records[index].value, reason_of(field, expected, received))


def reason_of(field: str, expected: str, received: str) -> dict[str, str]:
    """A reason as quarantine keeps it."""
    return {"field": field, "expected": expected, "received": received}


def quarantined(
    place: Place, offset: int, key: bytes | None, value: bytes | None, reason: dict[str, str]
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
