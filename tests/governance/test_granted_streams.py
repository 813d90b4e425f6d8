"""Grants of streams on a real broker: who may read what, who is refused, what others changed and what is done then."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import sqlalchemy as sa
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import create_conn
from aiokafka.errors import SaslAuthenticationFailed
from aiokafka.protocol.fetch import FetchRequest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors

from bus.access.broker import STREAMS, Broker, department_acls, share_acls, streams_acls, worker_acls
from bus.access.store import GrantStore
from bus.contracts.directory import Department, Directory
from bus.contracts.registry import Registry
from bus.core.contracts import parse_contract
from bus.core.declarations import parse_view
from bus.core.grants import parse_grant_set
from bus.core.shares import share_subject, share_topic
from bus.errors import BrokerUnavailable
from bus.governance.shares.reconciling import Shares
from bus.governance.shares.store import DriftAlarm, DriftStore
from bus.governance.shares.wanted import wanted
from bus.infra.acl import Acl
from bus.infra.connection import KafkaConnection
from bus.infra.database import open_database
from bus.infra.kafka import Admin
from bus.views.catalogue import Shape, shape_of
from bus.views.changelog.streamed import Streamed
from bus.views.store import ViewStore
from bus.web.figures import Figures
from bus.wiring.broker import followed, make_shares, reconciling
from tests.conftest import unique

NOON = dt.datetime(2026, 5, 5, 12, tzinfo=dt.UTC)
PASSWORD = "the-department's-password"
NOT_AUTHORIZED = 29  # Kafka's error code TOPIC_AUTHORIZATION_FAILED


def shape(view: str) -> Shape:
    """A view of a number, a name and a date."""
    fields = [
        {"name": "number", "type": "long"},
        {"name": "name", "type": ["null", "string"]},
        {"name": "opened", "type": ["null", {"type": "int", "logicalType": "date"}]},
    ]
    schema = {"type": "record", "name": "Thing", "namespace": "market", "fields": fields}
    schema |= {"bus.owner": "market", "bus.contact": "a@b.c", "bus.key": ["number"], "bus.freshness": "P1D"}
    contract = parse_contract(schema | {"bus.retention": "P5Y", "bus.legal_basis": "Act 1"})
    document: dict[str, Any] = {"view": view, "owner": "market", "key": ["number"]}
    document |= {"sources": {"t": {"entity": "market.thing"}}}
    document |= {"fields": {name: {"from": f"t.{name}"} for name in ("name", "opened")}}
    return shape_of(parse_view(document), {contract.id: contract}, {})


@dataclass
class Office:
    """Two departments, one view, and the keeper of their streams; ``clock`` and ``sent`` are the test's."""

    first: str
    second: str
    view: str
    engine: sa.Engine
    grants: GrantStore
    directory: Directory
    registry: Registry
    streamed: Streamed
    broker: Broker
    admin: Admin
    connection: KafkaConnection
    clock: list[dt.datetime]
    shares: Shares
    sent: list[DriftAlarm]
    announced: list[str]

    def grant(self, *consumers: str, to: str = "2026-12-31", **more: Any) -> None:
        """These and no others have a stream of the view."""
        document = {
            "set": "streams", "author": "li.na", "approver": "wang.wei",
            "grants": [
                {"id": f"g-{consumer}", "consumer": consumer, "view": self.view, "purpose": "levy",
                 "channels": ["stream"], "fields": ["number", "name"], "legal_basis": "Act 2",
                 "valid": {"from": "2026-01-01", "to": to}, **more}
                for consumer in consumers
            ],
        }  # fmt: skip
        self.grants.apply(parse_grant_set(document), os_user="test")

    def acls(self) -> set[Acl]:
        """Those of both departments, as the broker has them."""
        return {acl for acl in self.admin.acls() if acl.principal in (self.first, self.second)}

    def as_(self, department: str) -> KafkaConnection:
        return replace(self.connection, username=department, password=PASSWORD)


