"""The served world with views that were really built, from events that are in a real Kafka: histories and lineage."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from kafka import KafkaProducer
from served_world import World, served

from bus.contracts.codec import Codec
from bus.contracts.wire import frame
from bus.core.contracts import Contract
from bus.core.events import headers, record_key
from bus.core.grants import parse_grant_set
from bus.infra.connection import KafkaConnection
from bus.infra.kafka import Admin
from bus.views.builder import Builder
from bus.views.decoding.decoder import Decoder
from bus.views.derived.enrolment import Enrolment
from bus.views.rebuilding.generation import prepare, set_state
from bus.views.store import POSITION, VIEW

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
BLANK: Mapping[str, Any] = {"string": "x", "long": 0, "int": 0}
INSPECTED: Mapping[str, Any] = {
    "view": "inspected",
    "title": {"zh": "检查与经营者", "en": "Inspections with their business"},
    "owner": "food",
    "kind": "history",
    "key": ["inspection_id"],
    "sources": {"inspection": {"entity": "food.inspection"}},
    "lookups": {"business": {"view": "food_business", "by": "licence_number"}},
    "fields": {
        "licence_number": {"from": "inspection.licence_number"},
        "result": {"from": "inspection.result"},
        "legal_name": {"from": "business.legal_name"},
        "ward": {"from": "business.ward"},
    },
}


@dataclass
class Message:
    """A record as it was consumed. ``timestamp``: a day of the test's choosing, so that histories have known times."""

    offset: int
    key: bytes
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    timestamp: int


@dataclass
class Traced:
    """``sent``: of each event its id and place, in the order of publishing."""

    world: World
    producer: KafkaProducer
    logs: dict[str, list[Message]] = field(default_factory=dict)
    sent: list[tuple[str, str]] = field(default_factory=list)

    def publish(self, entity: str, key: Any, values: Mapping[str, Any] | None, *, day: int, **more: str) -> str:
        """One event, an upsert of ``values`` or a delete; its id. It counts as appended on that day."""
        registry = self.world.parts.registry
        contract = registry.contract(entity)
        (schema_id,) = registry.ids(entity)
        value = None if values is None else frame(schema_id, _codec(contract).encode(_record(contract, key, values)))
        event_id = f"event-{len(self.sent)}"
        operation = "delete" if values is None else "upsert"
        envelope = headers(
            event_id=event_id, department=contract.department, entity=contract.entity, operation=operation, **more
        )
        text = record_key((key,)).encode()
        done = self.producer.send(contract.topic, value, key=text, headers=envelope, partition=0).get(30)
        at_ms = int((START + dt.timedelta(days=day)).timestamp() * 1_000)
        self.logs.setdefault(entity, []).append(Message(done.offset, text, value, envelope, at_ms))
        self.sent.append((event_id, f"{contract.topic}/0@{done.offset}"))
        return event_id

    def build(self, *views: str) -> None:
        """Builds the views anew from what was published."""
        shapes = self.world.parts.shapes()
        for name in views:
            shape = shapes[name]
            with self.world.views.begin() as connection:
                connection.execute(sa.update(VIEW).where(VIEW.c.name == name).values(fingerprint=""))
                connection.execute(sa.delete(POSITION).where(POSITION.c.view == name))
                epoch = connection.scalar(sa.select(VIEW.c.epoch).where(VIEW.c.name == name)) or 0
            prepare(self.world.views, shape, epoch)
            if shape.view.reads:
                assert Enrolment(self.world.views, shape, epoch).refresh()
            if shape.view.kind == "aggregate":
                continue
            builder = Builder(self.world.views, shape, epoch)
            for contract in shape.contracts:
                log = self.logs.get(contract.id, [])
                decoder = Decoder(contract, self.world.parts.registry)
                end = log[-1].offset + 1 if log else 0
                builder.apply([decoder.decode(contract.topic, 0, log, base=0, next_offset=end, read_ms=1)])
            set_state(self.world.views, name, epoch, "live")

    def place(self, event_id: str) -> str:
        return dict(self.sent)[event_id]


def _codec(contract: Contract) -> Codec:
    return Codec(contract.schema)


