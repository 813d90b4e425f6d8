"""B1: publishing many records, validated and encoded from dicts, with the headers of CloudEvents, acks=all, idempotent.

Every run ends when Kafka has acknowledged everything; connecting and asking the registry is part of it. What arrived is
then read back and compared: number, bytes, keys, headers.
"""

from __future__ import annotations

import asyncio
import io
import time
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import fastavro
from aiokafka import AIOKafkaConsumer, TopicPartition
from kafka import KafkaProducer

from benchmarks import data
from benchmarks.harness import Goal, Plan, Sample, require
from benchmarks.world import Place, World

ENTITY: Final = "bench.notice"
TOPIC: Final = f"dept.{ENTITY}"
OURS: Final = "bus publish_many"
PEER: Final = "confluent-kafka + AvroSerializer"
SIMPLE: Final = "bus publish (single events)"
DEFAULTS: Final = "kafka-python with its defaults"
Rows = Sequence[Mapping[str, Any]]


def plan(world: World, events: int) -> Plan:
    """``events`` records for the bulk paths, a tenth and a two-hundredth of them for the simple ones."""
    rows = data.licences(events)
    runs: dict[str, Callable[[], Sample]] = {OURS: lambda: _checked(world, rows, _publish_many)}
    if has_peer():
        runs[PEER] = lambda: _checked(world, rows, _confluent)
    runs[SIMPLE] = lambda: _checked(world, rows[: max(events // 200, 10)], _publish_each)
    runs[DEFAULTS] = lambda: _checked(world, rows[: max(events // 10, 10)], _kafka_python)
    return Plan(
        figure="B1",
        unit="events/s",
        runs=runs,
        goals=[
            Goal("publish many / confluent-kafka with AvroSerializer", OURS, PEER, 2.5),
            Goal("simple client / kafka-python's own defaults", SIMPLE, DEFAULTS, 4.0),
        ],
    )


def has_peer() -> bool:
    try:
        import confluent_kafka.schema_registry.avro  # noqa: F401
    except ImportError:
        return False
    return True


def _checked(world: World, rows: Rows, publish: Callable[[World, Rows], None]) -> Sample:
    before = world.ends(TOPIC)
    begun = time.perf_counter()
    publish(world, rows)
    seconds = time.perf_counter() - begun
    check_arrived(world, before, rows)
    return Sample(len(rows), seconds)


def _publish_many(world: World, rows: Rows) -> None:
    with world.publisher() as publisher:
        report = publisher.publish_many("notice", rows)
    require(report.acknowledged == len(rows), f"{report.acknowledged} of {len(rows)} acknowledged")


def _publish_each(world: World, rows: Rows) -> None:
    with world.publisher() as publisher:
        for row in rows:
            publisher.publish("notice", row)


def _headers(run: str, number: int) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", f"{run}-{number:x}".encode()),
        ("ce_source", b"/bench"),
        ("ce_type", b"bench.notice.upsert"),
    ]


def _confluent(world: World, rows: Rows) -> None:
    from confluent_kafka import Producer
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    registry = SchemaRegistryClient(
        {
            "url": f"{world.web}/registry",
            "bearer.auth.credentials.source": "STATIC_TOKEN",
            "bearer.auth.token": world.token(data.DEPARTMENT),
            "bearer.auth.logical.cluster": "bench",
            "bearer.auth.identity.pool.id": "bench",
        }
    )
    serialize = AvroSerializer(registry, conf={"auto.register.schemas": False, "use.latest.version": True})
    producer = Producer(confluent_settings(world) | BULK)
    context, run, failed = SerializationContext(TOPIC, MessageField.VALUE), uuid.uuid4().hex, []

    def delivered(error: Any, _message: Any) -> None:
        if error is not None:
            failed.append(error)

    for number, row in enumerate(rows):
        value, key = serialize(row, context), str(row["licence_term_id"])
        while True:
            try:
                producer.produce(TOPIC, value, key, headers=_headers(run, number), on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.05)
        if number % 1_000 == 0:
            producer.poll(0)
    require(producer.flush(60) == 0 and not failed, f"not delivered: {failed[:1]}")


BULK: Final = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 50,
    "batch.size": 512 * 1024,
    "batch.num.messages": 100_000,
    "queue.buffering.max.messages": 1_000_000,
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
}


def confluent_settings(world: World) -> dict[str, Any]:
    """How confluent-kafka reaches the broker."""
    known = world.stack.kafka_connection(data.DEPARTMENT)
    return {
        "bootstrap.servers": known.bootstrap,
        "security.protocol": known.security_protocol,
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": known.username,
        "sasl.password": known.password,
    }


def _kafka_python(world: World, rows: Rows) -> None:
    schema, run = fastavro.parse_schema(data.NOTICE), uuid.uuid4().hex
    prefix = b"\0" + world.schema_id(ENTITY).to_bytes(4, "big")
    producer = KafkaProducer(**world.stack.kafka_connection(data.DEPARTMENT).kafka_python())
    futures = []
    for number, row in enumerate(rows):
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, row)
        key = str(row["licence_term_id"]).encode()
        futures.append(producer.send(TOPIC, prefix + buffer.getvalue(), key, headers=_headers(run, number)))
    producer.flush()
    for future in futures:
        future.get(timeout=60)
    producer.close()


def check_arrived(world: World, before: Mapping[Place, int], rows: Rows) -> None:
    """What came to the topic since ``before`` is what ``rows`` encode to, each with its key and all four headers."""
    found = asyncio.run(_arrived(world, before))
    expected = _crc(_encoded(world, rows))
    require(found["count"] == len(rows), f"{found['count']} of {len(rows)} events arrived")
    require(found["crc"] == expected, "what arrived is not what was published")
    require(found["bare"] == 0, f"{found['bare']} events without their headers")


def _encoded(world: World, rows: Rows) -> list[tuple[bytes, bytes]]:
    schema = fastavro.parse_schema(data.NOTICE)
    prefix = b"\0" + world.schema_id(ENTITY).to_bytes(4, "big")
    pairs = []
    for row in rows:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, row)
        pairs.append((str(row["licence_term_id"]).encode(), prefix + buffer.getvalue()))
    return pairs


def _crc(pairs: Sequence[tuple[bytes, bytes]]) -> int:
    """A sum over the events whatever their order, since partitions are read beside each other."""
    return sum(zlib.crc32(value, zlib.crc32(key)) for key, value in pairs)


async def _arrived(world: World, before: Mapping[Place, int]) -> dict[str, int]:
    ends = world.ends(TOPIC)
    wanted = {TopicPartition(*place): end for place, end in ends.items() if end > before[place]}
    total = sum(end - before[(place.topic, place.partition)] for place, end in wanted.items())
    found = {"count": 0, "crc": 0, "bare": 0}
    if not total:
        return found
    names = {"ce_specversion", "ce_id", "ce_source", "ce_type"}
    consumer = AIOKafkaConsumer(**world.kafka.aiokafka(), group_id=None, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(list(wanted))
        for place in wanted:
            consumer.seek(place, before[(place.topic, place.partition)])
        async with asyncio.timeout(60):
            while found["count"] < total:
                for records in (await consumer.getmany(timeout_ms=200, max_records=20_000)).values():
                    found["count"] += len(records)
                    found["crc"] += _crc([(record.key or b"", record.value or b"") for record in records])
                    found["bare"] += sum(not names <= {name for name, _ in record.headers} for record in records)
    finally:
        await consumer.stop()
    return found
