"""Streams on a real Kafka: the process as it runs, read as any client reads."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition
from opa_process import Opa
from streams_world import StreamsWorld
from test_dependents import licence
from test_streams import VIEW, rename, stream_opa

from bus.contracts.directory import Department
from bus.errors import BrokerUnavailable
from bus.infra.connection import KafkaConnection
from bus.infra.kafka import Admin
from bus.sharing.streams.notices import NOTICE_KEY, Stamp, notice_of
from bus.sharing.streams.permits import Permits
from bus.sharing.streams.process import Lease, Streams
from bus.sharing.streams.sending import KafkaSink
from tests.conftest import unique

__all__ = ["stream_opa"]
CONFIG = {"cleanup.policy": "compact,delete", "retention.ms": "-1"}


def records(kafka: KafkaConnection, topic: str) -> list[Any]:
    """Everything that can be read of a topic, from its start."""
    consumer = KafkaConsumer(**kafka.kafka_python(), enable_auto_commit=False)
    place = TopicPartition(topic, 0)
    consumer.assign([place])
    consumer.seek_to_beginning(place)
    end, found = consumer.end_offsets([place])[place], list[Any]()
    while consumer.position(place) < end:
        found += [record for some in consumer.poll(timeout_ms=500).values() for record in some]
    consumer.close()
    return found


async def until(holds: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(world: StreamsWorld, kafka: KafkaConnection) -> AsyncIterator[None]:
    """The whole process, on the world's databases."""
    sink, lease = KafkaSink(kafka, lambda: Admin(kafka)), Lease(world.desk.store, 5.0)
    permits = Permits(world.decider, world.grants, now=world.now)
    desk = replace(world.desk, permits=permits, sink=sink, alive=lease.check)
    task = asyncio.create_task(Streams(desk, lease).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await sink.close()


def test_a_stream_on_kafka(
    sqlite_url: str, stream_opa: Opa, kafka: KafkaConnection, kafka_admin: Admin
) -> None:  # fmt: skip
    """First all rows, then changes; when the grant narrows, what it hides is gone from the topic's start on; a new
    process goes on where the last one was."""
    world, consumer = StreamsWorld(sqlite_url, stream_opa), unique("tax")
    topic = f"share.{consumer}.{VIEW}"
    kafka_admin.ensure_topic(topic, config=CONFIG)
    world.directory.put_department(Department(consumer, {"en": consumer}, "tax@example"))
    grant = {"consumer": consumer, "view": VIEW, "fields": ["licence", "name", "area"]}

    def state(name: str) -> Any:
        return getattr(world.known.subscription(consumer, VIEW), name, None)

    def rows() -> dict[str, Any]:
        found = {item.key.decode(): item.value for item in records(kafka, topic) if item.key[:1] != NOTICE_KEY[:1]}
        return {key: world.decoded(value) for key, value in found.items() if value is not None}

    async def run() -> None:
        world.begin(VIEW)
        for number in range(1, 5):
            world.topics.append(licence(f"t{number}", number, name=f"business {number}", area=float(number)))
        world.feed()
        world.grant(grant)
        async with running(world, kafka):
            await until(lambda: state("state") == "running")
            rename(world, 2, "renamed")
            await until(lambda: rows()["2"]["name"] == "renamed")
        rename(world, 3, "while nobody wrote")
        async with running(world, kafka):
            await until(lambda: rows()["3"]["name"] == "while nobody wrote")
            world.grant({**grant, "fields": ["licence"], "rows": {"field": "licence", "op": "lte", "value": 3}})
            await until(lambda: state("boundary") > 0 and state("state") == "running")
        assert rows() == {str(number): {"licence": number} for number in (1, 2, 3)}
        readable = records(kafka, topic)
        assert readable[0].offset == state("boundary")
        notices = [notice_of(item.key, item.headers) for item in readable if item.key[:1] == b"\x00"]
        assert [notice and notice.kind for notice in notices] == ["narrowed", "snapshot_begins", "snapshot_ends"]
        assert b"business" not in b"".join(item.value or b"" for item in readable)
        headers = dict(next(item.headers for item in readable if item.value))
        assert headers["ce_type"] == f"share.{VIEW}.upsert".encode()
        assert headers["ce_source"] == f"/bus/views/{VIEW}".encode()
        await world.close()

    asyncio.run(run())


def test_appends_lie_in_one_piece(kafka: KafkaConnection, kafka_admin: Admin) -> None:
    """Batches beyond Kafka's limit are split; the offset of the first record is told; a missing topic is trouble that
    passes, after which the next append works."""
    topic = unique("share.tax.v")
    kafka_admin.ensure_topic(topic, config=CONFIG)
    stamp = Stamp("tax", "v", 1)

    async def run() -> None:
        sink = KafkaSink(kafka, lambda: Admin(kafka), timeout_s=2.0)
        try:
            many = [stamp.record(str(number).encode(), b"x" * 1_000, number) for number in range(1_500)]
            assert await sink.append(topic, many) == 0
            assert await sink.append(topic, many[:2]) == 1_500
            with pytest.raises(BrokerUnavailable):
                await sink.append(unique("share.tax.missing"), many[:1])
            assert await sink.append(topic, many[:1]) == 1_502
            assert await sink.ends([topic, "share.tax.missing"]) == {topic: 1_503}
            await sink.delete_before(topic, 1_500)
        finally:
            await sink.close()
        assert [item.offset for item in records(kafka, topic)] == [1_500, 1_501, 1_502]

    asyncio.run(run())
