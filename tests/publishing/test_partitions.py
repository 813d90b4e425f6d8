"""One record lives in one partition, whoever sends it."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as of_kafka

from bus.publishing.partitions import murmur2, partitions_of


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=30))
def test_the_hash_is_kafkas(keys: list[bytes]) -> None:
    """Bit for bit that of the Java client, keys of every length mixed."""
    assert murmur2(pa.array(keys, pa.binary())).tolist() == [of_kafka(key) for key in keys]


@pytest.mark.parametrize(
    ("key", "expected"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"abc", 479470107)],
)
def test_the_hash_is_javas(key: bytes, expected: int) -> None:
    """The vectors of Kafka's own UtilsTest.java."""
    (value,) = murmur2(pa.array([key], pa.binary())).astype("int32").tolist()
    assert value == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=30), st.integers(1, 50), st.integers(0, 29))
def test_partitions(keys: list[str], count: int, start: int) -> None:
    """As kafka-python's default partitioner chooses, for text keys, in slices of an array too."""
    expected = [(of_kafka(key.encode()) & 0x7FFFFFFF) % count for key in keys]
    assert partitions_of(pa.array(keys), count).tolist() == expected
    assert partitions_of(pa.array(keys).slice(start), count).tolist() == expected[start:]
