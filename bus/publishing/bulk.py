"""Many events at once: whole Kafka batches built here, sent by aiokafka, idempotent, acknowledged by all replicas."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final

import aiokafka.errors
import numpy as np

from bus.core.events import DELETE, UPSERT, headers
from bus.errors import BrokerUnavailable, BusError
from bus.infra.batching import started_producer
from bus.infra.kafka import KafkaConnection
from bus.publishing.events import EventIds, Refused, Report
from bus.publishing.preparing import Prepared, Preparer

CHUNK: Final = 10_000  # records checked and encoded together
BATCH_BYTES: Final = 512 * 1024  # of a Kafka batch; the broker's limit is 1 MiB
_STOP_S: Final = 10.0

Header = tuple[str, bytes]
HeadersOf = Callable[[int], list[Header]]
Quarantine = Callable[[list[tuple[Any, Refused]]], None]


class BulkSender:
    """Sends the records of one entity. One run: `run` connects, sends, closes.

    ``quarantine`` is called with what was refused, chunk by chunk; ``progress`` with the number of records that
    are done (acknowledged or refused) so far. ``timeout_s`` bounds connecting and each batch's delivery.
    """

    def __init__(
        self,
        preparer: Preparer,
        connection: KafkaConnection,
        *,
        ids: EventIds,
        quarantine: Quarantine,
        progress: Callable[[int], None] | None,
        timeout_s: float,
    ) -> None:
        self._preparer = preparer
        self._connection = connection
        self._topic = preparer.contract.topic
        self._ids = ids
        self._quarantine = quarantine
        self._progress = progress
        self._timeout_s = timeout_s
        self._report = Report()
        self._under_way: list[Awaitable[Any]] = []

    async def run(self, records: Iterable[Any], *, first_line: int) -> Report:
        """Sends all records; returns when every one of them is acknowledged or refused.

        Raises `BrokerUnavailable` (member ``acknowledged``: how many were by then) when Kafka does not take them, and
        whatever reading the records raises.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                producer = await self._started()
        except (aiokafka.errors.KafkaError, TimeoutError, OSError) as error:
            raise self._unavailable(error) from error
        try:
            await self._send_all(producer, records, first_line)
        except _InputError as error:
            raise error.cause from None
        except (aiokafka.errors.KafkaError, TimeoutError, OSError) as error:
            raise self._unavailable(error) from error
        finally:
            await _stopped(producer)
            # Batches still under way when one failed: their outcome is part of that failure, not a loose end.
            await asyncio.gather(*self._under_way, return_exceptions=True)
        return self._report

    async def _started(self) -> Any:
        return await started_producer(
            self._connection, batch_bytes=BATCH_BYTES, timeout_s=self._timeout_s, stop=_stopped
        )

    async def _send_all(self, producer: Any, records: Iterable[Any], first_line: int) -> None:
        partitions = len(await self._partitions(producer))
        before: tuple[list[Awaitable[Any]], Prepared] | None = None
        for chunk in _chunks(records):
            prepared = self._preparer.prepare(chunk, first_line=first_line, partitions=partitions)
            first_line += len(chunk)
            acks = self._under_way = await self._send(producer, prepared)
            if before is not None:  # the acks of one chunk are awaited while the next is under way
                await self._acknowledged(*before)
            before = (acks, prepared)
        if before is not None:
            await self._acknowledged(*before)

    async def _partitions(self, producer: Any) -> set[int]:
        async with asyncio.timeout(self._timeout_s):
            found: set[int] = await producer.partitions_for(self._topic)
        if not found:
            raise aiokafka.errors.UnknownTopicOrPartitionError(self._topic)
        return found

    async def _send(self, producer: Any, prepared: Prepared) -> list[Awaitable[Any]]:
        """Queues every event; each partition's in order, the partitions beside each other."""
        headers_of = self._headers(prepared)
        present = [int(partition) for partition in np.unique(prepared.partitions)]
        parts = [self._send_partition(producer, partition, prepared, headers_of) for partition in present]
        return list(itertools.chain.from_iterable(await asyncio.gather(*parts)))

    async def _send_partition(
        self, producer: Any, partition: int, prepared: Prepared, headers_of: HeadersOf
    ) -> list[Awaitable[Any]]:
        acks: list[Awaitable[Any]] = []
        batch = producer.create_batch()
        for index in np.flatnonzero(prepared.partitions == partition).tolist():
            event = {"key": prepared.keys[index], "value": prepared.values[index], "headers": headers_of(index)}
            if batch.append(timestamp=None, **event) is None:
                acks.append(await producer.send_batch(batch, self._topic, partition=partition))
                batch = producer.create_batch()
                batch.append(timestamp=None, **event)
        batch.close()
        acks.append(await producer.send_batch(batch, self._topic, partition=partition))
        return acks

    def _headers(self, prepared: Prepared) -> HeadersOf:
        """The headers of the event at an index, made when it is sent: those of a whole chunk at once would keep
        the garbage collector busy."""
        spec, _, source, kind = self._event_headers("", UPSERT, None)
        ids = self._ids.take(len(prepared.keys))
        deletes = {
            index: self._event_headers(ids[index].decode(), DELETE, version)
            for index, version in prepared.deletes.items()
        }
        return lambda index: deletes.get(index) or [spec, ("ce_id", ids[index]), source, kind]

    def _event_headers(self, event_id: str, operation: str, version: int | None) -> list[Header]:
        contract = self._preparer.contract
        return headers(
            event_id=event_id,
            department=contract.department,
            entity=contract.entity,
            operation=operation,
            version=version,
        )

    async def _acknowledged(self, acks: list[Awaitable[Any]], prepared: Prepared) -> None:
        for outcome in await asyncio.gather(*acks, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        self._report.acknowledged += len(prepared.keys)
        if prepared.refused:
            self._quarantine(prepared.refused)
            self._report.refused += [refused for _, refused in prepared.refused]
        if self._progress is not None:
            self._progress(self._report.acknowledged + len(self._report.refused))

    def _unavailable(self, error: Exception) -> BusError:
        return translated(error, self._topic, acknowledged=self._report.acknowledged)


def translated(error: Exception, topic: str, **members: Any) -> BusError:
    """Kafka's error as the bus's: what is forbidden or missing says so, all else is `BrokerUnavailable`."""
    name = type(error).__name__
    if "Authorization" in name or "Authentication" in name:
        return BusError(f"Kafka does not let this department write to {topic}: {name}. Ask the operators.", **members)
    if "UnknownTopic" in name:
        return BrokerUnavailable(f"There is no topic {topic} yet: register its contract first.", **members)
    return BrokerUnavailable(**members)


async def _stopped(producer: Any) -> None:
    """Closes the producer; what it could not deliver was reported by the batches' own futures."""
    try:
        async with asyncio.timeout(_STOP_S):
            await producer.stop()
    except TimeoutError:
        await producer.client.close()


def _chunks(records: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(records)
    while chunk := _next_of(iterator):
        yield chunk


def _next_of(iterator: Iterator[Any]) -> list[Any]:
    try:
        return list(itertools.islice(iterator, CHUNK))
    except OSError as error:
        raise _InputError(error) from error


class _InputError(Exception):
    """The caller's records could not be read: an OSError of a file is none of Kafka's."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause
