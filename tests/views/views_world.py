"""What the view tests build: three contracts, a registry, and events as Kafka would hand them over."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bus.contracts.codec import Codec
from bus.contracts.wire import frame
from bus.core.contracts import Contract, Json, parse_contract
from bus.core.events import headers, record_key
from bus.core.names import topic_of
from bus.errors import NotFound, UnknownEntity
from bus.views.decoding.batches import Batch
from bus.views.decoding.decoder import Decoder
from bus.views.oracle.verify import Event

ATTRIBUTES = {
    "bus.owner": "market",
    "bus.contact": "data@market.example",
    "bus.freshness": "P1D",
    "bus.retention": "P5Y",
    "bus.legal_basis": "test",
}


def schema(namespace: str, name: str, key: Sequence[str], fields: Mapping[str, Any], **more: Any) -> Json:
    """An .avsc document with the required attributes."""
    declared = [{"name": field_name, "type": avro} for field_name, avro in fields.items()]
    for doc in declared:
        if isinstance(doc["type"], list):
            doc["default"] = None
    return {
        "type": "record", "name": name, "namespace": namespace, **ATTRIBUTES, "bus.key": list(key), **more,
        "fields": declared,
    }  # fmt: skip


DATE = {"type": "int", "logicalType": "date"}
INSTANT = {"type": "long", "logicalType": "timestamp-micros"}
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
LICENCE = schema(
    "market",
    "Licence",
    ["term_id"],
    {
        "term_id": "string",
        "licence": ["null", "long"],
        "starts": ["null", DATE],
        "name": ["null", "string"],
        "area": ["null", "double"],
        "fee": ["null", MONEY],
    },
)
INSPECTION = schema(
    "food",
    "Inspection",
    ["inspection"],
    {
        "inspection": "long",
        "business": ["null", "long"],
        "revision": ["null", "long"],
        "at": ["null", INSTANT],
        "result": ["null", "string"],
        "passed": ["null", "boolean"],
    },
    **{"bus.version": "revision"},
)
VIEW = {
    "view": "food_business",
    "owner": "market",
    "key": ["licence"],
    "sources": {
        "licence": {"entity": "market.licence", "rank": ["starts", "name"]},
        "inspection": {"entity": "food.inspection", "key": ["business"], "rank": ["at", "passed"]},
    },
    "fields": {
        "name": {"from": "licence.name"},
        "area": {"from": "licence.area"},
        "fee": {"from": "licence.fee"},
        "starts": {"from": "licence.starts"},
        "result": {"from": "inspection.result"},
        "inspected": {"from": "inspection.at"},
    },
}
INSPECTIONS = {
    "view": "inspections",
    "owner": "food",
    "key": ["inspection"],
    "sources": {"i": {"entity": "food.inspection"}},
    "fields": {name: {"from": f"i.{name}"} for name in ("business", "revision", "at", "result", "passed")},
}
BY_RESULT = {
    "view": "by_result",
    "owner": "food",
    "kind": "aggregate",
    "over": {
        "i": {"view": "inspections", "join": {"business": "food_business.licence"}, "bring": ["name"]},
        "b": {"view": "food_business"},
    },
    "group_by": ["name"],
    "measures": {
        "inspections": {"count": "i"},
        "failed": {"count": "i", "where": {"field": "result", "op": "prefix", "value": "F"}},
        "not_passed": {"count": "i", "where": {"not": {"field": "result", "op": "eq", "value": "Pass"}}},
        "last": {"max": "i.at"},
        "results": {"distinct": "i.result"},
        "businesses": {"count": "b"},
        "fees": {"sum": "b.fee"},
        "first_start": {"min": "b.starts"},
    },
}


def demo_schemas(suffix: str) -> tuple[Json, Json]:
    """The two contracts under departments that no other test has."""
    return {**LICENCE, "namespace": f"m{suffix}"}, {**INSPECTION, "namespace": f"f{suffix}"}


def demo_views(suffix: str) -> list[dict[str, Any]]:
    """The three views over those contracts."""
    text = json.dumps([VIEW, INSPECTIONS, BY_RESULT])
    text = text.replace('"market.licence"', f'"m{suffix}.licence"')
    found: list[dict[str, Any]] = json.loads(text.replace('"food.inspection"', f'"f{suffix}.inspection"'))
    return found


class FixedRegistry:
    """Schemas by number: what the decoder needs of a registry. ``unknown``: what to raise for any other id."""

    def __init__(self, *schemas: Json) -> None:
        self.schemas: dict[int, Json] = dict(enumerate(schemas, start=1))
        self.unknown: type[Exception] = NotFound

    def schema(self, schema_id: int) -> Json:
        if schema_id not in self.schemas:
            raise self.unknown()
        return self.schemas[schema_id]

    def ids(self, entity: str) -> frozenset[int]:
        return frozenset(i for i, found in self.schemas.items() if parse_contract(found).id == entity)

    def contract(self, entity: str) -> Contract:
        ids = self.ids(entity)
        if not ids:
            raise UnknownEntity(entity=entity)
        return parse_contract(self.schemas[max(ids)])

    @property
    def contracts(self) -> dict[str, Contract]:
        return {parse_contract(found).id: parse_contract(found) for found in self.schemas.values()}


@dataclass
class Message:
    """What the decoder uses of a consumed record."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    timestamp: int = 1_700_000_000_000


@dataclass
class Topics:
    """Topics in memory: events appended to partitions, and batches decoded from them."""

    registry: FixedRegistry
    logs: dict[tuple[str, int], list[Message]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    codecs: dict[str, tuple[int, Codec]] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)

    def _codec(self, entity: str) -> tuple[int, Codec]:
        if entity not in self.codecs:
            newest = max(self.registry.ids(entity))
            self.codecs[entity] = (self.ids.get(entity, newest), Codec(self.registry.schema(newest)))
        return self.codecs[entity]

    def log(self, entity: str, partition: int) -> list[Message]:
        return self.logs.setdefault((entity, partition), [])

    def append(self, event: Event, *, copies: int = 1) -> None:
        """The event, at the end of its partition; its own offset is not used. Copies have offsets of their own."""
        contract = self.registry.contract(event.entity)
        number, codec = self._codec(event.entity)
        record = event.record
        key = event.key if record is None else tuple(record[name] for name in contract.key)
        value = None if record is None else frame(number, codec.encode(dict(record)))
        for _ in range(copies):
            log = self.log(event.entity, event.partition)
            stated = event.stated if record is None and contract.version else None
            envelope = headers(
                event_id=uuid.uuid4().hex,
                department=contract.department,
                entity=contract.entity,
                operation="delete" if record is None else "upsert",
                sequence=event.sequence,
                version=stated,
                time=event.time,
            )
            log.append(Message(len(log), record_key(key).encode(), value, envelope, event.appended_ms))
            self.events.append(replace(event, offset=len(log) - 1, key=key))

    def batch(self, entity: str, partition: int, start: int, end: int) -> Batch:
        """The decoded events of ``[start, end)``."""
        log = self.log(entity, partition)
        return Decoder(self.registry.contract(entity), self.registry).decode(
            topic_of(entity), partition, log[start:end], base=start, next_offset=end, end_offset=len(log), read_ms=1
        )
