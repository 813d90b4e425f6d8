"""The bus as Kafka's administrator, and what Kafka then lets others do: tried on a real broker."""

from __future__ import annotations

import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType

from bus.errors import BrokerUnavailable, BusError
from bus.infra.kafka import Acl, Admin, KafkaConnection
from bus.infra.stack import LocalStack
from tests.conftest import DOWNLOADS, free_port, unique

PASSWORD = "the-department's-password"


@pytest.fixture
def department(kafka: KafkaConnection, kafka_admin: Admin) -> KafkaConnection:
    """A principal of its own that may write and describe the topics of its prefix."""
    name = unique("dept")
    kafka_admin.set_scram(name, PASSWORD)
    kafka_admin.ensure_acls(_publishing(name))
    return replace(kafka, username=name, password=PASSWORD)


def _publishing(name: str) -> set[Acl]:
    return {
        Acl(name, "WRITE", "TOPIC", f"dept.{name}.", "PREFIXED"),
        Acl(name, "DESCRIBE", "TOPIC", f"dept.{name}.", "PREFIXED"),
    }


def _send(connection: KafkaConnection, topic: str, value: bytes = b"x") -> int:
    producer = KafkaProducer(**connection.kafka_python(), bootstrap_timeout_ms=3_000, max_block_ms=2_000)
    try:
        return int(producer.send(topic, value).get(timeout=15).offset)
    finally:
        producer.close(timeout=1)


def _read(connection: KafkaConnection, topic: str, timeout_s: float = 10.0) -> list[bytes]:
    consumer = KafkaConsumer(**connection.kafka_python(), group_id=None, enable_auto_commit=False)
    try:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek(TopicPartition(topic, 0), 0)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if batch := consumer.poll(timeout_ms=200):
                return [record.value for records in batch.values() for record in records]
        return []
    finally:
        consumer.close()


def test_topic_is_created_once(kafka_admin: Admin) -> None:
    """A topic is created with its partitions, and the second wish for the same one changes nothing."""
    topic = unique("topic")
    assert kafka_admin.ensure_topic(topic, partitions=3, config={"retention.ms": "-1"}) is True
    assert kafka_admin.ensure_topic(topic, partitions=3, config={"retention.ms": "-1"}) is False
    assert topic in kafka_admin.topics()
    assert kafka_admin.end_offsets([topic]) == {(topic, number): 0 for number in range(3)}


def test_topic_follows_its_configuration(kafka_admin: Admin) -> None:
    """A changed retention reaches a topic that exists."""
    topic = unique("topic")
    kafka_admin.ensure_topic(topic, config={"retention.ms": "-1"})
    kafka_admin.ensure_topic(topic, config={"retention.ms": "86400000"})
    config = kafka_admin._client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])["topic"][topic]
    assert config["retention.ms"]["value"] == "86400000"


def test_impossible_configuration_is_refused(kafka_admin: Admin) -> None:
    """What Kafka does not accept is an error of ours with Kafka's reason."""
    with pytest.raises(BusError, match="retention"):
        kafka_admin.ensure_topic(unique("topic"), config={"retention.ms": "for ever"})


def test_number_of_partitions_never_changes(kafka_admin: Admin) -> None:
    """Another number of partitions is refused, since it would move keys to other partitions."""
    topic = unique("topic")
    kafka_admin.ensure_topic(topic, partitions=2)
    with pytest.raises(BusError, match="2 partitions, not 4"):
        kafka_admin.ensure_topic(topic, partitions=4)


def test_offsets_of_unknown_topics_are_left_out(kafka_admin: Admin, kafka: KafkaConnection) -> None:
    """End offsets count what was written, and topics that do not exist are not in the answer."""
    topic = unique("topic")
    kafka_admin.ensure_topic(topic)
    _send(kafka, topic)
    assert kafka_admin.end_offsets([topic, unique("nowhere")]) == {(topic, 0): 1}
    assert kafka_admin.start_offsets([topic]) == {(topic, 0): 0}
    assert kafka_admin.end_offsets([]) == {}


def test_acls_are_added_and_removed_exactly(kafka_admin: Admin) -> None:
    """Adding twice is one, removing takes away only what was named, also what was never there."""
    name = unique("dept")
    first, second = sorted(_publishing(name), key=lambda acl: acl.operation)
    for _ in range(2):
        kafka_admin.ensure_acls({first, second})
    assert {acl for acl in kafka_admin.acls() if acl.principal == name} == {first, second}
    kafka_admin.remove_acls({first, replace(first, pattern="LITERAL")})
    assert {acl for acl in kafka_admin.acls() if acl.principal == name} == {second}


def test_department_writes_its_own_topic(kafka_admin: Admin, department: KafkaConnection) -> None:
    """A principal with the ACLs of its prefix publishes, idempotent producer included."""
    topic = f"dept.{department.username}.inspection"
    kafka_admin.ensure_topic(topic)
    assert _send(department, topic) == 0


def test_department_is_refused_elsewhere(
    kafka_admin: Admin, kafka: KafkaConnection, department: KafkaConnection
) -> None:
    """A department neither writes another's topic nor reads even its own, and makes no topic by writing."""
    other, own = f"dept.{unique('other')}.x", f"dept.{department.username}.x"
    for topic in (other, own):
        kafka_admin.ensure_topic(topic)
        _send(kafka, topic, b"secret")
    with pytest.raises(kafka_errors.TopicAuthorizationFailedError):
        _send(department, other)
    with pytest.raises(kafka_errors.TopicAuthorizationFailedError):
        _read(department, own)
    assert kafka_admin.end_offsets([other]) == {(other, 0): 1}
    assert _read(kafka, other) == [b"secret"]


