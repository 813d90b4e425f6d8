"""Single records read back from their topics, by place: what an event said about itself, long after it was applied."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from bus.errors import BrokerUnavailable
from bus.infra.connection import KafkaConnection

Place = tuple[str, int, int]  # topic, partition, offset
_HEAD: Final = 5  # bytes of a value that are kept: they say which schema wrote it
_REMEMBERED: Final = 10_000
_WAIT_MS: Final = 500


@dataclass(frozen=True, slots=True)
class Stored:
    """A record without its contents. ``head``: the first 5 bytes of its value, None for a tombstone; ``appended_ms``:
    when it reached the topic, by the broker's clock."""

    headers: Mapping[str, str]
    head: bytes | None
    appended_ms: int


class RecordReader:
    """Reads records with one consumer of its own, made when first needed. Belongs to one event loop.

    ``timeout_s`` bounds each call as a whole, connecting included.
    """

    def __init__(self, connection: KafkaConnection, *, timeout_s: float = 5.0) -> None:
        self._connection, self._timeout_s = connection, timeout_s
        self._consumer: AIOKafkaConsumer | None = None
        self._turn = asyncio.Lock()
        self._known: OrderedDict[Place, Stored] = OrderedDict()

    async def read(self, places: Iterable[Place]) -> dict[Place, Stored | None]:
        """The records at these places; None where the topic does not keep it any more. Raises `BrokerUnavailable`."""
        wanted = sorted(set(places))
        found: dict[Place, Stored | None] = {place: self._known[place] for place in wanted if place in self._known}
        missing = [place for place in wanted if place not in found]
        if missing:
            try:
                async with asyncio.timeout(self._timeout_s), self._turn:
                    found |= await self._fetched(missing)
            except (KafkaError, OSError, TimeoutError) as error:
                raise BrokerUnavailable() from error
        return found

    async def close(self) -> None:
        """Gives the consumer back; the next call makes another."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with contextlib.suppress(KafkaError, TimeoutError):  # stopping can hang while brokers are away
                await asyncio.wait_for(consumer.stop(), 1.0)

    async def _fetched(self, places: list[Place]) -> dict[Place, Stored | None]:
        """A consumer that failed or was too slow is replaced."""
        try:
            return await self._fetch(places)
        except (KafkaError, OSError, asyncio.CancelledError):
            await self.close()
            raise

    async def _fetch(self, places: list[Place]) -> dict[Place, Stored | None]:
        consumer = await self._connected()
        consumer.assign(list({TopicPartition(topic, partition) for topic, partition, _ in places}))
        found: dict[Place, Stored | None] = {}
        for place in places:
            record = await _one(consumer, TopicPartition(*place[:2]), place[2])
            found[place] = _stored(record) if record is not None else None
            if (stored := found[place]) is not None:
                self._known[place] = stored
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return found

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            self._consumer = AIOKafkaConsumer(
                **self._connection.aiokafka(),
                client_id="bus-lineage",
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                max_partition_fetch_bytes=64 * 1024,
                request_timeout_ms=int(self._timeout_s * 1_000),
            )
            await self._consumer.start()
        return self._consumer


async def _one(consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int) -> Any:
    """The record at the offset; None where what is there now begins after it."""
    consumer.seek(partition, offset)
    while True:
        try:
            taken = await consumer.getmany(partition, timeout_ms=_WAIT_MS, max_records=1)
        except OffsetOutOfRangeError:
            return None
        for record in taken.get(partition, ()):
            return record if record.offset == offset else None


def _stored(record: Any) -> Stored:
    headers = {name: str(value or b"", "utf-8", "replace") for name, value in record.headers}
    head = None if record.value is None else bytes(record.value[:_HEAD])
    return Stored(headers, head, int(record.timestamp))
