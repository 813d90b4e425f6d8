"""The three stages of view building, each alone in one process: read, decode, write."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.run_worker import governance
from bus.infra.database import open_database, write
from bus.infra.kafka import Admin, KafkaConnection
from bus.views.builder import Builder
from bus.views.catalogue import Shape, shapes
from bus.views.decoding.batches import Batch
from bus.views.decoding.decoder import Decoder
from bus.views.decoding.events import Fetched
from bus.views.decoding.fetching import Chunks
from bus.views.progress import write_positions
from bus.views.rebuilding.generation import prepare
from bus.views.store import Position, ViewStore
from bus.views.workers.lease import Leases

BATCH_EVENTS = 20_000
Read = list[tuple[tuple[str, int], Fetched]]


async def read(kafka: KafkaConnection, topics: set[str]) -> tuple[Read, float]:
    """Everything in the topics, as the worker's reader takes it, and the seconds."""
    with Admin(kafka) as admin:
        ends = {place: end for place, end in admin.end_offsets(topics).items() if end}
    begun = time.perf_counter()
    consumer = AIOKafkaConsumer(
        **kafka.aiokafka(),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        max_partition_fetch_bytes=4 * 1024 * 1024,
    )
    await consumer.start()
    chunks = Chunks(consumer)
    consumer.assign([TopicPartition(*place) for place in ends])
    for place in ends:
        consumer.seek(TopicPartition(*place), 0)
    found: Read = []
    left = sum(ends.values())
    while left:
        for place, records in (await chunks.take(timeout_ms=200, most=BATCH_EVENTS)).items():
            found.append(((place.topic, place.partition), records))
            left -= len(records)
    seconds = time.perf_counter() - begun
    await consumer.stop()
    return found, seconds


def decode(found: Read, shape: Shape, registry: Any) -> tuple[list[Batch], float]:
    decoders = {contract.topic: Decoder(contract, registry) for contract in shape.contracts}
    begun = time.perf_counter()
    batches = [
        decoders[place[0]].decode(
            *place, records, base=int(records.offsets[0]), next_offset=int(records.offsets[-1]) + 1
        )
        for place, records in found
    ]
    return batches, time.perf_counter() - begun


def apply(batches: list[Batch], shape: Shape, url: str) -> float:
    engine = open_database(url, "views", durable=False)
    ViewStore(engine)
    epoch = Leases(engine, "bench", 5.0).acquire(shape.view.name) or 0
    prepare(engine, shape, epoch)
    with write(engine) as connection:
        places = sorted({(batch.topic, batch.partition) for batch in batches})
        write_positions(connection, shape.view.name, [Position(*place, 0, None) for place in places])
    builder = Builder(engine, shape, epoch)
    begun = time.perf_counter()
    for round_ in rounds(batches):
        builder.apply(round_)
    return time.perf_counter() - begun


def rounds(batches: list[Batch]) -> list[list[Batch]]:
    """As the worker: at most so many events in one transaction."""
    found: list[list[Batch]] = [[]]
    held = 0
    for batch in batches:
        if held + len(batch) > BATCH_EVENTS and found[-1]:
            found.append([])
            held = 0
        found[-1].append(batch)
        held += len(batch)
    return found


def main() -> None:
    given = json.loads(sys.argv[1])
    registry, declarations = governance(given["governance"], given["view"])
    (shape,) = shapes(declarations, registry.contracts()).values()
    topics = {contract.topic for contract in shape.contracts}
    found, read_s = asyncio.run(read(KafkaConnection(**given["kafka"]), topics))
    events = sum(len(records) for _, records in found)
    batches, decode_s = decode(found, shape, registry)
    del found
    write_s = apply(batches, shape, given["database"])
    print(json.dumps({"events": events, "read": read_s, "decode": decode_s, "write": write_s}))


if __name__ == "__main__":
    main()
