"""Reads record batches for a set of views with one consumer, each partition in turn, decoded once for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from bus.contracts.registry import SchemaSource
from bus.core.contracts import Contract
from bus.errors import RegistryUnavailable
from bus.infra.kafka import KafkaConnection
from bus.views.builder import Place
from bus.views.decoding.batches import Batch
from bus.views.decoding.decoder import Decoder
from bus.views.decoding.events import Fetched
from bus.views.decoding.fetching import Chunks, Unreadable
from bus.views.decoding.trial import deadly
from bus.views.defects import report
from bus.views.rebuilding.pace import Pace
from bus.views.workers.held import Held

log = structlog.get_logger(__name__)
_IDLE_MS = 200
_BUSY_FETCH_MS = 10  # the broker holds a read_committed fetch for all of its wait although events come (Kafka 4.1)
_IDLE_FETCH_MS = 100  # which the first event waits; fifty fetches a second are a tenth of a core, ours and the broker's
_BUSY_S = 2.0
_LOST_S = 5.0  # a round that nobody has taken after this long never reached the building agent
_REGISTRY_PAUSE_S = 1.0
_TURNS = 20  # of the event loop, at most; the agent needs a few to take a round
_SMALL = 2_000  # events of a round that are written before the next is read


@dataclass(eq=False, slots=True)
class Round:
    """Batches on their way to the building agent. ``taken`` and ``settled`` are set there."""

    reader: Reader
    batches: Sequence[Batch]
    taken: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def events(self) -> int:
        return sum(len(batch) for batch in self.batches)


class Reader:
    """One consumer for ``views``. While one round is written the next is read and decoded; where there is little to
    read it is read when the round before is written, since what is read early waits without its later neighbours.

    Changing ``views`` and then calling `changed` makes it start again from the positions of its views.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        registry: SchemaSource,
        contracts: Callable[[], Mapping[str, Contract]],
        deliver: Callable[[Round], Awaitable[None]],
        *,
        batch_events: int,
    ) -> None:
        self._kafka, self._registry, self._contracts, self._deliver = kafka, registry, contracts, deliver
        self._batch_events = batch_events
        self._consumer: AIOKafkaConsumer | None = None
        self._chunks: Chunks | None = None
        self._decoders: dict[str, tuple[Contract, Decoder]] = {}
        self._next: dict[Place, int] = {}
        self._paused: dict[Place, float] = {}
        self._turn = 0
        self._came = 0.0
        self._changed = True
        self.pace: Pace | None = None
        self.trying = False  # events are tried in processes of their own, which on a busy machine takes long
        self.views: dict[str, Held] = {}
        self.out_of_range: set[Place] = set()
        self.unreadable: dict[Place, str] = {}

    def changed(self) -> None:
        """Views were added or removed, or a round was lost: start again from their positions."""
        self._changed = True

    @property
    def paused(self) -> bool:
        """Whether a partition waits for the registry."""
        return any(until > time.monotonic() for until in self._paused.values())

    @property
    def _most(self) -> int:
        """Events of the next round, at most."""
        return self._batch_events if self.pace is None else self.pace.events

    @property
    def at(self) -> dict[Place, int]:
        """The lowest position of its views in each partition."""
        places: dict[Place, int] = {}
        for held in self.views.values():
            for place, position in held.positions.items():
                places[place] = min(position, places.get(place, position))
        return places

    async def run(self) -> None:
        """Reads until cancelled. Trouble with Kafka or the registry is waited out."""
        pending: Round | None = None
        try:
            while True:
                try:
                    pending = await self._step(pending)
                except (KafkaError, OSError) as error:
                    log.warning("reading_failed", error=type(error).__name__, detail=str(error))
                except Exception as error:  # a defect: reported, and tried again like trouble that passes
                    report("reading_failed", error)
                else:
                    continue
                pending = None
                await self._reset()
                await asyncio.sleep(1.0)
        finally:
            await self._reset()

    async def _step(self, pending: Round | None) -> Round | None:
        if self._changed or not self._next:
            await self._settled(pending)
            if not await self._seek():
                await asyncio.sleep(0.05)
                return None
            pending = None
        if pending is not None and pending.events < _SMALL:
            await self._settled(pending)
            pending = None
        batches = await self._read()
        await self._settled(pending)
        if self.pace is not None:
            await asyncio.sleep(self.pace.rest_s)
        if not batches or self._changed:
            return None
        following = Round(self, batches)
        await self._deliver(following)
        await _taken(following)
        return following

    async def _settled(self, pending: Round | None) -> None:
        """Waits for the round before. Faust empties channels when its control topic is rebalanced: what never
        arrived is read again."""
        while pending is not None and not pending.settled.is_set():
            try:
                await asyncio.wait_for(pending.settled.wait(), _LOST_S)
            except TimeoutError:
                if not pending.taken:
                    log.warning("round_lost")
                    self._changed = True
                    return

    async def _reset(self) -> None:
        self._changed = True
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            try:
                await asyncio.wait_for(consumer.stop(), 1.0)
            except (TimeoutError, KafkaError):  # stop can hang while brokers are away
                log.warning("consumer_stop_timeout")

    async def _seek(self) -> bool:
        """Assigns the partitions of the views and goes to their positions; False if there are none."""
        self._changed = False
        self._next = self.at
        if not self._next:
            return False
        if self._consumer is None:
            self._consumer = AIOKafkaConsumer(
                **self._kafka.aiokafka(),
                client_id="bus-worker-reader",
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level="read_committed",
                fetch_max_wait_ms=_IDLE_FETCH_MS,
                max_partition_fetch_bytes=1024 * 1024,  # of each partition, held while the others are read
                request_timeout_ms=15_000,
                retry_backoff_ms=200,
            )
            await self._consumer.start()
            self._chunks = Chunks(self._consumer)
        self._consumer.assign([TopicPartition(*place) for place in self._next])
        for place, offset in self._next.items():
            self._consumer.seek(TopicPartition(*place), offset)
        return True

    async def _read(self) -> list[Batch]:
        """One round: what is there, at most ``batch_events``, beginning with another partition each time."""
        self._turn += 1
        taken = await self._there(self._most)
        if taken:
            taken = await self._with_newer(taken)
        else:
            taken = await self._waited()
            if taken:  # what came with it, or soon after, makes no round of its own
                taken |= await self._there(self._most - sum(map(len, taken.values())), without=set(taken))
        if taken:
            self._came = time.monotonic()
        busy = time.monotonic() - self._came < _BUSY_S
        self._chunked().let_wait(_BUSY_FETCH_MS if busy else _IDLE_FETCH_MS)
        batches = [await self._batch(place, records) for place, records in taken.items()]
        batches += await self._skipped(set(taken))
        return [batch for batch in batches if batch is not None]

    async def _with_newer(self, taken: dict[Place, Fetched]) -> dict[Place, Fetched]:
        """What had been fetched when the round before began, with what came while that one was written: nothing more is
        fetched of a partition before it is taken from, so the newer events would wait for yet another round."""
        count = sum(map(len, taken.values()))
        left = min(self._most, _SMALL) - count
        if left <= 0:
            return taken
        newer = await self._take(list(self._next), most=left, timeout_ms=_BUSY_FETCH_MS)
        if newer:
            newer |= await self._there(left - sum(map(len, newer.values())), without=set(newer))
        together = {place: taken[place].then(chunk) for place, chunk in newer.items() if place in taken}
        return taken | newer | together

    async def _there(self, left: int, *, without: Collection[Place] = ()) -> dict[Place, Fetched]:
        """What has been fetched, partition by partition, at most ``left`` events."""
        taken: dict[Place, Fetched] = {}
        places = sorted(set(self._next) - set(without))
        for index in range(len(places)):
            if left <= 0:
                break
            place = places[(index + self._turn) % len(places)]
            found = await self._take([place], most=left, timeout_ms=0)
            taken |= found
            left -= sum(map(len, found.values()))
        return taken

    async def _waited(self) -> dict[Place, Fetched]:
        """Waits a moment for whatever comes."""
        found = await self._take(list(self._next), most=self._most, timeout_ms=_IDLE_MS)
        if not found and not self._waiting(self._next):
            await asyncio.sleep(_IDLE_MS / 1_000)
        return found

    def _waiting(self, places: Iterable[Place]) -> list[TopicPartition]:
        now = time.monotonic()
        return [TopicPartition(*place) for place in places if self._paused.get(place, 0.0) <= now]

    async def _take(self, places: Iterable[Place], *, most: int, timeout_ms: int) -> dict[Place, Fetched]:
        partitions = self._waiting(places)
        if not partitions:
            return {}
        try:
            found = await self._chunked().take(*partitions, most=most, timeout_ms=timeout_ms)
        except OffsetOutOfRangeError as error:
            self._lost(error)
            return {}
        except Unreadable as error:
            place = (error.partition.topic, error.partition.partition)
            self.unreadable[place] = (
                f"{place[0]}/{place[1]} has an event, at offset {self._next[place]} or after it, that the consumer "
                f"cannot read: {error}"
            )
            return {}
        return {(partition.topic, partition.partition): chunk for partition, chunk in found.items()}

    def _consuming(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise KafkaError("no consumer")
        return self._consumer

    def _chunked(self) -> Chunks:
        if self._chunks is None:
            raise KafkaError("no consumer")
        return self._chunks

    def _lost(self, error: OffsetOutOfRangeError) -> None:
        """Offsets that the broker no longer has: the worker looks at the log's start and stops the views."""
        offsets = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        self.out_of_range |= {(place.topic, place.partition) for place in offsets} or set(self._next)

    async def _batch(self, place: Place, records: Fetched) -> Batch | None:
        """The decoded batch; None where the registry cannot say what a schema id is: only this partition waits."""
        consumer, partition = self._consuming(), TopicPartition(*place)
        base = self._next[place]
        next_offset = max(await consumer.position(partition), int(records.offsets[-1]) + 1)
        end = consumer.highwater(partition) or next_offset
        decoder = self._decoder(place[0])
        try:
            span: dict[str, Any] = {
                "base": base,
                "next_offset": next_offset,
                "end_offset": end,
                "read_ms": time.time_ns() // 1_000_000,
            }
            batch = await asyncio.to_thread(self._decoded, decoder, place, records, span)
        except RegistryUnavailable:
            log.warning("registry_unavailable", topic=place[0], partition=place[1])
            self._paused[place] = time.monotonic() + _REGISTRY_PAUSE_S
            consumer.seek(partition, base)
            return None
        self._next[place] = next_offset
        return batch

    def _decoded(self, decoder: Decoder, place: Place, records: Fetched, span: dict[str, Any]) -> Batch:
        banned: frozenset[int] = frozenset()
        careful = [held for held in self.views.values() if held.careful and place in held.positions]
        if careful:
            self.trying = True
            try:
                banned = deadly(decoder, records)
            finally:
                self.trying = False
        return decoder.decode(*place, records, **span, banned=banned)

    async def _skipped(self, seen: set[Place]) -> list[Batch]:
        """Offsets without records (transaction markers): positions must move past them all the same."""
        batches = []
        for place in self._next:
            if place in seen:
                continue
            position = await self._consuming().position(TopicPartition(*place))
            if position > self._next[place] and self._paused.get(place, 0.0) <= time.monotonic():
                decoder = self._decoder(place[0])
                base, self._next[place] = self._next[place], position
                end = self._consuming().highwater(TopicPartition(*place)) or position
                now = time.time_ns() // 1_000_000
                batches.append(decoder.decode(*place, [], base=base, next_offset=position, end_offset=end, read_ms=now))
        return batches

    def _decoder(self, topic: str) -> Decoder:
        contract = next(c for c in self._contracts().values() if c.topic == topic)
        known = self._decoders.get(topic)
        if known is None or known[0] is not contract:
            self._decoders[topic] = known = (contract, Decoder(contract, self._registry))
        return known[1]


async def _taken(following: Round) -> None:
    """Lets the building agent begin before the next round is read: to take a large one apart holds the event loop for a
    fifth of the time that the writer needs, which waited for nothing all that time."""
    for _ in range(_TURNS):
        if following.taken:
            return
        await asyncio.sleep(0)
