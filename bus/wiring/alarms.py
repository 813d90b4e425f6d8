"""Watching promises of freshness beside the web server: a thread of its own, and a producer for `bus.alarms`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from bus.access.broker import ALARM_TOPIC
from bus.contracts.registry import Registry
from bus.errors import BrokerUnavailable
from bus.governance.promises.store import Alarm, PromiseStore
from bus.governance.promises.watch import PromiseWatch
from bus.infra.connection import KafkaConnection
from bus.infra.kafka import Admin
from bus.web.discrepancies import instant

_TIMEOUT_S: Final = 10.0


class AlarmSender:
    """Sends alarms as CloudEvents (Kafka binding 1.0, binary mode), JSON inside. Not thread-safe."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._producer: Any = None

    def __call__(self, alarm: Alarm) -> None:
        """Returns once Kafka has acknowledged it. Raises `BrokerUnavailable`."""
        from kafka.errors import KafkaError

        try:
            self._sending().send(
                ALARM_TOPIC, key=alarm.entity.encode(), value=json.dumps(alarm.data).encode(), headers=headers(alarm)
            ).get(timeout=_TIMEOUT_S)
        except KafkaError as error:
            self.close()
            raise BrokerUnavailable() from error

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=1.0)

    def _sending(self) -> Any:
        from kafka import KafkaProducer

        if self._producer is None:
            self._producer = KafkaProducer(**self._connection.kafka_python(), acks="all", bootstrap_timeout_ms=5_000)
        return self._producer


def headers(alarm: Alarm) -> list[tuple[str, bytes]]:
    """The CloudEvent's attributes."""
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": alarm.event_id,
        "ce_source": "/bus",
        "ce_type": f"bus.freshness.{alarm.kind}",
        "ce_time": instant(alarm.at_ms),
        "ce_subject": alarm.entity,
        "content-type": "application/json",
    }
    return [(name, value.encode()) for name, value in attributes.items()]


@contextmanager
def watching(store: PromiseStore, registry: Registry, connection: KafkaConnection) -> Iterator[None]:
    """Watches promises in a thread of its own until the block ends."""
    sender, newest, stopping = AlarmSender(connection), _Newest(connection), threading.Event()
    watch = PromiseWatch(store, registry.contracts, newest, sender)
    thread = threading.Thread(target=watch.run, args=(stopping,), name="promises", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(2.0)
        sender.close()
        newest.close()


class _Newest:
    """Asks Kafka, over a connection that is made when it is first needed."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._connect: Callable[[], Admin] = lambda: Admin(connection, timeout_s=5.0)
        self._admin: Admin | None = None

    def __call__(self, topics: Collection[str]) -> Mapping[str, int]:
        if self._admin is None:
            self._admin = self._connect()
        return self._admin.newest_ms(topics)

    def close(self) -> None:
        if self._admin is not None:
            self._admin.close()
