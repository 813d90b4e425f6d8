"""`Subscriber`: what a department's developer uses to follow a view, with the place kept beside the data.

Reads the department's own share topic as its own principal; the bus is asked for the terms only, at the beginning and
when the topic is not as it was. No consumer group and no commits: the caller stores the cursor of a batch in the same
transaction as its rows, so nothing is lost or doubled wherever it is killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from bus.core.contracts import Json
from bus.errors import BrokerUnavailable, StreamStarting
from bus.infra.connection import KafkaConnection
from bus.sharing.subscribing.changes import Change, Decoder, Delete, Notice, Record, Upsert
from bus.sharing.subscribing.cursors import read_place
from bus.sharing.subscribing.resuming import Bounds, Reading

__all__ = ["Batch", "Delete", "Notice", "Subscriber", "Upsert"]
BATCH: Final = 500
_POLL_MS: Final = 500
_ASK_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes in their order. ``cursors``: after each of them; store the last with the data. ``caught_up``: there was
    nothing more when it was read."""

    changes: tuple[Change, ...]
    cursors: tuple[str, ...]
    caught_up: bool

    @property
    def cursor(self) -> str:
        """Where to go on once all of it is kept."""
        return self.cursors[-1]

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)


class Subscriber:
    """Follows one view for one purpose. ``terms``: asks the bus for what `GET /v1/views/{view}/subscription` tells;
    ``connection``: the department's own; ``schema``: gives the schema of an id; ``cursor``: of what was kept last.

    ``timeout_s``: how long it waits for the stream to be made ready. Belongs to one thread. Raises `BadCursor` for a
    text that is no cursor, what ``terms`` raises for a refusal, `BrokerUnavailable`, `StreamStarting`.
    """

    def __init__(
        self,
        terms: Callable[[], Mapping[str, Any]],
        connection: KafkaConnection,
        schema: Callable[[int], Json],
        *,
        cursor: str | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        self._ask, self._connection, self._decoder = terms, connection, Decoder(schema)
        self._place = read_place(cursor) if cursor else None
        self._timeout_s = timeout_s
        self.terms: Mapping[str, Any] = self._ready()
        """What the bus said of the stream: columns, masked, policy_revision and more."""
        self._consumer = self._connect()
        try:
            self._reading = self._begin()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the connection back."""
        self._consumer.close(autocommit=False)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def batches(self, *, until_caught_up: bool = False) -> Iterator[Batch]:
        """Batches of at most about 500 changes, for ever; or until nothing more is there. Where it cannot go on from
        its place (see the notices), every row comes anew between `snapshot_begins` and `snapshot_ends`.

        Raises what the class does, when the grant ends: what the bus says of it.
        """
        end = self._end() if until_caught_up else None
        while True:
            told = self._told()
            if told:
                places, changes = zip(*told, strict=True)
                yield Batch(changes, tuple(map(str, places)), self._reading.next >= self._known_end())
            if end is not None and self._reading.next >= end:
                return

    def _told(self) -> list[tuple[Any, Change]]:
        now_ms = time.time_ns() // 1_000_000
        told = self._reading.waiting(now_ms)
        for record in self._poll() if not told else ():
            told += self._reading.take(record.offset, self._decoder.change(record), now_ms)
        return told or self._reading.waiting(now_ms)

    def _poll(self) -> list[Record]:
        """The next records; perhaps none. Goes on elsewhere where the topic is not as it was."""
        try:
            taken = self._consumer.poll(timeout_ms=_POLL_MS, max_records=BATCH).get(self._partition, ())
            if not taken:
                self._reading.pass_to(self._consumer.position(self._partition))
        except (kafka_errors.OffsetOutOfRangeError, kafka_errors.TopicAuthorizationFailedError):
            self.terms = self._ready()  # tells what became of the grant
            self._place = self._reading.place(self._reading.next, time.time_ns() // 1_000_000)
            self._reading = self._begin()
            return []
        except kafka_errors.KafkaError as error:
            raise BrokerUnavailable() from error
        return [Record(record.offset, record.key, record.value, record.headers) for record in taken]

    def _begin(self) -> Reading:
        """Goes to the place, or to the start of all there is."""
        partition = self._partition
        try:
            self._consumer.assign([partition])
            start = max(self._consumer.beginning_offsets([partition])[partition], int(self.terms["from_offset"]))
            bounds = Bounds(str(self.terms["topic_id"]), start, max(start, self._end()))
            names = {"revision": "policy_revision", "view": "view", "purpose": "purpose", "columns": "columns"}
            about = {name: self.terms[member] for name, member in names.items()} | {"masked": self.terms["masked"]}
            self._bounds = bounds
            reading = Reading(self._place, bounds, now_ms=time.time_ns() // 1_000_000, about=about)
            self._consumer.seek(partition, reading.next)
        except kafka_errors.KafkaError as error:
            raise BrokerUnavailable() from error
        return reading

    def _ready(self) -> Mapping[str, Any]:
        """The terms, once the topic holds what they allow."""
        deadline = time.monotonic() + self._timeout_s
        while (terms := self._ask())["state"] != "running":
            if time.monotonic() > deadline:
                raise StreamStarting(view=terms["view"])
            time.sleep(_ASK_EVERY_S)
        return terms

    def _connect(self) -> KafkaConsumer:
        try:
            return KafkaConsumer(
                **self._connection.kafka_python(),
                client_id=f"{self._connection.username}.subscriber",
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                bootstrap_timeout_ms=10_000,
            )
        except (kafka_errors.KafkaError, OSError) as error:
            raise BrokerUnavailable() from error

    def _known_end(self) -> int:
        """The end as the last fetch saw it."""
        return max(self._bounds.end, self._consumer.highwater(self._partition) or 0)

    def _end(self) -> int:
        return int(self._consumer.end_offsets([self._partition])[self._partition])

    @property
    def _partition(self) -> TopicPartition:
        return TopicPartition(str(self.terms["topic"]), 0)