def test_writing_creates_no_topic(kafka_admin: Admin, department: KafkaConnection) -> None:
    """A topic that nobody declared is not created, even inside the department's own prefix."""
    topic = f"dept.{department.username}.undeclared"
    with pytest.raises(kafka_errors.KafkaError):
        _send(department, topic)
    assert topic not in kafka_admin.topics()


def test_principal_without_acls_may_nothing(kafka_admin: Admin, kafka: KafkaConnection) -> None:
    """Deny by default: to log in is not to be allowed anything."""
    name, topic = unique("dept"), unique("topic")
    kafka_admin.set_scram(name, PASSWORD)
    kafka_admin.ensure_topic(topic)
    stranger = replace(kafka, username=name, password=PASSWORD)
    with pytest.raises(kafka_errors.TopicAuthorizationFailedError):
        _send(stranger, topic)
    with Admin(stranger) as admin:
        assert admin.topics() == set()
        with pytest.raises(BusError, match="refused"):
            admin.acls()


def test_wrong_password_is_refused(kafka: KafkaConnection) -> None:
    """A wrong password does not get in, and the error says whom it concerns, not the password."""
    with pytest.raises(BrokerUnavailable, match="'bus'") as caught:
        Admin(replace(kafka, password="wrong-one"), timeout_s=1)
    assert "wrong-one" not in str(caught.value)
    assert "wrong-one" not in repr(replace(kafka, password="wrong-one"))


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
def test_anonymous_and_plain_clients_are_refused(kafka: KafkaConnection, protocol: str) -> None:
    """Neither a client without credentials nor one that sends its password in the clear gets in."""
    credentials = {"sasl_mechanism": "PLAIN", "sasl_plain_username": "bus", "sasl_plain_password": kafka.password}
    settings = {"security_protocol": protocol, **(credentials if protocol.startswith("SASL") else {})}
    with pytest.raises(kafka_errors.KafkaError):
        KafkaProducer(bootstrap_servers=kafka.bootstrap, bootstrap_timeout_ms=1_000, **settings)


def test_new_password_replaces_the_old_one(kafka_admin: Admin, department: KafkaConnection) -> None:
    """After a change only the new password logs in."""
    kafka_admin.set_scram(department.username, "another")
    Admin(replace(department, password="another"), timeout_s=5).close()
    with pytest.raises(BrokerUnavailable):
        Admin(department, timeout_s=1)


def test_locked_out_principal_stays_out_and_nobody_else(tmp_path: Path) -> None:
    """Locking somebody out survives a restart of Kafka and leaves everybody else's password alone."""
    stack = LocalStack(tmp_path / "home", opa=False, downloads=DOWNLOADS)
    stack.up()
    try:
        connection = stack.kafka_connection()
        admin = Admin(connection, timeout_s=1)
        for name in ("leaving", "staying"):
            admin.set_scram(name, PASSWORD)
        admin.lock_out("leaving")
        stack.down()
        with pytest.raises(BrokerUnavailable):
            admin.topics()
        admin.close()
        stack.up()
        Admin(replace(connection, username="staying", password=PASSWORD), timeout_s=10).close()
        with pytest.raises(BrokerUnavailable):
            Admin(replace(connection, username="leaving", password=PASSWORD), timeout_s=1)
    finally:
        stack.down()


def test_too_large_a_message_is_refused(kafka_admin: Admin, kafka: KafkaConnection) -> None:
    """A message of more than 1 MiB is refused by the broker itself."""
    topic = unique("topic")
    kafka_admin.ensure_topic(topic)
    producer = KafkaProducer(**kafka.kafka_python(), max_request_size=4 * 2**20)
    try:
        with pytest.raises(kafka_errors.MessageSizeTooLargeError):
            producer.send(topic, b"x" * (2**20 + 1)).get(timeout=15)
    finally:
        producer.close(timeout=1)
    assert _send(kafka, topic, b"x" * (2**20 - 1_000)) == 0


def test_broker_stamps_the_time(kafka_admin: Admin, kafka: KafkaConnection) -> None:
    """Retention counts from arrival: an event of 2009 is as young as the moment it is published."""
    topic = unique("topic")
    kafka_admin.ensure_topic(topic)
    producer = KafkaProducer(**kafka.kafka_python())
    before_ms = int(time.time() * 1_000)
    try:
        sent = producer.send(topic, b"x", timestamp_ms=1_230_768_000_000).get(timeout=15)
    finally:
        producer.close(timeout=1)
    assert sent.timestamp >= before_ms


def test_silent_broker_is_unavailable_in_time() -> None:
    """Where nobody listens, connecting ends within its time-out as 503, and leaves no thread behind."""
    begun = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        Admin(KafkaConnection(f"127.0.0.1:{free_port()}", "bus", "x"), timeout_s=1)
    assert time.monotonic() - begun < 3


def test_tls_checks_certificate_and_name() -> None:
    """Over TLS both libraries verify the broker; without TLS no context is made."""
    plain = KafkaConnection("broker:9092", "bus", "x")
    assert plain.aiokafka()["ssl_context"] is None
    secured = replace(plain, security_protocol="SASL_SSL")
    context = secured.aiokafka()["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert secured.kafka_python()["security_protocol"] == "SASL_SSL"
