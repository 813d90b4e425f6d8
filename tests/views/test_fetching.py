"""Records read by columns are the records that aiokafka reads one by one, and decode to the same batch."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given, settings
from hypothesis import strategies as st
from views_world import FixedRegistry, schema

from bus.contracts.codec import Codec
from bus.contracts.wire import frame
from bus.views.decoding.batches import Batch
from bus.views.decoding.decoder import Decoder
from bus.views.decoding.events import Fetched
from bus.views.decoding.fetching import Chunks, Unreadable, _Partition, _Raw
from bus.views.decoding.parsing import NEEDED, parse

PLACE = TopicPartition("dept.market.plain", 0)
PLAIN = schema("market", "Plain", ["id"], {"id": "string", "size": ["null", "long"]}, **{"bus.version": "size"})
NAMES = st.sampled_from([*NEEDED, "ce_id", "ce_specversion", "", "é", "x" * 200])
HEADER = st.tuples(NAMES, st.none() | st.binary(max_size=40))
SIZES = st.none() | st.binary(max_size=5) | st.integers(60, 70).map(bytes) | st.just(b"y" * 9_000)
ANY_RECORD = st.tuples(
    st.integers(0, 2**41), SIZES, SIZES, st.lists(HEADER, max_size=6) | st.just([("ce_source", b"/market")])
)


def built(rows: list[tuple[int, Any, Any, Any]], *, base: int = 0, compression: int = 0) -> bytes:
    """One record batch as a broker keeps it."""
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 1 << 30)
    for offset, (timestamp, key, value, headers) in enumerate(rows):
        builder.append(offset, timestamp=timestamp, key=key, value=value, headers=headers)
    data = bytearray(builder.build())
    data[:8] = base.to_bytes(8, "big")  # not under the checksum, since brokers set it
    return bytes(data)


def fetched(*sections: bytes, most: int = 10_000, position: int = 0, checked: bool = True) -> tuple[list[Fetched], Any]:
    chunks = object.__new__(Chunks)
    chunks.most = most
    records = _Raw(b"".join(sections))
    partition = _Partition(chunks, PLACE, records, [], position, None, None, checked, READ_COMMITTED)
    return list(partition), partition


def listed(*sections: bytes, position: int = 0) -> tuple[list[Any], Any]:
    records = MemoryRecords(b"".join(sections))
    partition = PartitionRecords(PLACE, records, [], position, None, None, True, READ_COMMITTED)
    return list(partition), partition


def seen(records: Any) -> list[tuple[Any, ...]]:
    return [(one.offset, one.timestamp, one.key, one.value, [*map(tuple, one.headers)]) for one in records]


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(ANY_RECORD, min_size=1, max_size=30),
    cuts=st.lists(st.integers(1, 29), max_size=3),
    most=st.sampled_from([1, 7, 10_000]),
    compression=st.sampled_from([0, 1, 3, 4]),
    position=st.integers(0, 12),
)
def test_chunks_are_what_aiokafka_reads(
    rows: list[Any], cuts: list[int], most: int, compression: int, position: int
) -> None:
    """Offsets, times, keys, values and headers, however the records are cut into batches and chunks."""
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    position = min(position, edges[1] - 1)  # a broker sends the batch with that offset first
    sections = [built(rows[start:stop], base=start, compression=compression) for start, stop in pairwise(edges)]
    expected, theirs = listed(*sections, position=position)
    chunks, ours = fetched(*sections, most=most, position=position)
    assert seen(record for chunk in chunks for record in chunk) == seen(expected)
    assert ours.next_fetch_offset == theirs.next_fetch_offset
    assert all(0 < len(chunk) <= most for chunk in chunks)
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True] * bool(chunks)
    for name in NEEDED:
        coded = [(one.texts[code], one) for chunk in chunks for one in [chunk.header(name)] for code in one.codes]
        assert [text for text, _ in coded] == [dict(record.headers).get(name) for record in expected]


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ANY_RECORD, min_size=2, max_size=12), cut=st.integers(1, 11))
def test_chunks_one_after_the_other_are_one(rows: list[Any], cut: int) -> None:
    """What was fetched of a partition at two times is read as if it had come at once."""
    cut = min(cut, len(rows) - 1)
    sections = [built(rows[:cut]), built(rows[cut:], base=cut)]
    (first,), _ = fetched(sections[0])
    (later,), _ = fetched(sections[1], position=cut)
    (whole,), _ = fetched(*sections)
    together = first.then(later)
    assert seen(together) == seen(whole) == seen(listed(*sections)[0])
    assert together.keys.equals(whole.keys)
    assert together.deletes.tolist() == whole.deletes.tolist()
    assert together.last
    for name in NEEDED:
        found = [[one.texts[code] for code in one.codes] for one in (together.header(name), whole.header(name))]
        assert found[0] == found[1]


ENVELOPES = st.fixed_dictionaries(
    {"ce_source": st.sampled_from([b"/market"] * 4 + [b"/market/a", b"/food", None])},
    optional={
        "ce_type": st.sampled_from([b"market.plain.upsert"] * 6 + [b"market.plain.delete", b"other", None]),
        "ce_sequence": st.sampled_from([b"7", b" 8", b"-1", b"1_0", b"", b"x", b"9" * 18, b"9" * 19, b"9" * 30, None]),
        "ce_version": st.sampled_from([b"5", b"x", b"9" * 40]),
        "ce_time": st.sampled_from([b"2024-01-01T00:00:00Z", b"never"]),
        "ce_id": st.uuids().map(lambda found: str(found).encode()),
    },
)
VALUES = st.sampled_from(["good"] * 6 + ["none", "short", "other schema", "another key", "broken"])


def event(index: int, envelope: dict[str, Any], kind: str, keyless: bool) -> tuple[int, Any, Any, Any]:
    key = None if keyless else f"k{index % 3}".encode()
    body = Codec(PLAIN).encode({"id": f"k{index % 3}" if kind != "another key" else "z", "size": index})
    values = {"none": None, "short": b"\0\0", "other schema": frame(9, body), "broken": frame(1, body[:-1])}
    return 1_700_000_000_000 + index, key, values.get(kind, frame(1, body)), list(envelope.items())


def outcome(batch: Batch) -> tuple[Any, ...]:
    return (
        batch.offsets.tolist(),
        batch.keys.to_pylist(),
        batch.live.tolist(),
        batch.stated.tolist(),
        batch.sequence.tolist(),
        batch.appended_ms.tolist(),
        {name: column.to_pylist() for name, column in batch.columns.items()},
        seen(batch.records),
        batch.refused,
        batch.source_time_ms,
    )


@settings(max_examples=150, deadline=None)
@given(drawn=st.lists(st.tuples(ENVELOPES, VALUES, st.sampled_from([False] * 9 + [True])), min_size=1, max_size=25))
def test_columns_decode_as_records_do(drawn: list[Any]) -> None:
    """The same good events, versions, refusals and reasons, whatever the headers, keys and values."""
    data = built([event(index, *one) for index, one in enumerate(drawn)])
    registry = FixedRegistry(PLAIN)
    (chunk,), _ = fetched(data)
    records, _ = listed(data)
    decoder = Decoder(registry.contract("market.plain"), registry)
    one, other = (
        outcome(decoder.decode(PLACE.topic, 0, found, base=0, next_offset=len(records))) for found in (chunk, records)
    )
    assert one == other


def test_a_header_name_that_is_no_text_says_where() -> None:
    """aiokafka raises UnicodeDecodeError without a place; here it is raised with the partition."""
    data = built([(1, b"k", b"v", [("ce_id", b"1"), ("grosse", b"2")])]).replace(b"grosse", b"gr\xf6sse")
    with pytest.raises(CorruptRecordException):
        fetched(data)
    with pytest.raises(Unreadable) as raised:
        fetched(data, checked=False)
    assert raised.value.partition == PLACE
    assert "UnicodeDecodeError" in str(raised.value)


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_records_that_do_not_fill_their_batch_are_corrupt(cut: int) -> None:
    """As with aiokafka: the batch is read again, nothing is guessed."""
    raw = built([(1, b"k", b"v" * 10, [("ce_id", b"1")])] * 3)[61:]
    for damaged in (raw[:-cut], raw + b"\0" * cut):
        with pytest.raises(CorruptRecordException):
            parse(damaged, 3)


def test_a_truncated_batch_at_the_end_waits_for_the_next_fetch() -> None:
    """A broker may cut the last batch of a response."""
    rows: list[Any] = [(n, b"k", b"v", []) for n in range(5)]
    whole, cut = built(rows), built(rows, base=5)[:-10]
    chunks, partition = fetched(whole, cut)
    assert [len(chunk) for chunk in chunks] == [5]
    assert partition.next_fetch_offset == 5
    assert chunks[0].last


def test_the_broker_s_time_is_that_of_all_records() -> None:
    """LogAppendTime: the batch's time counts, not what the producer wrote into the records."""
    data = bytearray(built([(5, b"k", b"v", []), (6, b"k", b"v", [])]))
    data[21:23] = (0x08).to_bytes(2, "big")
    data[35:43] = (99).to_bytes(8, "big")
    (chunk,), _ = fetched(bytes(data), checked=False)
    assert chunk.timestamps.tolist() == [99, 99] == [record.timestamp for record in DefaultRecordBatch(bytes(data))]
    assert np.array_equal(chunk.offsets, [0, 1])
