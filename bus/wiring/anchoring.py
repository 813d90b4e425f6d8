"""Anchoring the audit log beside the web server, in a thread of its own."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bus.audit.anchoring import Anchoring
from bus.audit.anchors import FileAnchors, TopicAnchors
from bus.audit.log import AuditLog
from bus.infra.connection import KafkaConnection
from bus.settings import Settings


def make_anchoring(settings: Settings, audit: AuditLog, connection: KafkaConnection) -> Anchoring:
    """The log's anchors: a file and a topic."""
    path = settings.audit_anchors or settings.home.resolve() / "audit" / "anchors.jsonl"
    return Anchoring(audit, (FileAnchors(path), TopicAnchors(connection)), clock=lambda: dt.datetime.now(dt.UTC))


@contextmanager
def anchored(anchoring: Anchoring) -> Iterator[None]:
    """Keeps the head each minute until the block ends, and once more then."""
    stopping = threading.Event()
    thread = threading.Thread(target=anchoring.run, args=(stopping,), name="anchors", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(2.0)