def _record(contract: Contract, key: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    blank = {doc["name"]: _blank(doc["type"]) for doc in contract.schema["fields"]}
    return {**blank, contract.key[0]: key, **values}


def _blank(avro: Any) -> Any:
    if isinstance(avro, dict):
        return START.date() if avro.get("logicalType") == "date" else START
    return BLANK.get(avro) if isinstance(avro, str) else None


def _grants() -> dict[str, Any]:
    year = dt.date.today().year
    base = {
        "consumer": "lab",
        "purpose": "levy",
        "valid": {"from": dt.date(year, 1, 1), "to": dt.date(year, 12, 31)},
        "legal_basis": "Laboratory Act 3",
        "channels": ["query"],
    }
    inspection = ["inspection_id", "licence_number", "dba_name", "result", "inspection_date"]
    return {
        "set": "lineage",
        "author": "li.na",
        "approver": "wang.wei",
        "grants": [
            {
                **base,
                "id": "lab-inspections",
                "view": "inspection_history",
                "fields": inspection,
                "masks": {"dba_name": {"keep_first": 1}},
                "rows": {"field": "result", "op": "eq", "value": "Fail"},
            },
            {
                **base,
                "id": "lab-inspected",
                "view": "inspected",
                "fields": ["inspection_id", "result", "legal_name", "ward"],
            },
            {
                **base,
                "id": "lab-wards",
                "view": "ward_hygiene",
                "fields": ["ward", "complaints", "failed"],
            },
            {
                **base,
                "id": "lab-complaints",
                "view": "complaint",
                "fields": ["request_number", "ward", "status"],
                "rows": {"field": "status", "op": "eq", "value": "Open"},
            },
        ],
    }


def _publish(traced: Traced) -> None:
    """Two terms of one licence, two inspections of it with a correction and a deletion, complaints of ward 3, and an
    inspection of nobody who has a licence."""
    first = {"licence_number": 20, "legal_name": "老王饭店", "ward": 3, "term_start": dt.date(2024, 1, 1)}
    traced.publish("market.business_licence", "20-1", first, day=0, time="2025-12-01T08:00:00Z")
    second = {**first, "legal_name": "Old Wang", "term_start": dt.date(2025, 1, 1)}
    traced.publish("market.business_licence", "20-2", second, day=1, time="2025-12-02T08:00:00Z")
    failed = {"licence_number": 20, "dba_name": "WANG", "result": "Fail", "inspection_date": dt.date(2025, 6, 1)}
    traced.publish("food.inspection", 7, {**failed, "result": "Pass"}, day=2, time="2025-06-01T00:00:00Z")
    traced.publish("food.inspection", 8, {**failed, "dba_name": "=LI"}, day=3)
    traced.publish("food.inspection", 7, failed, day=4, time="2025-06-01T00:00:00Z", corrects="event-2")
    traced.publish("food.inspection", 8, None, day=6)
    for number, status in (("c1", "Open"), ("c2", "Completed"), ("c3", "Open")):
        traced.publish("sanitation.complaint", number, {"ward": 3, "status": status}, day=1)
    unlicensed = {**failed, "licence_number": 999_999, "result": "Out of Business"}
    traced.publish("food.inspection", 9, unlicensed, day=7, time="2031-01-01T00:00:00Z")


@contextlib.contextmanager
def traced(database_url: str, opa_binary: Path, folder: Path, kafka: KafkaConnection) -> Iterator[Traced]:
    """The world, until the block ends."""
    with served(database_url, opa_binary, folder, kafka=kafka, more=[INSPECTED]) as world:
        admin, producer = Admin(kafka), KafkaProducer(**kafka.kafka_python(), acks="all")
        for entity in ("market.business_licence", "food.inspection", "sanitation.complaint"):
            if world.parts.registry.contract(entity).topic not in admin.topics():
                admin.ensure_topic(world.parts.registry.contract(entity).topic, partitions=1)
        world.parts.grants.apply(parse_grant_set(_grants()), os_user="test")
        found = Traced(world, producer)
        _publish(found)
        found.build("food_business", "inspection_history", "complaint", "inspected", "ward_hygiene")
        yield found
        producer.close()
        admin.close()
