"""A promise of freshness that is broken raises one alarm, and one when it is kept again, whatever fails between."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer

from bus.access.broker import ALARM_TOPIC, Broker
from bus.core.contracts import Contract, parse_contract
from bus.errors import BrokerUnavailable
from bus.governance.promises.store import Alarm, PromiseStore
from bus.governance.promises.watch import PromiseWatch
from bus.infra.database import open_database
from bus.infra.kafka import Admin, KafkaConnection
from bus.infra.stack import LocalStack
from bus.wiring.alarms import AlarmSender
from tests.conftest import unique

START_S = 1_700_000_000.0


def contract(department: str = "food", freshness: str = "PT60S") -> Contract:
    return parse_contract(
        {
            "type": "record", "name": "Visit", "namespace": department, "bus.owner": department,
            "bus.contact": "data@food.example", "bus.key": ["id"], "bus.freshness": freshness,
            "bus.retention": "P5Y", "bus.legal_basis": "test", "fields": [{"name": "id", "type": "long"}],
        }
    )  # fmt: skip


class World:
    """A watch over one contract, with clocks and a Kafka in the test's hand."""

    def __init__(self, url: str) -> None:
        self.engine = open_database(url, "governance")
        self.contracts = {"food.visit": contract()}
        self.newest: dict[str, int] = {}
        self.seconds, self.skew = 0.0, 0.0
        self.sent: list[Alarm] = []
        self.down: Callable[[], bool] = lambda: False
        self.store = PromiseStore(self.engine)
        self.watch = self.start()

    def start(self) -> PromiseWatch:
        """A process that starts: what is stored is all it knows."""
        started = self.seconds
        return PromiseWatch(
            PromiseStore(self.engine),
            lambda: self.contracts,
            self._newest,
            self._send,
            wall=lambda: START_S + self.seconds + self.skew,
            clock=lambda: self.seconds - started,
        )

    def _newest(self, topics: Collection[str]) -> Mapping[str, int]:
        return {topic: at for topic, at in self.newest.items() if topic in topics}

    def _send(self, alarm: Alarm) -> None:
        if self.down():
            raise BrokerUnavailable()
        self.sent.append(alarm)

    def event(self) -> None:
        """An event reaches the topic now."""
        self.newest["dept.food.visit"] = int((START_S + self.seconds) * 1_000)

    def look_after(self, seconds: float) -> list[str]:
        """What has been sent in all, after so many seconds and a look."""
        self.seconds += seconds
        self.watch.look()
        return [alarm.kind for alarm in self.sent]


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    found = World(database_url)
    yield found
    found.engine.dispose()


def test_each_break_raises_one_alarm(world: World) -> None:
    """Broken just after the promised time and not before; once, also over restarts; kept with the next event; and a
    second break is a second alarm. An alarm says who, what, which promise and the newest event's time."""
    world.event()
    assert world.look_after(1) == []
    assert world.look_after(59) == []
    assert world.look_after(0.5) == ["broken"]
    world.watch = world.start()
    assert world.look_after(10) == ["broken"]
    world.event()
    assert world.look_after(1) == ["broken", "kept"]
    assert world.look_after(61) == ["broken", "kept", "broken"]
    assert len({alarm.event_id for alarm in world.sent}) == 3
    assert world.sent[0].data == {
        "department": "food", "entity": "food.visit", "promise": "PT60S",
        "newest_event": "2023-11-14T22:13:20Z", "age_s": 60.5, "contact": "data@food.example",
    }  # fmt: skip
    assert world.store.all()["food.visit"].broken


def test_an_alarm_waits_for_kafka(world: World) -> None:
    """While Kafka does not answer nothing is lost: a break that has ended meanwhile is told too, first things first, in
    the next process."""
    world.event()
    world.look_after(1)
    world.down = lambda: True
    with pytest.raises(BrokerUnavailable):
        world.look_after(60)
    world.event()
    with pytest.raises(BrokerUnavailable):
        world.look_after(1)
    assert [alarm.kind for alarm in world.store.unsent()] == ["broken", "kept"]
    world.watch, world.down = world.start(), lambda: False
    assert world.look_after(1) == ["broken", "kept"]
    assert world.look_after(1) == ["broken", "kept"]


def test_one_that_was_sent_but_not_noted_is_sent_again_as_the_same_event(world: World) -> None:
    """At least once: the process dies between Kafka's answer and the note of it; the id is the same."""
    world.event()
    world.look_after(1)
    sending, world.down = world.watch, lambda: len(world.sent) == 1

    def sent_and_gone(alarm: Alarm) -> None:
        world.sent.append(alarm)
        raise BrokerUnavailable()

    sending._send = sent_and_gone
    with pytest.raises(BrokerUnavailable):
        world.look_after(60)
    world.watch, world.down = world.start(), lambda: False
    assert world.look_after(1) == ["broken", "broken"]
    assert world.sent[0] == world.sent[1]


