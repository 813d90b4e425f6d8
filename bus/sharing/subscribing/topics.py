"""Share topics, read for many clients: older records by a few consumers that all share, the newest by one consumer
for each topic, which decodes every record once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from bus.errors import BrokerUnavailable, BusError
from bus.infra.connection import KafkaConnection
from bus.sharing.subscribing.changes import Change, Decoder, Record, event_lines
from bus.sharing.subscribing.resuming import Bounds

QUEUED: Final = 256
_QUEUED_BYTES: Final = 2 * 1024 * 1024
_PIECE: Final = 256
_FETCH_BYTES: Final = 256 * 1024
_CONSUMERS: Final = 4
_WAIT_MS: Final = 500  # that a fetch of the newest waits for them
_SHORT_MS: Final = 20  # the same of older ones, which are there
_TIMEOUT_S: Final = 5.0
log = logging.getLogger(__name__)


class Gone(BusError):
    """The stream no longer keeps what comes next: begin again where it begins."""

    code = "gone"


@dataclass(frozen=True, slots=True)
class Entry:
    """One record as its readers get it. ``lines``: of the Server-Sent Event, see `event_lines`."""

    offset: int
    change: Change
    lines: bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """Records in their order; ``next``: the offset after them."""

    entries: list[Entry]
    next: int


class Follower(Protocol):
    """Who is told that there is more."""

    def more(self, queued: int) -> None:
        """``queued``: how many records the topic got since its reader began. Must not block."""


class Topics:
    """Reads share topics. Belongs to one event loop. ``topic_id``: gives a topic's id and may block; a topic that was
    deleted and made again has another."""

    def __init__(self, connection: KafkaConnection, decoder: Decoder, topic_id: Callable[[str], str]) -> None:
        self._connection, self._decoder, self._topic_id = connection, decoder, topic_id
        self._idle: list[AIOKafkaConsumer] = []
        self._turns = asyncio.Semaphore(_CONSUMERS)
        self._tails: dict[str, Tail] = {}

    async def bounds(self, topic: str) -> Bounds:
        """The topic as it is now. Raises `BrokerUnavailable`."""
        place = TopicPartition(topic, 0)
        topic_id = await asyncio.to_thread(self._topic_id, topic)
        async with self._consumer() as consumer:
            start = await consumer.beginning_offsets([place])
            end = await consumer.end_offsets([place])
        return Bounds(topic_id, start[place], end[place])

    async def read(self, topic: str, offset: int) -> Piece:
        """The next few records from ``offset`` on; none where the broker was slow to answer.

        Raises `Gone` where the topic begins after it, or ends before; `BrokerUnavailable`.
        """
        place = TopicPartition(topic, 0)
        async with self._consumer() as consumer:
            consumer.assign([place])
            consumer.seek(place, offset)
            taken = await consumer.getmany(place, timeout_ms=_WAIT_MS, max_records=_PIECE)
            entries = [entry_of(record, self._decoder) for record in taken.get(place, ())]
            after = entries[-1].offset + 1 if entries else await consumer.position(place)
            consumer.pause(place)  # else it goes on fetching, and who asks it next waits for that
        return Piece(entries, after)

    def tail(self, topic: str) -> Tail:
        """The reader of the topic's newest records; the same for all who hold it."""
        tail = self._tails.get(topic)
        if tail is None or tail.failed is not None:
            tail = self._tails[topic] = Tail(topic, self._connection, self._decoder)
        return tail

    async def leave(self, tail: Tail, follower: Follower) -> None:
        """Ends the reader with its last follower."""
        tail.followers.discard(follower)
        if not tail.followers:
            if self._tails.get(tail.topic) is tail:
                del self._tails[tail.topic]
            await tail.close()

    async def close(self) -> None:
        """Gives the consumers back."""
        for tail in list(self._tails.values()):
            await tail.close()
        self._tails.clear()
        while self._idle:
            await _stop(self._idle.pop())

    @contextlib.asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        """One of a few consumers; one that failed is replaced."""
        async with self._turns:
            consumer = self._idle.pop() if self._idle else None
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    consumer = consumer or await _started(self._connection, wait_ms=_SHORT_MS)
                    yield consumer
            except OffsetOutOfRangeError as error:
                await _stop(consumer)
                raise Gone() from error
            except (KafkaError, OSError, TimeoutError) as error:
                await _stop(consumer)
                raise BrokerUnavailable() from error
            except BaseException:
                await _stop(consumer)
                raise
            self._idle.append(consumer)


