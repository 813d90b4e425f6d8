"""Writes to share topics: each append in one piece and in order, acknowledged by all replicas; deletes to a boundary.

What several topics are sent of a page leaves together, in one request to each broker. Who appends learns at which
offset, so a boundary is exact, and whatever else wrote to the topic is noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

import aiokafka.errors

from bus.errors import BrokerUnavailable, BusError
from bus.infra.batching import started_producer
from bus.infra.connection import KafkaConnection
from bus.infra.kafka import Admin
from bus.sharing.streams.notices import Record

BATCH_BYTES: Final = 512 * 1024  # of a Kafka batch; the topic's limit is 1 MiB
_BUILT_HERE: Final = 200  # so few records are put into a batch faster than a thread takes them over
_STOP_S: Final = 2.0
_TROUBLE: Final = (aiokafka.errors.KafkaError, TimeoutError, OSError)


class Sink(Protocol):
    """What streams are written to."""

    async def append(self, topic: str, records: Sequence[Record]) -> int:
        """Appends at least one record; the offset of the first. Raises `BrokerUnavailable`, `BusError`."""

    async def append_all(self, pages: Mapping[str, Sequence[Record]]) -> Mapping[str, int | Exception]:
        """The same for several topics at once; for each the offset, or what went wrong with it alone."""

    async def delete_before(self, topic: str, offset: int) -> None:
        """Makes every record before the offset unreadable. Raises `BrokerUnavailable`, `BusError`."""

    async def ends(self, topics: Collection[str]) -> dict[str, int]:
        """The offset after the last record; missing topics are left out. Raises `BrokerUnavailable`."""


class KafkaSink:
    """Share topics on Kafka; connects at first use and again after every failure. ``timeout_s`` bounds each call.

    After a failure the producer is given up, so that nothing of it arrives later in the wrong place.
    """

    def __init__(self, connection: KafkaConnection, connect: Callable[[], Admin], *, timeout_s: float = 5.0) -> None:
        self._connection, self._connect, self._timeout_s = connection, connect, timeout_s
        self._producer: Any = None
        self._admin: Admin | None = None
        self._starting = asyncio.Lock()
        self._asking = asyncio.Lock()

    async def append(self, topic: str, records: Sequence[Record]) -> int:
        found = (await self.append_all({topic: records}))[topic]
        if isinstance(found, Exception):
            raise found
        return found

    async def append_all(self, pages: Mapping[str, Sequence[Record]]) -> Mapping[str, int | Exception]:
        try:
            async with asyncio.timeout(self._timeout_s):
                producer = await self._started()
        except _TROUBLE as error:
            return {topic: _translated(error, topic) for topic in pages}
        few = sum(map(len, pages.values())) <= _BUILT_HERE
        made = _all_batches(producer, pages) if few else await asyncio.to_thread(_all_batches, producer, pages)
        sent = await asyncio.gather(*(self._sent(producer, topic, batches) for topic, batches in made.items()))
        if any(isinstance(outcome, Exception) for outcome in sent):
            await self._give_up(producer)
        return dict(zip(made, sent, strict=True))

    async def _sent(self, producer: Any, topic: str, batches: Sequence[Any]) -> int | Exception:
        """The offset of the first record, once all are acknowledged. Nothing is awaited before every topic's batches
        are with the producer (unless it does not know the topic yet): so they leave in one request."""
        try:
            async with asyncio.timeout(self._timeout_s):
                waiting = [await producer.send_batch(batch, topic, partition=0) for batch in batches]
                offsets = [done.offset for done in await asyncio.gather(*waiting)]
        except _TROUBLE as error:
            return _translated(error, topic)
        expected = offsets[0]
        for offset, batch in zip(offsets, batches, strict=True):
            if offset != expected or offset < 0:
                return BrokerUnavailable(f"What was appended to {topic} does not lie in one piece.")
            expected += batch.record_count()
        return int(offsets[0])

    async def delete_before(self, topic: str, offset: int) -> None:
        await self._asked(lambda admin: admin.delete_before({topic: offset}))

    async def ends(self, topics: Collection[str]) -> dict[str, int]:
        found: dict[tuple[str, int], int] = await self._asked(lambda admin: admin.end_offsets(topics))
        return {topic: offset for (topic, _), offset in found.items()}

    async def close(self) -> None:
        """Gives the connections back."""
        await self._give_up(self._producer)
        if self._admin is not None:
            await asyncio.to_thread(self._admin.close)

    async def _asked(self, ask: Callable[[Admin], Any]) -> Any:
        async with self._asking:
            admin = self._admin if self._admin is not None else await asyncio.to_thread(self._connect)
            self._admin = admin
            try:
                return await asyncio.to_thread(ask, admin)
            except BrokerUnavailable:
                self._admin = None
                await asyncio.to_thread(admin.close)
                raise

    async def _started(self) -> Any:
        async with self._starting:
            if self._producer is None:
                self._producer = await started_producer(
                    self._connection, batch_bytes=BATCH_BYTES, timeout_s=self._timeout_s, stop=_stopped
                )
            return self._producer

    async def _give_up(self, producer: Any) -> None:
        if producer is not None and producer is self._producer:
            self._producer = None
            await _stopped(producer)


async def _stopped(producer: Any) -> None:
    """Closes the connections first: what waits to be sent is given up, its callers have been told."""
    with contextlib.suppress(TimeoutError, aiokafka.errors.KafkaError, OSError):
        async with asyncio.timeout(_STOP_S):
            await producer.client.close()
            await producer.stop()


def _all_batches(producer: Any, pages: Mapping[str, Sequence[Record]]) -> dict[str, list[Any]]:
    return {topic: _batches(producer, records) for topic, records in pages.items()}


def _batches(producer: Any, records: Sequence[Record]) -> list[Any]:
    batches = [producer.create_batch()]
    for key, value, headers in records:
        if batches[-1].append(timestamp=None, key=key, value=value, headers=headers) is None:
            batches.append(producer.create_batch())
            batches[-1].append(timestamp=None, key=key, value=value, headers=headers)
    for batch in batches:
        batch.close()
    return batches


def _translated(error: Exception, topic: str) -> BusError:
    name = type(error).__name__
    if "Authorization" in name or "Authentication" in name or "TooLarge" in name:
        told: BusError = BusError(f"Kafka does not take what is written to {topic}: {name}.")
    else:
        told = BrokerUnavailable()
    told.__cause__ = error
    return told
