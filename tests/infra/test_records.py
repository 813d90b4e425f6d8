"""A record is read back by its place, without its contents; a place that the topic no longer keeps is said to be so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from bus.errors import BrokerUnavailable
from bus.infra.kafka import Admin, KafkaConnection
from bus.infra.records import Place, RecordReader, Stored
from tests.conftest import free_port, unique


@pytest.fixture
def topic(kafka: KafkaConnection, kafka_admin: Admin) -> str:
    """Three records in one partition and a tombstone in another."""
    name = unique("dept.lineage")
    kafka_admin.ensure_topic(name, partitions=2)
    producer = KafkaProducer(**kafka.kafka_python())
    for number in range(3):
        producer.send(name, b"\0\0\0\0\7secret", headers=[("ce_id", f"e{number}".encode())], partition=0)
    producer.send(name, None, key=b"1", headers=[("ce_id", b"gone")], partition=1, timestamp_ms=1_700_000_000_123)
    producer.close()
    return name


def _read(
    connection: KafkaConnection, *asked: Iterable[Place], timeout_s: float = 10.0
) -> list[dict[Place, Stored | None]]:
    async def run() -> list[dict[Place, Stored | None]]:
        reader = RecordReader(connection, timeout_s=timeout_s)
        try:
            return [await reader.read(places) for places in asked]
        finally:
            await reader.close()

    return asyncio.run(run())


def test_records_are_found_by_their_places(kafka: KafkaConnection, topic: str) -> None:
    """In any order, from several partitions, more than once; of the value only the schema's number is kept."""
    places = [(topic, 1, 0), (topic, 0, 2), (topic, 0, 0), (topic, 0, 2)]
    first, again = _read(kafka, places, places[:1])
    assert {place: stored and stored.headers["ce_id"] for place, stored in first.items()} == {
        (topic, 1, 0): "gone",
        (topic, 0, 2): "e2",
        (topic, 0, 0): "e0",
    }
    assert first[topic, 0, 0] is not None
    assert first[topic, 0, 0].head == b"\0\0\0\0\7"
    assert again == {(topic, 1, 0): Stored({"ce_id": "gone"}, None, again[topic, 1, 0].appended_ms)}  # type: ignore[union-attr]


def test_a_record_beyond_retention_is_none(kafka: KafkaConnection, topic: str) -> None:
    """The topic begins after it; others of the same call are found."""
    admin = KafkaAdminClient(**kafka.kafka_python())
    admin.delete_records({TopicPartition(topic, 0): 2})
    admin.close()
    (found,) = _read(kafka, [(topic, 0, 0), (topic, 0, 2)])
    assert found[topic, 0, 0] is None
    assert found[topic, 0, 2] is not None


def test_a_broker_that_does_not_answer_is_named_in_time(kafka: KafkaConnection) -> None:
    """Connecting is within the bound as well."""
    with pytest.raises(BrokerUnavailable):
        _read(replace(kafka, bootstrap=f"127.0.0.1:{free_port()}"), [("dept.x.y", 0, 0)], timeout_s=0.5)