@pytest.fixture
def office(kafka: KafkaConnection, kafka_admin: Admin, sqlite_url: str) -> Iterator[Office]:
    """What other tests need of the broker is there again afterwards."""
    before = kafka_admin.acls()
    engine = open_database(sqlite_url, "governance")
    names = sorted(unique("d").replace("-", "_") for _ in range(2))
    grants, directory, registry, streamed = GrantStore(engine), Directory(engine), Registry(engine), Streamed(engine)
    broker = Broker(lambda: Admin(kafka), lambda _: PASSWORD, trusted=(kafka.username,))
    broker.prepare()
    for name in names:
        broker.enrol(name)
        directory.put_department(Department(name, {"zh": "部", "en": "department"}, "a@b.c"))
    clock, view = [NOON], unique("v").replace("-", "_")
    sent, announced = list[DriftAlarm](), list[str]()
    shares = Shares(
        grants=grants,
        directory=directory,
        shapes=lambda: {view: shape(view)},
        registry=registry,
        streamed=streamed,
        broker=broker,
        alarms=DriftStore(engine),
        announce=lambda: announced.append("views"),
        send=sent.append,
        now=lambda: clock[0],
    )
    shares.reconcile()  # what other tests had on this broker was too much
    sent.clear()
    stores = (engine, grants, directory, registry, streamed)
    yield Office(names[0], names[1], view, *stores, broker, kafka_admin, kafka, clock, shares, sent, announced)
    broker.close()
    engine.dispose()
    known = {*department_acls(names[0]), *department_acls(names[1])}
    kafka_admin.remove_acls(kafka_admin.acls() - before - worker_acls() - streams_acls() | known)
    kafka_admin.ensure_acls(before - known)


def eventually(holds: Callable[[], object], *, what: str) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)


def send(connection: KafkaConnection, topic: str) -> None:
    producer = KafkaProducer(**connection.kafka_python(), bootstrap_timeout_ms=3_000, max_block_ms=500)
    try:
        producer.send(topic, b"value", key=b"key").get(timeout=15)
    finally:
        producer.close(timeout=1)


def read(connection: KafkaConnection, topic: str, group: str | None) -> int:
    """How many records the first portion has."""
    # A group that began before the topic's metadata came has no partitions until it asks for them again.
    patience = {"bootstrap_timeout_ms": 5_000, "auto_offset_reset": "earliest", "metadata_max_age_ms": 1_000}
    consumer = KafkaConsumer(**connection.kafka_python(), group_id=group, **patience)
    try:
        if group:
            consumer.subscribe([topic])
        else:
            consumer.assign([TopicPartition(topic, 0)])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if found := consumer.poll(timeout_ms=200):
                return sum(map(len, found.values()))
        return 0
    finally:
        consumer.close(autocommit=False)


def log_in(connection: KafkaConnection) -> None:
    """Tries once and raises what Kafka says to it, where other clients try until their patience ends."""

    async def once() -> None:
        settings = connection.aiokafka()
        host, _, port = settings.pop("bootstrap_servers").rpartition(":")
        (await create_conn(host, int(port), **settings)).close()

    asyncio.run(once())


def refusal(connection: KafkaConnection, topic: str) -> int:
    """Kafka's error code for a bare request to fetch, by a client that neither asks for metadata nor takes a no."""

    async def fetch() -> int:
        client = AIOKafkaClient(**connection.aiokafka())
        await client.bootstrap()
        try:
            (broker,) = client.cluster.brokers()
            request = FetchRequest(100, 1, 2**20, 0, [(topic, [(0, 0, 2**20)])], rack_id="")
            answer = await client.send(broker.nodeId, request)
        finally:
            await client.close()
        ((_, (found,)),) = answer.topics
        assert not (found[1] and found[-1]), "records beside an error"
        return int(found[1])

    return asyncio.run(fetch())


def fetched_after(consumer: KafkaConsumer, seconds: float) -> int:
    """Polls until it is refused, or until then; how many records came."""
    deadline, count = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        count += sum(map(len, consumer.poll(timeout_ms=100).values()))
    return count


