"""Streams over HTTP: what serve needs for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Mapping

from bus.access.decision import Decider
from bus.audit.log import AuditLog
from bus.contracts.registry import Registry
from bus.errors import BrokerUnavailable, BusError, NotFound
from bus.infra.connection import KafkaConnection
from bus.infra.database import open_database
from bus.infra.kafka import Admin
from bus.infra.stack.credentials import Secrets
from bus.settings import Settings
from bus.sharing.streams.store import StreamStore
from bus.sharing.subscribing.changes import Decoder
from bus.sharing.subscribing.cursors import Cursors
from bus.sharing.subscribing.door import ChangesDoor, Limits
from bus.sharing.subscribing.permissions import Permissions
from bus.sharing.subscribing.topics import Topics
from bus.sharing.watch import Watch
from bus.views.catalogue import Shape
from bus.views.store import ViewStore
from bus.web.parts import StreamParts


class TopicIds:
    """What tells a topic from one of the same name that was deleted. Calls block; connects when first asked."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._admin: Admin | None = None
        self._lock = threading.Lock()

    def __call__(self, topic: str) -> str:
        """The id. Raises `BrokerUnavailable`, also where there is no such topic (yet)."""
        with self._lock:
            try:
                self._admin = self._admin or Admin(self._connection, timeout_s=5.0)
                found = self._admin.topic_ids([topic])
            except BusError:
                self._admin = None
                raise
        if topic not in found:
            raise BrokerUnavailable(f"There is no topic {topic} yet. Try again shortly; operators: `bus status`.")
        return found[topic]


def make_streams(
    settings: Settings,
    kafka: KafkaConnection,
    *,
    decider: Decider,
    audit: AuditLog,
    registry: Registry,
    views: ViewStore,
    shapes: Callable[[], Awaitable[Mapping[str, Shape]]],
) -> StreamParts:
    """What serve needs for streams. ``kafka``: a principal that may read every share topic."""
    ids = TopicIds(kafka)
    store = StreamStore(open_database(settings.database, "streams"))
    door = ChangesDoor(
        permissions=Permissions(decider, store, shapes, time.monotonic),
        topics=Topics(kafka, Decoder(registry.schema), ids),
        cursors=Cursors(Secrets(settings.home).token("cursors").encode()),
        audit=audit,
        watch=Watch(views, time.monotonic),
        shapes=shapes,
        limits=Limits(department=settings.streams_per_department, all=settings.streams_open),
    )
    broker = {
        "bootstrap_servers": kafka.bootstrap,
        "security_protocol": kafka.security_protocol,
        "sasl_mechanism": "SCRAM-SHA-512",
    }
    return StreamParts(door, broker, ids, newest_schema(registry))


def newest_schema(registry: Registry) -> Callable[[str], int | None]:
    """Gives the id of a subject's newest schema; None where there is none yet."""

    def schema_id(subject: str) -> int | None:
        try:
            return registry.version(subject, "latest")[0]
        except NotFound:
            return None

    return schema_id
