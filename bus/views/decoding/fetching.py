"""Takes what aiokafka fetched before it makes an object of every record: chunks of records by columns.

aiokafka stays the transport (connections, leaders, offsets, errors, prefetching). Only the two classes that its
fetcher hands a partition's bytes to are replaced, for one consumer: `getmany` then gives chunks, not records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any, Final

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.codec import gzip_decode, has_gzip, has_lz4, has_snappy, has_zstd, lz4_decode, snappy_decode, zstd_decode
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.memory_records import MemoryRecords

from bus.views.decoding.events import Fetched
from bus.views.decoding.parsing import parse

_FORMAT: Final = (
    2  # of Kafka since 0.11; batches of an older one have no headers, so the bus's events are never in them
)
_HEAD: Final = 61  # bytes before the records of a batch
_CODECS: Final = {
    1: (has_gzip, gzip_decode),
    2: (has_snappy, snappy_decode),
    3: (has_lz4, lz4_decode),
    4: (has_zstd, zstd_decode),
}


class Chunks:
    """What a consumer fetched, in chunks. ``consumer`` has started and has no partitions yet."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self.most = 1
        self._consumer = consumer
        found = consumer._fetcher  # noqa: SLF001
        process = type(found)._proc_fetch_request  # noqa: SLF001
        if not {"MemoryRecords", "PartitionRecords"} <= set(process.__code__.co_names):
            raise TypeError("this version of aiokafka hands records on in another way")
        names = {**vars(fetcher), "MemoryRecords": _Raw, "PartitionRecords": self._partition}
        changed = FunctionType(process.__code__, names, process.__name__, process.__defaults__, process.__closure__)
        found._proc_fetch_request = MethodType(changed, found)  # noqa: SLF001
        if not isinstance(found._fetch_max_wait_ms, int):  # noqa: SLF001
            raise TypeError("this version of aiokafka keeps the longest wait of a fetch elsewhere")

    def let_wait(self, longest_ms: int) -> None:
        """How long the broker may hold fetches from the next one on."""
        self._consumer._fetcher._fetch_max_wait_ms = longest_ms  # noqa: SLF001

    async def take(self, *partitions: TopicPartition, most: int, timeout_ms: int) -> dict[TopicPartition, Fetched]:
        """At most one chunk, of at most ``most`` events, of any of the partitions. Raises what `getmany` raises."""
        self.most = most
        taken = await self._consumer.getmany(*partitions, timeout_ms=timeout_ms, max_records=1)
        found: dict[TopicPartition, Fetched] = {partition: chunk for partition, (chunk,) in taken.items()}
        for partition, chunk in found.items():
            if chunk.last:  # aiokafka fetches on only when it was asked once more than there is
                await self._consumer.getmany(partition, timeout_ms=0, max_records=1)
        return found

    def _partition(self, *arguments: Any) -> _Partition:
        return _Partition(self, *arguments)


class Unreadable(Exception):
    """An event of ``partition`` that no client of the bus can read: its headers' names, or how it is compressed."""

    def __init__(self, partition: TopicPartition, cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.partition = partition


class _Raw(MemoryRecords):  # type: ignore[misc]
    """The batches of one partition in a response; keeps the bytes, which aiokafka's own does not give out."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


@dataclass(frozen=True, slots=True)
class _Section:
    """One batch as it lies in the topic. ``appended``: the broker's time for all its records, if it sets the time."""

    base: int
    after: int
    count: int
    first: int
    appended: int | None
    records: bytes


class _Partition(fetcher.PartitionRecords):  # type: ignore[misc]
    """Goes through one partition's batches as aiokafka does (checksums, transactions), but yields chunks."""

    next_fetch_offset: int

    def __init__(self, chunks: Chunks, *arguments: Any) -> None:
        self._chunks, self._at = chunks, 0
        super().__init__(*arguments)

    def _unpack_records(self) -> Iterator[Fetched]:
        try:
            yield from self._chunks_of_sections()
        except (UnicodeDecodeError, UnsupportedCodecError) as error:
            raise Unreadable(self._tp, error) from error

    def _chunks_of_sections(self) -> Iterator[Fetched]:
        held: list[_Section] = []
        for section in self._sections():
            if held and sum(one.count for one in held) + section.count > self._chunks.most:
                yield from self._pieces(held)
                held = []
            held.append(section)
            if not self._records.has_next():
                yield from self._pieces(held, last=True)

    def _pieces(self, sections: list[_Section], *, last: bool = False) -> Iterator[Fetched]:
        """The sections as one chunk, or as several where one alone has too many events."""
        whole, after = _fetched(sections), sections[-1].after
        start = int(np.searchsorted(whole.offsets, self.next_fetch_offset))  # of a batch fetched from its middle
        while start < len(whole):
            stop = min(start + self._chunks.most, len(whole))
            chunk = whole.part(start, stop)
            chunk.last = last and stop == len(whole)
            self.next_fetch_offset = after if stop == len(whole) else int(whole.offsets[stop - 1]) + 1
            yield chunk
            start = stop
        self.next_fetch_offset = max(self.next_fetch_offset, after)  # past markers too, which have no events

    def _sections(self) -> Iterator[_Section]:
        """The batches in order; those without events to be read are empty."""
        while self._records.has_next():
            batch = self._records.next_batch()
            data, at = self._records.data, self._at
            self._at += 12 + int.from_bytes(data[at + 8 : at + 12], "big")
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            if batch.magic != _FORMAT:
                raise UnsupportedCodecError(f"batches of format {batch.magic}")
            if self._is_left_out(batch):
                yield _Section(batch.base_offset, batch.next_offset, 0, 0, None, b"")
                continue
            count = int.from_bytes(data[at + 57 : at + 61], "big")
            records = _uncompressed(batch.compression_type, data[at + _HEAD : self._at])
            appended = batch.max_timestamp if batch.timestamp_type else None
            yield _Section(batch.base_offset, batch.next_offset, count, batch.first_timestamp, appended, records)

    def _is_left_out(self, batch: Any) -> bool:
        """Batches of transactions that were aborted, and the markers of all transactions."""
        if self._isolation_level == fetcher.READ_COMMITTED and batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and self._contains_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                return True
        return bool(batch.is_control_batch)


def _uncompressed(kind: int, data: bytes) -> bytes:
    if not kind:
        return data
    has, decode = _CODECS.get(kind, (lambda: False, bytes))
    if not has():
        raise UnsupportedCodecError(f"compression {kind:#04x}")
    return bytes(decode(data))


def _fetched(sections: list[_Section]) -> Fetched:
    """All sections parsed at once: a step of numpy costs as much for 50 records as for 500."""
    data = b"".join(section.records for section in sections)
    counts = np.array([section.count for section in sections])
    parsed = parse(data, int(counts.sum()))
    base, first = ([getattr(section, name) for section in sections] for name in ("base", "first"))
    offsets = np.repeat(np.array(base, np.int64), counts) + parsed.offsets
    timestamps = np.repeat(np.array(first, np.int64), counts) + parsed.times
    appended = np.repeat(np.array([section.appended or 0 for section in sections], np.int64), counts)
    by_broker = np.repeat(np.array([section.appended is not None for section in sections], np.bool_), counts)
    return Fetched(data, parsed, offsets, np.where(by_broker, appended, timestamps))