def test_a_consumer_reads_its_own_stream_and_nothing_else(office: Office) -> None:
    """By its grant, with its groups, its topic; other streams, groups, raw topics, writing, strangers: refused."""
    office.grant(office.first, office.second)
    office.shares.changed()
    first, second = (share_topic(name, office.view) for name in (office.first, office.second))
    raw = f"dept.{office.second}.thing"
    office.admin.ensure_topic(raw)
    for topic in (first, second, raw):
        send(office.connection, topic)
    mine = office.as_(office.first)
    assert office.acls() == {
        *department_acls(office.first), *department_acls(office.second),
        *share_acls(office.first, office.view), *share_acls(office.second, office.view),
    }  # fmt: skip
    assert read(mine, first, f"{office.first}.work") == 1
    assert refusal(mine, first) == 0
    for topic in (second, raw, "bus.alarms"):
        assert refusal(mine, topic) == NOT_AUTHORIZED
    for group in (f"{office.second}.work", "work", office.first):
        with pytest.raises(kafka_errors.GroupAuthorizationFailedError):
            read(mine, first, group)
    for topic in (first, second, f"dept.{office.second}.thing"):
        with pytest.raises(kafka_errors.KafkaError):
            send(mine, topic)
    log_in(mine)
    for stranger in (replace(mine, password="wrong"), replace(mine, username="nobody")):
        with pytest.raises(SaslAuthenticationFailed):
            log_in(stranger)
    anonymous = {"bootstrap_servers": mine.bootstrap, "bootstrap_timeout_ms": 1_000}
    with pytest.raises(kafka_errors.KafkaError):
        KafkaConsumer(first, **anonymous)
    send(office.as_(STREAMS), first)
    for topic in (raw, "bus.control"):
        with pytest.raises(kafka_errors.KafkaError):
            send(office.as_(STREAMS), topic)


def test_a_revoked_grant_ends_a_running_consumer(office: Office) -> None:
    """Its next fetch is refused, within a second of the return; another's stream goes on. What the topic then gets is
    never fetched."""
    office.grant(office.first, office.second)
    office.shares.changed()
    topic = share_topic(office.first, office.view)
    send(office.connection, topic)
    consumer = KafkaConsumer(**office.as_(office.first).kafka_python(), group_id=None, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(topic, 0)])
    while not consumer.poll(timeout_ms=200):
        pass
    began = time.monotonic()
    office.grants.revoke(f"g-{office.first}", "li.na", "no basis any more")
    office.shares.changed()
    assert not office.acls() & share_acls(office.first, office.view)
    with pytest.raises(kafka_errors.TopicAuthorizationFailedError):
        fetched_after(consumer, 10)
    assert time.monotonic() - began < 5
    send(office.connection, topic)
    assert refusal(office.as_(office.first), topic) == NOT_AUTHORIZED
    consumer.close(autocommit=False)
    assert office.acls() >= share_acls(office.second, office.view)
    assert office.streamed.names() == {office.view}
    office.grants.revoke(f"g-{office.second}", "li.na", "no basis any more")
    office.shares.changed()
    assert office.streamed.names() == frozenset()
    assert office.announced == ["views", "views"]


def test_what_somebody_else_changed_is_put_right_and_reported(office: Office) -> None:
    """ACLs added by hand on anything of the bus go, ones that were taken come back, an alarm says which; others' things
    on the same cluster stay."""
    office.grant(office.first)
    office.shares.changed()
    mine = share_acls(office.first, office.view)
    topic = share_topic(office.first, office.view)
    added = {
        Acl("mallory", "READ", "TOPIC", topic),
        Acl("mallory", "READ", "TOPIC", "*"),
        Acl("mallory", "READ", "TOPIC", "sha", "PREFIXED"),
        Acl("*", "READ", "TOPIC", "dept.", "PREFIXED", host="127.0.0.1"),
        Acl("mallory", "READ", "GROUP", f"{office.first}.", "PREFIXED"),
        Acl(office.first, "READ", "TOPIC", share_topic(office.second, office.view)),
        Acl(office.first, "READ", "TOPIC", topic, permission="DENY"),
        Acl(office.first, "ALTER", "CLUSTER", "kafka-cluster"),
    }
    foreign = {Acl("other", "READ", "TOPIC", "another.system", "PREFIXED"), Acl("other", "READ", "GROUP", "another")}
    office.admin.ensure_acls(added | foreign)
    office.admin.remove_acls(mine)
    office.shares.reconcile()
    there = office.admin.acls()
    assert not there & added
    assert there >= mine | foreign
    (alarm,) = office.sent
    assert alarm.data == {"added": sorted(map(str, added)), "removed": sorted(map(str, mine))}
    status = office.shares.status()
    assert status["in_order"] is True
    assert status["shares"] == 1
    assert status["last_drift"] == {"at_ms": alarm.at_ms, **alarm.data}
    found = office.shares.found()
    assert (found.added >= len(added), found.removed) == (True, len(mine))
    office.shares.reconcile()
    assert len(office.sent) == 1
    office.admin.remove_acls(foreign)
    figures = Figures(ViewStore(office.engine), lambda: 0, dict, dict, broker=office.shares.found).text().decode()
    assert f'bus_broker_drift_total{{change="removed"}} {float(len(mine))}' in figures
    assert "bus_broker_in_order 1.0" in figures


