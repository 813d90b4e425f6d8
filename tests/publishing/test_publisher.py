"""Publishing to a real Kafka: what is acknowledged is there, in order, in its partition; what is refused is told."""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.partitioner.default import murmur2

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))
import contract_worlds as worlds

from bus.contracts.codec import Codec
from bus.contracts.quarantine import Quarantined
from bus.contracts.registry import Registry
from bus.contracts.wire import unframe
from bus.errors import (
    BrokerUnavailable,
    BusError,
    ContractRetired,
    ContractViolation,
    Refused,
    TooLarge,
    UnknownEntity,
)
from bus.infra.database import open_database
from bus.infra.kafka import Admin, KafkaConnection
from bus.publishing.events import Delete
from bus.publishing.publisher import Publisher
from tests.conftest import free_port, unique

ROOT = Path(__file__).parents[2]
PARTITIONS = 4


@dataclass
class World:
    """A department of its own with one entity ``thing`` (id, n, note) and its topic."""

    department: str
    registry: Registry
    kafka: KafkaConnection
    publisher: Publisher
    set_aside: list[Quarantined] = field(default_factory=list)

    @property
    def topic(self) -> str:
        return f"dept.{self.department}.thing"

    def events(self, count: int) -> list[Any]:
        """All events of the topic, by partition and offset; fails if there are not ``count``."""
        consumer = KafkaConsumer(
            **self.kafka.kafka_python(), enable_auto_commit=False, auto_offset_reset="earliest", group_id=None
        )
        places = [TopicPartition(self.topic, partition) for partition in range(PARTITIONS)]
        consumer.assign(places)
        found: list[Any] = []
        ends, deadline = consumer.end_offsets(places), time.monotonic() + 30
        while any(consumer.position(place) < ends[place] for place in places):
            assert time.monotonic() < deadline
            for records in consumer.poll(timeout_ms=200).values():
                found += records
        consumer.close()
        assert len(found) == count
        return sorted(found, key=lambda event: (event.partition, event.offset))

    def records(self, events: list[Any]) -> list[dict[str, Any]]:
        codec = Codec(self.registry.contract(f"{self.department}.thing").schema)
        return [codec.decode(unframe(event.value)[1]) for event in events]


@pytest.fixture
def world(kafka: KafkaConnection, kafka_admin: Admin, sqlite_url: str) -> Iterator[World]:
    department = unique("dept")
    registry = Registry(open_database(sqlite_url, "governance"))
    note = worlds.field("note", ["null", "string"], default=None)
    schema = worlds.contract_of(worlds.field("n", "long", minimum=0), note, namespace=department)
    registry.register(schema)
    kafka_admin.ensure_topic(f"dept.{department}.thing", partitions=PARTITIONS)
    entries: list[Quarantined] = []
    with Publisher(department, connection=kafka, registry=registry, quarantine=entries.extend) as publisher:
        yield World(department, registry, kafka, publisher, entries)


def _partition(key: str) -> int:
    return (murmur2(key.encode()) & 0x7FFFFFFF) % PARTITIONS


def test_one_event(world: World) -> None:
    """It is where the acknowledgement says, with key, four headers and the framed record."""
    ack = world.publisher.publish("thing", {"id": "a|b", "n": 7})
    (event,) = world.events(1)
    assert (ack.topic, ack.partition, ack.offset) == (event.topic, event.partition, event.offset)
    assert event.key == rb"a\|b"
    assert event.headers == [
        ("ce_specversion", b"1.0"),
        ("ce_id", ack.id.encode()),
        ("ce_source", f"/{world.department}".encode()),
        ("ce_type", f"{world.department}.thing.upsert".encode()),
    ]
    assert {unframe(event.value)[0]} == world.registry.ids(f"{world.department}.thing")
    assert world.records([event]) == [{"id": "a|b", "n": 7, "note": None}]


def test_a_delete(world: World) -> None:
    """A null value under the record's key, in the record's partition."""
    upsert = world.publisher.publish(f"{world.department}.Thing", {"id": "k", "n": 7}, sequence=1, corrects="x")
    delete = world.publisher.delete("thing", {"id": "k"}, sequence=2)
    first, second = world.events(2)
    assert (upsert.partition, second.key, second.value) == (delete.partition, b"k", None)
    assert dict(first.headers)["ce_corrects"] == b"x"
    assert dict(second.headers)["ce_type"].endswith(b".thing.delete")
    assert dict(second.headers)["ce_sequence"] == b"2"


def test_a_refused_event(world: World) -> None:
    """Nothing is sent, and the error names field, expected and received, of every field."""
    with pytest.raises(ContractViolation, match="field 'n' expected at least 0, received -1") as refused:
        world.publisher.publish("thing", {"id": "k", "n": -1, "note": 5})
    assert [reason["field"] for reason in refused.value.members["violations"]] == ["n", "note"]
    with pytest.raises(ContractViolation, match="'id'"):
        world.publisher.delete("thing", {})
    world.events(0)