class Tail:
    """The newest records of one topic: at most `QUEUED` of them, or 2 MiB, from ``begin`` up to ``end``."""

    def __init__(self, topic: str, connection: KafkaConnection, decoder: Decoder) -> None:
        self.topic = topic
        self.begin = self.end = -1
        self.queued = 0
        self.failed: BusError | None = None
        self.followers: set[Follower] = set()
        self._connection, self._decoder = connection, decoder
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._running = asyncio.create_task(self._run(), name=f"tail of {topic}")

    def since(self, offset: int) -> list[Entry] | None:
        """The records from ``offset`` on, perhaps none yet; None where they are older than what is held.
        Raises what made it fail."""
        if self.failed is not None:
            raise self.failed
        if 0 <= offset < self.begin:
            return None
        return [entry for entry in self._entries if entry.offset >= offset]

    async def close(self) -> None:
        """Stops reading."""
        self._running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._running

    async def _run(self) -> None:
        consumer: AIOKafkaConsumer | None = None
        try:
            consumer = await _started(self._connection, wait_ms=_WAIT_MS)
            await self._follow(consumer)
        except OffsetOutOfRangeError as error:
            self._fail(Gone(), error)
        except (KafkaError, OSError) as error:
            self._fail(BrokerUnavailable(), error)
        except BusError as error:
            self._fail(error, error)
        except Exception as error:  # else its followers would wait for ever
            log.exception("The reader of %s failed", self.topic)
            self._fail(BusError(), error)
        finally:
            await _stop(consumer)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        place = TopicPartition(self.topic, 0)
        consumer.assign([place])
        end = (await consumer.end_offsets([place]))[place]
        consumer.seek(place, end)
        self.begin = self.end = end
        self._tell()
        while True:
            taken = await consumer.getmany(place, timeout_ms=_WAIT_MS, max_records=2 * QUEUED)
            records = taken.get(place, ())
            if records:
                self._keep([entry_of(record, self._decoder) for record in records])
                self._tell()

    def _keep(self, entries: list[Entry]) -> None:
        self._entries.extend(entries)
        self._bytes += sum(len(entry.lines) for entry in entries)
        self.end = entries[-1].offset + 1
        self.queued += len(entries)
        while len(self._entries) > QUEUED or self._bytes > _QUEUED_BYTES:
            oldest = self._entries.popleft()
            self._bytes -= len(oldest.lines)
            self.begin = oldest.offset + 1

    def _fail(self, failure: BusError, cause: BaseException) -> None:
        if failure is not cause:
            failure.__cause__ = cause
        self.failed = failure
        self._tell()

    def _tell(self) -> None:
        for follower in list(self.followers):
            follower.more(self.queued)


def entry_of(record: Any, decoder: Decoder) -> Entry:
    """A consumer's record as an entry. Raises what the decoder does."""
    change = decoder.change(Record(record.offset, record.key, record.value, record.headers))
    return Entry(record.offset, change, event_lines(change))


async def _started(connection: KafkaConnection, *, wait_ms: int) -> AIOKafkaConsumer:
    consumer = AIOKafkaConsumer(
        **connection.aiokafka(),
        client_id="bus-changes",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_partition_fetch_bytes=_FETCH_BYTES,
        fetch_max_wait_ms=wait_ms,
        request_timeout_ms=int(_TIMEOUT_S * 1_000),
    )
    try:
        await consumer.start()
    except BaseException:
        await _stop(consumer)
        raise
    return consumer


async def _stop(consumer: AIOKafkaConsumer | None) -> None:
    if consumer is not None:
        with contextlib.suppress(KafkaError, TimeoutError):  # stopping can hang while brokers are away
            await asyncio.wait_for(consumer.stop(), 1.0)
