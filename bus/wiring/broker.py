"""Keeping the broker as grants of streams want it, beside the web server, in a thread of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy.engine import Engine

from bus.access.broker import ALARM_TOPIC, Broker
from bus.access.store import GrantStore
from bus.contracts.directory import Directory
from bus.contracts.registry import Registry
from bus.governance.shares.reconciling import Shares
from bus.governance.shares.store import DriftAlarm, DriftStore
from bus.infra.connection import KafkaConnection
from bus.infra.kafka import Admin
from bus.infra.sending import Sender
from bus.infra.stack.credentials import Secrets
from bus.settings import Settings
from bus.views.catalogue import Shape
from bus.views.changelog.streamed import Streamed
from bus.web.discrepancies import instant

Announce = Callable[[str], None]


def make_broker(settings: Settings, connection: KafkaConnection, secrets: Secrets) -> Broker:
    """What changes principals, ACLs and topics; the bus's own principal is one that it leaves alone."""
    trusted = (settings.kafka_username, *filter(None, map(str.strip, settings.kafka_trusted.split(","))))
    replication = settings.kafka_replication
    return Broker(lambda: Admin(connection), secrets.kafka_password, replication=replication, trusted=trusted)


def make_shares(
    governance: Engine,
    connection: KafkaConnection,
    *,
    grants: GrantStore,
    directory: Directory,
    shapes: Callable[[], Mapping[str, Shape]],
    registry: Registry,
    broker: Broker,
    announce: Announce,
) -> Shares:
    """The streams' keeper. ``announce``: tells running workers what changed."""
    sender = Sender(connection)

    def send(alarm: DriftAlarm) -> None:
        value = json.dumps(alarm.data).encode()
        sender.send(ALARM_TOPIC, key=b"bus.broker", value=value, headers=headers(alarm))

    return Shares(
        grants=grants,
        directory=directory,
        shapes=shapes,
        registry=registry,
        streamed=Streamed(governance),
        broker=broker,
        alarms=DriftStore(governance),
        announce=lambda: announce("views"),
        send=send,
    )


def headers(alarm: DriftAlarm) -> list[tuple[str, bytes]]:
    """The CloudEvent's attributes."""
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": alarm.event_id,
        "ce_source": "/bus",
        "ce_type": "bus.broker.drift",
        "ce_time": instant(alarm.at_ms),
        "content-type": "application/json",
    }
    return [(name, value.encode()) for name, value in attributes.items()]


def followed(announce: Announce, shares: Shares) -> Announce:
    """Tells workers, and returns once the broker follows what changed: the request that changed it is answered then."""

    def tell(what: str) -> None:
        announce(what)
        if what in ("grants", "views"):
            shares.changed()

    return tell


@contextmanager
def reconciling(shares: Shares | None) -> Iterator[None]:
    """Looks every few seconds until the block ends."""
    stopping = threading.Event()
    if shares is None:
        yield
        return
    thread = threading.Thread(target=shares.run, args=(stopping,), name="broker", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(2.0)
