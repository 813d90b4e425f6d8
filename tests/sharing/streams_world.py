"""Streams without Kafka: real views with their logs, a real OPA, real databases; topics in memory that can fail."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import itertools
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fastavro
import sqlalchemy as sa
from dependents_world import World
from opa_process import Opa
from test_builder import REGISTRY
from views_world import Topics

from bus.access.decision import Allow, Decider, Deny
from bus.access.engine import Limits, PolicyEngine
from bus.access.filters import where
from bus.access.identity import Subject
from bus.access.masks import register_functions, shown
from bus.access.opa import OpaClient
from bus.access.store import GrantStore
from bus.audit.log import AuditLog
from bus.contracts.directory import Department, Directory
from bus.contracts.registry import Registry
from bus.core.grants import parse_grant_set
from bus.core.masks import consumer_key, keyed_hash
from bus.core.shares import share_schema, share_subject, share_topic
from bus.errors import BrokerUnavailable, DatabaseUnavailable
from bus.infra.database import open_database
from bus.sharing.streams.desk import Desk
from bus.sharing.streams.following import ViewStreams
from bus.sharing.streams.notices import NOTICE_KEY, Notice, Record, notice_of
from bus.sharing.streams.pages import key_text
from bus.sharing.streams.permits import Permits
from bus.sharing.streams.store import StreamStore
from bus.views.changelog.keeping import switch
from bus.views.changelog.reading import ChangeLog
from bus.views.store import VIEW as VIEWS
from bus.views.tables import live_rows, row_table

SECRET = b"for tests"
VALID = {"from": dt.date(2026, 1, 1), "to": dt.date(2026, 12, 31)}


class Killed(DatabaseUnavailable):
    """The process ended here: nothing after this step happens."""


@dataclass
class Fuse:
    """Ends the process before or after one of its next steps (an append, a write, an audit entry)."""

    left: int | None = None
    after: bool = False

    def blown(self, *, after: bool) -> None:
        if self.left is None:
            return
        if after == self.after or self.left < 0:
            self.left -= 1
            if self.left < 0:
                raise Killed()


@dataclass
class Topic:
    """All records ever appended; those before ``start`` were deleted. ``missing``: it is not there."""

    records: list[Record] = field(default_factory=list)
    start: int = 0
    missing: bool = False


@dataclass
class MemorySink:
    """Share topics in memory. ``fuse``: see `Fuse`; ``away``: topics that cannot be written."""

    topics: dict[str, Topic] = field(default_factory=dict)
    fuse: Fuse = field(default_factory=Fuse)
    away: set[str] = field(default_factory=set)
    appended: int = 0

    async def append(self, topic: str, records: Sequence[Record]) -> int:
        await asyncio.sleep(0)
        self.fuse.blown(after=False)
        if topic in self.away or topic not in self.topics:
            raise BrokerUnavailable()
        found = self.topics[topic]
        offset = len(found.records)
        found.records += records
        self.appended += len(records)
        self.fuse.blown(after=True)
        return offset

    async def append_all(self, pages: Mapping[str, Sequence[Record]]) -> Mapping[str, int | Exception]:
        found: dict[str, int | Exception] = {}
        for topic, records in pages.items():
            try:
                found[topic] = await self.append(topic, records)
            except (DatabaseUnavailable, BrokerUnavailable) as error:
                found[topic] = error
        return found

    async def delete_before(self, topic: str, offset: int) -> None:
        self.fuse.blown(after=False)
        self.topics[topic].start = max(offset, self.topics[topic].start)

    async def ends(self, topics: Collection[str]) -> dict[str, int]:
        return {name: len(self.topics[name].records) for name in topics if name in self.topics}


class FusedStore(StreamStore):
    """The streams database of a process that may end at any write."""

    fuse = Fuse()

    def save(self, *given: Any, **more: Any) -> Any:
        return self._step(super().save, *given, **more)

    def advance(self, *given: Any) -> None:
        self._step(super().advance, *given)

    def forget(self, *given: Any) -> None:
        self._step(super().forget, *given)

    def _step(self, step: Any, *given: Any, **more: Any) -> Any:
        self.fuse.blown(after=False)
        done = step(*given, **more)
        self.fuse.blown(after=True)
        return done


class StreamsWorld(World):
    """Views and their streams. `streams` are the running process's, by view; `restart` ends it and starts another."""

    def __init__(self, database_url: str, opa: Opa) -> None:
        views = open_database(database_url, "views", durable=False)
        register_functions(views)
        super().__init__(views)
        self.topics = Topics(REGISTRY)
        self.applied: dict[tuple[str, Any], int] = {}
        governance = open_database(database_url, "governance", durable=False)
        self.registry, self.grants = Registry(governance), GrantStore(governance)
        self.directory, self.audit = Directory(governance), AuditLog(governance)
        self.opa, self.sink, self.day = opa, MemorySink(), dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
        for name in ("tax", "social", "food", "market"):
            self.directory.put_department(Department(name, {"en": name}, f"{name}@example"))
        self.database = open_database(database_url, "streams", durable=False)
        self.known = StreamStore(self.database)
        self.document: dict[str, Any] = {}
        self._ticks = itertools.count(1)
        self.clock_s = 0.0

    def begin(self, *names: str) -> None:
        """Takes the views up, live and streamed. Inside the event loop."""
        self.start()
        with self.engine.begin() as connection:
            connection.execute(sa.update(VIEWS).values(state="live"))
        for name in names:
            switch(self.engine, self.shapes[name], self.epochs[name], streamed=True)
        limits = Limits(budget=5.0, canary_good=60.0)
        client = OpaClient(self.opa.url, timeout_s=5)
        self.decider = Decider(PolicyEngine(client, limits=limits), self.grants, self.directory, clock=self.now)
        self.names = names
        self.restart()

    def now(self) -> dt.datetime:
        return self.day

    def restart(self) -> None:
        """Another process, as after a kill: it has only what the databases and topics have."""
        store = FusedStore(self.database)
        store.fuse = self.sink.fuse = Fuse()
        permits = Permits(self.decider, self.grants, now=self.now, monotonic=lambda: float(next(self._ticks)))
        self.desk = Desk(
            permits=permits,
            log=ChangeLog(self.engine),
            store=store,
            audit=self.audit,
            sink=self.sink,
            registry=self.registry,
            shapes=lambda: self.shapes,
            mask_secret=SECRET,
            now=self.now,
        )
        self.streams = {name: self._streams(name) for name in self.names}

    def _streams(self, view: str) -> ViewStreams:
        states = [state for state in self.known.subscriptions() if state.view == view]
        return ViewStreams(self.desk, view, states, lost=lambda error: None, clock=lambda: self.clock_s)

    # What people do

    def grant(self, *grants: Mapping[str, Any]) -> None:
        """Replaces all grants; topics and schemas are there when this returns, as serve sees to."""
        base = {"channels": ["stream"], "valid": VALID, "legal_basis": "Act 1", "purpose": "levy"}
        filled = [{"id": f"{doc['consumer']}-{doc['view']}", **base, **doc} for doc in grants]
        document = {"set": "all", "author": "li.na", "approver": "wang.wei", "grants": filled}
        parsed = parse_grant_set(document)
        self.grants.apply(parsed, os_user="test")
        for grant in parsed.grants:
            columns = [column for column in self.shapes[grant.view].columns if column.name in grant.fields]
            schema = share_schema(grant.consumer, grant.view, columns, grant.masks)
            self.registry.register_share(share_subject(grant.consumer, grant.view), schema)
            self.sink.topics.setdefault(share_topic(grant.consumer, grant.view), Topic())

    def feed(self) -> None:
        """Applies every event that is not yet applied, to every view."""
        for name, builder in self.builders.items():
            for place in sorted(self.topics.logs):
                entity, _ = place
                at, end = self.applied.get((name, place), 0), len(self.topics.logs[place])
                if entity in builder.shape.view.entities and at < end:
                    builder.apply([self.topics.batch(*place, at, end)])
                    self.applied[name, place] = end

    # What the process does

    async def settle(self, *, turns: int = 400) -> None:
        """Lets the process run until it has nothing left to do, or was killed."""
        quiet = 0
        for _ in range(turns):
            self.clock_s += 60.0
            moved = await self.turn()
            if self.killed:
                return
            await asyncio.sleep(0.001)
            busy = any(seat.task is not None for streams in self.streams.values() for seat in streams.seats.values())
            quiet = 0 if busy or moved else quiet + 1
            if quiet == 2:
                return
        raise AssertionError("the streams do not come to rest")

    async def run(self, turns: int) -> None:
        """Lets the process try for so long, where it cannot come to rest."""
        for _ in range(turns):
            self.clock_s += 60.0
            await self.turn()
            await asyncio.sleep(0.005)

    async def turn(self) -> bool:
        """One turn of every view; whether there was something to send."""
        moved = False
        for streams in self.streams.values():
            try:
                moved = await streams.turn() or moved
            except Killed:
                return False
        return moved

    @property
    def killed(self) -> bool:
        left = self.sink.fuse.left
        return left is not None and left < 0

    async def kill(self) -> None:
        """Ends the process between two of its steps and starts another."""
        for streams in self.streams.values():
            await streams.stop()
        self.restart()

    # What must hold

    async def allowed(self, consumer: str, view: str, purpose: str) -> Allow | None:
        decision = await self.decider.decide(Subject(consumer), self.shapes[view], purpose, "stream")
        return None if isinstance(decision, Deny) else decision

    def door(self, allow: Allow) -> dict[str, dict[str, Any]]:
        """What the query door's SQL shows under the decision, by the key that the topic has for it."""
        shape, key = self.shapes[allow.view], consumer_key(SECRET, allow.consumer)
        table, names = row_table(shape), shape.view.key
        columns = [column for column in shape.columns if column.name in allow.columns]
        with_ = {"dialect": self.engine.dialect.name, "key": key}
        masked = [shown(table.c[item.name], allow.masks.get(item.name), item.kind, **with_) for item in columns]
        visible = [column.label(f"s_{place}") for place, column in enumerate(masked)]
        raw = [table.c[name].label(f"k_{name}") for name in names]
        query = sa.select(*raw, *visible).where(live_rows(table), where(allow, table))
        with self.engine.connect() as connection:
            rows = connection.execute(query).all()
        opaque = any(name not in allow.columns or name in allow.masks for name in names)
        found = {}
        for row in rows:
            text = key_text(tuple(row[: len(names)]))
            values = zip([column.name for column in columns], row[len(names) :], strict=True)
            found[keyed_hash(key, text) if opaque else text] = dict(values)
        return found

    def readable(self, consumer: str, view: str) -> list[Record]:
        """What is in the topic from its start."""
        topic = self.sink.topics.get(share_topic(consumer, view), Topic())
        return topic.records[topic.start :]

    def folded(self, consumer: str, view: str) -> dict[str, dict[str, Any]]:
        """What a client that begins at the topic's start has in the end."""
        rows: dict[str, dict[str, Any]] = {}
        for key, value, _ in self.readable(consumer, view):
            if key.startswith(NOTICE_KEY):
                continue
            if value is None:
                rows.pop(key.decode(), None)
            else:
                rows[key.decode()] = self.decoded(value)
        return rows

    def decoded(self, value: bytes) -> dict[str, Any]:
        schema = self.registry.schema(int.from_bytes(value[1:5], "big"))
        stream = io.BytesIO(value[5:])
        found = fastavro.schemaless_reader(stream, fastavro.parse_schema(dict(schema)), None)
        assert not stream.read()
        return dict(found)

    def notices(self, consumer: str, view: str) -> list[Notice]:
        """Those that can be read."""
        found = [notice_of(key, headers) for key, _, headers in self.readable(consumer, view)]
        return [notice for notice in found if notice is not None]

    def check_tombstones(self) -> None:
        """None for a key that the topic never had."""
        for name, topic in self.sink.topics.items():
            known: set[bytes] = set()
            for key, value, _ in topic.records:
                if not key.startswith(NOTICE_KEY):
                    assert value is not None or key in known, f"{name}: a tombstone of {key!r}, never delivered"
                    known.add(key)

    async def close(self) -> None:
        for streams in self.streams.values():
            await streams.stop()
        self.audit.close()
        self.engine.dispose()
        self.database.dispose()


def some_grant(choose: random.Random, consumer: str, view: str) -> dict[str, Any]:
    """A grant on `food_business`: some columns, some of them masked, some rows."""
    fields = [name for name in ("licence", "name", "area", "fee", "starts", "result") if choose.random() < 0.7]
    masks = {
        "name": {"keep_first": 1}, "fee": {"round": 0}, "starts": {"year": True},
        "licence": {"hash": True}, "result": {"constant": "?"},
    }  # fmt: skip
    rows = choose.choice(
        [
            None,
            {"field": "licence", "op": "lte", "value": choose.randint(1, 5)},
            {"field": "result", "op": choose.choice(["eq", "ne"]), "value": "Pass"},
            {"any": [{"field": "name", "op": "prefix", "value": "a"}, {"field": "result", "op": "missing"}]},
            {"field": "starts", "op": "gte", "value": {"today": -choose.randint(0, 5_000)}},
        ]
    )
    fields = fields or ["name"]
    return {
        "consumer": consumer,
        "view": view,
        "purpose": choose.choice(["levy", "levy", "employment_support"]),
        "fields": fields,
        "masks": {name: mask for name, mask in masks.items() if name in fields and choose.random() < 0.3},
        **({"rows": rows} if rows else {}),
    }
