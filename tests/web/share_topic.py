"""A share topic as the streams process writes it, with its state in the streams database, written by a test."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import httpx2
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from served_world import World

from bus.access.decision import Allow, Decider
from bus.access.engine import Limits, PolicyEngine
from bus.access.identity import Subject
from bus.access.opa import OpaClient
from bus.contracts.wire import frame
from bus.core.events import record_key
from bus.core.masks import consumer_key
from bus.core.shares import share_schema, share_subject, share_topic
from bus.infra.connection import KafkaConnection
from bus.infra.kafka import Admin
from bus.sharing.streams.cells import encoder
from bus.sharing.streams.notices import Notice, Stamp
from bus.sharing.streams.states import SubscriptionState
from bus.sharing.streams.store import StreamStore
from bus.sharing.streams.terms import Terms
from bus.views.catalogue import Shape


def decided(world: World, department: str, view: str, purpose: str) -> Allow:
    """The decision on a stream, by a decider of the test's own."""

    async def ask() -> Allow:
        opa = OpaClient(world.opa.url, timeout_s=5)
        engine = PolicyEngine(opa, limits=Limits(budget=5.0, canary_good=10.0))
        decider = Decider(engine, world.parts.grants, world.parts.directory)
        try:
            shape = world.parts.shapes()[view]
            return await decider.require(Subject(department), shape, purpose, "stream")
        finally:
            await opa.close()

    return asyncio.run(ask())


@dataclass
class ShareTopic:
    """One consumer's stream of a view."""

    world: World
    kafka: KafkaConnection
    admin: Admin
    store: StreamStore
    allow: Allow
    shape: Shape
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    seq: int = 0

    def __post_init__(self) -> None:
        config = {"cleanup.policy": "compact,delete", "retention.ms": "-1"}
        self.admin.ensure_topic(self.topic, config=config)
        self._producer = KafkaProducer(**self.kafka.kafka_python(), linger_ms=5)
        self.open()

    @property
    def topic(self) -> str:
        return share_topic(self.allow.consumer, self.allow.view)

    @property
    def end(self) -> int:
        self._producer.flush()
        return self.admin.end_offsets([self.topic])[self.topic, 0]

    def open(self, *, boundary: int = 0) -> None:
        """States that the topic holds what is decided, from ``boundary`` on."""
        terms = Terms.of(self.allow)
        known = self.store.subscription(terms.consumer, terms.view) or SubscriptionState(terms.consumer, terms.view)
        state = replace(
            known, purpose=terms.purpose, digest=terms.digest, terms=terms.text, state="running", boundary=boundary
        )
        self.store.save(state)

    def upsert(self, *rows: Mapping[str, Any]) -> None:
        """Rows as the view has them: what the decision hides is left out here."""
        columns = [column for column in self.shape.columns if column.name in self.allow.columns]
        schema = share_schema(self.allow.consumer, self.allow.view, columns, self.allow.masks)
        subject = share_subject(self.allow.consumer, self.allow.view)
        number = self.world.parts.registry.register_share(subject, schema)
        key = consumer_key(b"for tests", self.allow.consumer)
        encoders = {column.name: encoder(column, self.allow.masks.get(column.name), key) for column in columns}
        for row in rows:
            name = record_key(row[part] for part in self.shape.view.key)
            self.rows[name] = {column: row.get(column) for column in encoders}
            self._send(name, frame(number, b"".join(encode(row.get(name)) for name, encode in encoders.items())))

    def delete(self, key: str) -> None:
        self.rows.pop(key, None)
        self._send(key, None)

    def notice(self, kind: Any, reason: str = "") -> int:
        """The offset of the notice."""
        at = dt.datetime.now(dt.UTC).isoformat()
        allow, view = self.allow, self.allow.view
        self.seq += 1
        made = Notice(kind, view, allow.policy_revision, reason, allow.purpose, allow.columns, (), self.seq, at)
        key, value, headers = made.record(self.seq)
        return int(self._producer.send(self.topic, value, key, headers=list(headers), partition=0).get(10).offset)

    def trim(self, offset: int) -> None:
        """Deletes the records before the offset."""
        self._producer.flush()
        client = KafkaAdminClient(**self.kafka.kafka_python())
        client.delete_records({TopicPartition(self.topic, 0): offset})
        client.close()

    def close(self) -> None:
        self._producer.close()

    def _send(self, key: str, value: bytes | None) -> None:
        self.seq += 1
        stamp = Stamp(self.allow.consumer, self.allow.view, 1)
        name, value, headers = stamp.record(key.encode(), value, self.seq)
        self._producer.send(self.topic, value, name, headers=list(headers), partition=0)


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    name: str
    id: str
    data: dict[str, Any]


def events(response: httpx2.Response) -> Iterator[Event]:
    """The events of a stream, parsed by the rules of the standard; comments are left out."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if not line:
            if "data" in fields:
                yield Event(fields["event"], fields.get("id", ""), json.loads(fields["data"], parse_float=Decimal))
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")


@dataclass
class Kept:
    """A table kept from events, as a careful consumer keeps it: what a snapshot does not bring is gone."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: set[str] | None = None
    cursor: str = ""

    def take(self, event: Event) -> None:
        if event.name == "upsert":
            self.rows[event.data["key"]] = event.data["row"]
            if self.seen is not None:
                self.seen.add(event.data["key"])
        elif event.name == "delete":
            self.rows.pop(event.data["key"], None)
        elif event.data["kind"] == "snapshot_begins":
            self.seen = set()
        elif event.data["kind"] == "snapshot_ends" and self.seen is not None:
            self.rows = {key: row for key, row in self.rows.items() if key in self.seen}
            self.seen = None
        self.cursor = event.id or self.cursor


def kinds(found: Sequence[Event]) -> list[str]:
    """What came, in short: the kind of a notice, the name of every other event."""
    return [event.data["kind"] if event.name == "notice" else event.name for event in found]