def test_what_may_not_be_published(world: World) -> None:
    """Another department's entity (A28), an entity without a contract, an event over 1 MiB."""
    with pytest.raises(Refused, match="only other"):
        world.publisher.publish("other.thing", {"id": "k", "n": 1})
    with pytest.raises(UnknownEntity):
        world.publisher.publish("nothing", {"id": "k", "n": 1})
    with pytest.raises(TooLarge):
        world.publisher.publish("thing", {"id": "k", "n": 1, "note": "x" * 1_048_576})
    world.events(0)


def test_a_retired_contract(world: World) -> None:
    """Nothing more is sent, one by one or in bulk, and the refusal says whom to ask."""
    world.publisher.publish("thing", {"id": "k", "n": 1})
    world.registry.retire(f"{world.department}.thing")
    with pytest.raises(ContractRetired, match="is retired"):
        world.publisher.publish("thing", {"id": "k", "n": 2})
    with pytest.raises(ContractRetired, match="is retired"):
        world.publisher.publish_many("thing", [{"id": "k", "n": 3}])
    world.events(1)


def test_sequences_once_and_always(world: World) -> None:
    """After an event with a sequence, one without would be older than all: it is refused."""
    world.publisher.publish("thing", {"id": "k", "n": 1}, sequence=5)
    with pytest.raises(ContractViolation, match="ce_sequence"):
        world.publisher.publish("thing", {"id": "k", "n": 2})
    with pytest.raises(ContractViolation, match="ce_sequence"):
        world.publisher.publish_many("thing", [{"id": "k", "n": 2}])
    world.events(1)


def test_many(world: World) -> None:
    """All there once, each record in its partition, a record's events in the order they were given."""
    records = [{"id": f"r{number % 700}", "n": number, "note": None} for number in range(25_000)]
    told: list[int] = []
    report = world.publisher.publish_many("thing", iter(records), progress=told.append)
    assert (report.acknowledged, report.refused) == (25_000, [])
    assert told == [10_000, 20_000, 25_000]
    events = world.events(25_000)
    assert all(event.partition == _partition(event.key.decode()) for event in events)
    decoded = world.records(events)
    assert sorted(decoded, key=lambda record: record["n"]) == records
    for partition in range(PARTITIONS):
        numbers = [record["n"] for event, record in zip(events, decoded, strict=True) if event.partition == partition]
        assert numbers == sorted(numbers)
    assert len({dict(event.headers)["ce_id"] for event in events}) == 25_000
    assert {name for event in events for name, _ in event.headers} == {
        "ce_specversion",
        "ce_id",
        "ce_source",
        "ce_type",
    }


def test_many_with_bad_ones_and_deletes(world: World) -> None:
    """What is refused goes to quarantine with line, key and reasons; the rest is published, deletes in their places."""
    records: list[Any] = [{"id": f"k{number}", "n": number} for number in range(100)]
    records[10] = {"id": "k10", "n": -1}
    records[20] = "nonsense"
    records[30] = Delete({"id": "k1"})
    records[40] = Delete({"id": None})
    report = world.publisher.publish_many("thing", records)
    assert report.acknowledged == 97
    assert [refused.line for refused in report.refused] == [11, 21, 41]
    assert [(entry.line, entry.key) for entry in world.set_aside] == [(11, "k10"), (21, None), (41, None)]
    first = world.set_aside[0]
    assert (first.origin, first.entity) == ("publish", f"{world.department}.thing")
    assert first.reasons == [{"field": "n", "expected": "at least 0", "received": "-1"}]
    assert json.loads(first.payload or b"") == records[10]
    events = world.events(97)
    of_k1 = [event for event in events if event.key == b"k1"]
    assert [event.value is None for event in of_k1] == [False, True]
    assert dict(of_k1[1].headers)["ce_type"].endswith(b".delete")


def test_large_events_fill_batches(world: World) -> None:
    """Events of half a megabyte, several to a partition: each batch stays below the broker's limit."""
    records = [{"id": f"k{number}", "n": number, "note": "x" * 500_000} for number in range(12)]
    records.append({"id": "k", "n": 1, "note": "x" * 1_040_000})
    assert world.publisher.publish_many("thing", records).acknowledged == 13
    world.events(13)


def test_a_key_beyond_the_limit_holds_up_nobody(world: World) -> None:
    """Key and value together beyond what Kafka takes are refused as a row; the others arrive."""
    records = [{"id": f"k{number}", "n": number, "note": None} for number in range(3)]
    records.insert(1, {"id": "k" * 700_000, "n": 1, "note": None})
    report = world.publisher.publish_many("thing", records)
    assert (report.acknowledged, [refused.line for refused in report.refused]) == (3, [2])
    with pytest.raises(TooLarge):
        world.publisher.publish("thing", records[1])
    world.events(3)