def test_an_alarm_reaches_its_topic(office: Office) -> None:
    """As a CloudEvent, once, as serve sends it; the request that changed grants is answered with all in order."""
    told: list[str] = []
    shares = make_shares(
        office.engine,
        office.connection,
        grants=office.grants,
        directory=office.directory,
        shapes=lambda: {office.view: shape(office.view)},
        registry=office.registry,
        broker=office.broker,
        announce=told.append,
    )
    today = dt.datetime.now(dt.UTC).date()
    office.grant(office.first, valid={"from": today.isoformat(), "to": (today + dt.timedelta(days=2)).isoformat()})
    followed(told.append, shares)("grants")
    assert told == ["grants", "views"]
    assert office.acls() >= share_acls(office.first, office.view)
    office.admin.remove_acls(share_acls(office.first, office.view))
    with reconciling(shares):
        eventually(lambda: not office.shares._alarms.unsent() and shares.found().removed == 2, what="the alarm")
    consumer = KafkaConsumer(**office.connection.kafka_python(), group_id=None, auto_offset_reset="earliest")
    consumer.assign([TopicPartition("bus.alarms", 0)])
    while not (found := consumer.poll(timeout_ms=200)):
        pass
    consumer.close(autocommit=False)
    ((*_, record),) = found.values()
    sent = dict(record.headers)
    assert (sent["ce_type"], sent["ce_source"], sent["ce_specversion"]) == (b"bus.broker.drift", b"/bus", b"1.0")
    assert json.loads(record.value)["removed"] == sorted(map(str, share_acls(office.first, office.view)))


def test_streams_follow_days_suspensions_and_schemas(office: Office) -> None:
    """Valid today, with the schema of what is granted; a suspended department has nothing at all until it is back."""
    office.grant(office.first, to="2026-05-05", masks={"number": {"hash": True}})
    office.shares.changed()
    subject = share_subject(office.first, office.view)
    _, schema = office.registry.version(subject, "latest")
    assert [(field["name"], field["type"]) for field in schema["fields"]] == [
        ("number", ["null", "string"]),
        ("name", ["null", "string"]),
    ]
    (name, suspended) = (office.second, Department(office.second, {"zh": "部", "en": "d"}, "a@b.c", suspended=True))
    office.directory.put_department(suspended)
    office.shares.reconcile()
    assert office.acls() == department_acls(office.first) | share_acls(office.first, office.view)
    office.clock[0] = NOON + dt.timedelta(hours=12)
    office.shares.reconcile()
    assert office.acls() == department_acls(office.first)
    assert office.streamed.names() == frozenset()
    office.directory.put_department(replace(suspended, suspended=False))
    office.shares.reconcile()
    assert office.acls() == department_acls(office.first) | department_acls(name)
    assert office.sent == []


def test_nobody_else_has_a_stream(office: Office) -> None:
    """The public, an unknown department and one without the channel have none; nor has a view that is not declared."""
    office.grant("public", "unknown")
    grants = [*office.grants.streamed(), *_grants(office, channels=["query"])]
    departments = office.directory.departments()
    found = wanted(grants, departments, {office.view: shape(office.view)}, NOON)
    assert (found.standing.shares, dict(found.schemas)) == (frozenset(), {})
    granted = _grants(office, channels=["query", "stream"])
    assert wanted(granted, departments, {}, NOON).views == frozenset()
    assert wanted(granted, departments, {office.view: shape(office.view)}, NOON).views == {office.view}


def _grants(office: Office, **more: Any) -> Any:
    office.grant(office.first, **more)
    return office.grants.all()


def test_a_broker_that_does_not_answer_is_told_later(office: Office) -> None:
    """The change is in force in the database; who asked learns that Kafka does not know yet, and status says so."""

    def unreachable() -> Admin:
        raise BrokerUnavailable()

    broken = Broker(unreachable, lambda _: PASSWORD)
    office.shares._broker = broken
    office.grant(office.first)
    with pytest.raises(BrokerUnavailable, match="recorded and in force"):
        office.shares.changed()
    assert office.shares.status()["in_order"] is False
    with pytest.raises(BrokerUnavailable):
        office.shares.reconcile()
    office.shares._broker = office.broker
    office.shares.reconcile()
    assert office.shares.status()["in_order"] is True
    assert office.acls() >= share_acls(office.first, office.view)