def test_clocks_are_compared_only_at_the_start(world: World) -> None:
    """A wall clock that is set an hour forward while the watch runs breaks no promise, nor does an event that then
    comes look an hour old."""
    world.event()
    world.look_after(1)
    world.skew = 3_600.0
    assert world.look_after(30) == []
    world.event()
    assert world.look_after(2) == []
    assert world.look_after(57) == []
    assert world.look_after(4) == ["broken"]


def test_an_entity_without_events_counts_from_when_it_was_first_watched(world: World) -> None:
    """Whoever never publishes breaks its promise too; the alarm has no time of an event."""
    assert world.look_after(0) == []
    world.watch = world.start()
    assert world.look_after(61) == ["broken"]
    assert world.sent[0].data["newest_event"] is None


def test_what_retention_took_was_there(world: World) -> None:
    """A topic that is empty by now still had its newest event when it had it."""
    world.event()
    world.look_after(1)
    world.newest.clear()
    world.watch = world.start()
    assert world.look_after(58) == []
    assert world.look_after(2) == ["broken"]


def test_promises_come_and_go_with_contracts(world: World) -> None:
    """A longer promise in a new version ends the break; one that cannot be read is not watched; a retired contract is
    watched no more."""
    world.event()
    assert world.look_after(61) == ["broken"]
    world.contracts = {"food.visit": contract(freshness="PT1H")}
    assert world.look_after(1) == ["broken", "kept"]
    assert world.store.all()["food.visit"].promise == "PT1H"
    world.contracts = {"food.visit": contract(freshness="every day")}
    assert world.look_after(4_000) == ["broken", "kept"]
    assert world.store.all() == {}
    world.contracts = {"food.visit": contract()}
    assert world.look_after(1) == ["broken", "kept", "broken"]
    world.contracts = {"food.visit": replace(contract(), retired=True)}
    assert world.look_after(1) == ["broken", "kept", "broken"]
    assert world.store.all() == {}


def test_two_processes_raise_it_once(world: World) -> None:
    """Both see the break; one turns it, and there is one alarm."""
    world.event()
    other = world.start()
    world.look_after(1)
    other.look()
    world.look_after(60)
    other.look()
    assert [alarm.kind for alarm in world.sent] == ["broken"]


def test_alarms_on_kafka(sqlite_url: str, kafka: KafkaConnection, kafka_admin: Admin, broker_stack: LocalStack) -> None:
    """The age comes from the broker's append time and the alarm is a CloudEvent on `bus.alarms`."""
    world, department = World(sqlite_url), unique("p")
    found = contract(department, "PT60S")
    world.contracts = {found.id: found}
    broker = Broker(lambda: Admin(kafka), broker_stack.secrets.kafka_password)
    broker.prepare()
    broker.open_topic(found)
    producer = KafkaProducer(**kafka.kafka_python())
    producer.send(found.topic, b"x", key=b"1", partition=2, timestamp_ms=1_000).get(timeout=10)
    producer.close()
    appended = kafka_admin.newest_ms([found.topic, "no.such.topic"])
    assert appended[found.topic] > 1_700_000_000_000
    assert list(appended) == [found.topic]
    broker.close()
    sender = AlarmSender(kafka)
    world.watch = PromiseWatch(
        world.store,
        lambda: world.contracts,
        kafka_admin.newest_ms,
        sender,
        wall=lambda: appended[found.topic] / 1_000 + world.seconds,
        clock=lambda: world.seconds,
    )
    world.look_after(59)
    world.look_after(2)
    sender.close()
    data, attributes = _alarm_of(kafka, found.id)
    assert (data["department"], data["entity"], data["promise"]) == (department, found.id, "PT60S")
    assert (attributes["ce_type"], attributes["ce_subject"]) == (b"bus.freshness.broken", found.id.encode())
    assert (attributes["ce_specversion"], attributes["content-type"]) == (b"1.0", b"application/json")


def _alarm_of(kafka: KafkaConnection, entity: str) -> tuple[Mapping[str, Any], Mapping[str, bytes]]:
    consumer = KafkaConsumer(
        ALARM_TOPIC, **kafka.kafka_python(), auto_offset_reset="earliest", consumer_timeout_ms=20_000
    )
    try:
        record = next(record for record in consumer if record.key == entity.encode())
    finally:
        consumer.close()
    return json.loads(record.value), dict(record.headers)