def test_a_file_that_cannot_be_read_is_not_kafkas_fault(world: World, tmp_path: Path) -> None:
    """A damaged archive says so; `BrokerUnavailable` would send its owner to the wrong people."""
    path = tmp_path / "things.csv.gz"
    path.write_bytes(gzip.compress(b"id,n,note\na,1,x\n")[:-8] + b"\0" * 8)
    with pytest.raises(gzip.BadGzipFile):
        world.publisher.load("thing", path)


def test_nothing(world: World) -> None:
    """No records, no events, no error."""
    assert world.publisher.publish_many("thing", []).acknowledged == 0


def test_both_ways_choose_the_same_partition(world: World) -> None:
    """A record published once in bulk and once alone lives in one partition."""
    keys = [f"ключ-{number}" for number in range(20)]
    world.publisher.publish_many("thing", [{"id": key, "n": 0} for key in keys])
    for key in keys:
        world.publisher.publish("thing", {"id": key, "n": 1})
    places: dict[bytes, set[int]] = {}
    for event in world.events(40):
        places.setdefault(event.key, set()).add(event.partition)
    assert all(len(partitions) == 1 for partitions in places.values())


def test_a_new_contract_version_is_used(world: World) -> None:
    """Events after a registration carry the new schema's id; no restart is needed."""
    world.publisher.publish("thing", {"id": "k", "n": 1})
    old = world.registry.contract(f"{world.department}.thing").schema
    more = worlds.field("more", ["null", "string"], default=None)
    registered = world.registry.register({**old, "fields": [*old["fields"], more]})
    world.publisher.publish("thing", {"id": "k", "n": 1, "more": "x"})
    ids = [unframe(event.value)[0] for event in world.events(2)]
    assert ids[1] == registered.id != ids[0]


def test_a_file(world: World, kafka_admin: Admin) -> None:
    """The licences of the demo: all but the blank line, which is in quarantine with its line number."""
    schema = json.loads((ROOT / "schemas/market/business_licence.avsc").read_text())
    world.registry.register({**schema, "namespace": world.department})
    topic = f"dept.{world.department}.business_licence"
    kafka_admin.ensure_topic(topic, partitions=PARTITIONS)
    report = world.publisher.load("business_licence", ROOT / "producers/data/business_licences.csv.gz")
    assert (report.acknowledged, [refused.line for refused in report.refused]) == (17_430, [17_432])
    assert sum(kafka_admin.end_offsets([topic]).values()) == 17_430
    assert [entry.line for entry in world.set_aside] == [17_432]


def test_no_broker(world: World) -> None:
    """Within the time given, `BrokerUnavailable`, in single and in bulk; nothing is counted as accepted (E15)."""
    nowhere = replace(world.kafka, bootstrap=f"127.0.0.1:{free_port()}")
    with Publisher(
        world.department, connection=nowhere, registry=world.registry, quarantine=lambda _: None, timeout_s=1.5
    ) as publisher:
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            publisher.publish("thing", {"id": "k", "n": 1})
        with pytest.raises(BrokerUnavailable) as failed:
            publisher.publish_many("thing", [{"id": "k", "n": 1}])
        assert failed.value.members == {"acknowledged": 0}
        assert time.monotonic() - started < 10


def test_a_wrong_password(world: World) -> None:
    """Nothing is sent, in single or in bulk, and both say so in time."""
    wrong = replace(world.kafka, password="wrong")
    with Publisher(
        world.department, connection=wrong, registry=world.registry, quarantine=lambda _: None, timeout_s=3
    ) as publisher:
        with pytest.raises(BusError):
            publisher.publish_many("thing", [{"id": "k", "n": 1}])
        with pytest.raises(BusError):
            publisher.publish("thing", {"id": "k", "n": 1})
    world.events(0)


def test_no_topic(world: World) -> None:
    """A contract without its topic: the error says what to do, and no topic appears by itself."""
    schema = worlds.contract_of(worlds.field("n", "int"), namespace=world.department, name="Other")
    world.registry.register(schema)
    with Publisher(
        world.department, connection=world.kafka, registry=world.registry, quarantine=lambda _: None, timeout_s=2
    ) as publisher:
        for publish in (
            lambda: publisher.publish_many("other", [{"id": "k", "n": 1}]),
            lambda: publisher.publish("other", {"id": "k", "n": 1}),
        ):
            with pytest.raises(BrokerUnavailable):
                publish()


def test_a_failing_quarantine_is_told(world: World) -> None:
    """What could not be set aside is not silently dropped: the load fails."""

    def full(_: Any) -> None:
        raise BusError("the quarantine is full")

    with (
        Publisher(world.department, connection=world.kafka, registry=world.registry, quarantine=full) as publisher,
        pytest.raises(BusError, match="full"),
    ):
        publisher.publish_many("thing", [{"id": "k", "n": -1}])
