"""Watching promises of freshness beside the web server: a thread of its own, and a producer for `bus.alarms`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from bus.access.broker import ALARM_TOPIC
from bus.contracts.registry import Registry
from bus.governance.promises.store import Alarm, PromiseStore
from bus.governance.promises.watch import PromiseWatch
from bus.infra.connection import KafkaConnection
from bus.infra.kafka import Admin
from bus.infra.sending import Sender
from bus.web.discrepancies import instant


class AlarmSender:
    """Sends alarms as CloudEvents (Kafka binding 1.0, binary mode), JSON inside. Not thread-safe."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._sender = Sender(connection)

    def __call__(self, alarm: Alarm) -> None:
        """Returns once Kafka has acknowledged it. Raises `BrokerUnavailable`."""
        value = json.dumps(alarm.data).encode()
        self._sender.send(ALARM_TOPIC, key=alarm.entity.encode(), value=value, headers=headers(alarm))

    def close(self) -> None:
        self._sender.close()


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
