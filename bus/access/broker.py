"""Who may do what on the broker: principals, ACLs and topics, as the contracts and departments demand.

A department writes its own topics (``dept.<id>.``) and reads what is shared with it (``share.<id>.``) with
groups ``<id>.``; nobody else does either. The bus's own worker reads ``dept.`` and ``bus.`` only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from bus.audit.anchors import ANCHOR_TOPIC
from bus.core.contracts import Contract
from bus.infra.kafka import Acl, Admin

CONTROL_TOPIC: Final = "bus.control"
ALARM_TOPIC: Final = "bus.alarms"
WORKER: Final = "worker"
PARTITIONS: Final = 4
RESERVED: Final = frozenset({"admin", "administrator", "broker", "bus", "canary", "controller", "streams", WORKER})
"""Principals and subjects of the bus itself: a department so named would be given their password."""


def department_acls(department: str) -> frozenset[Acl]:
    """What a department's principal may do, and no more."""
    own, shared, groups = f"dept.{department}.", f"share.{department}.", f"{department}."
    return frozenset(
        {
            Acl(department, "WRITE", "TOPIC", own, "PREFIXED"),
            Acl(department, "DESCRIBE", "TOPIC", own, "PREFIXED"),
            Acl(department, "READ", "TOPIC", shared, "PREFIXED"),
            Acl(department, "DESCRIBE", "TOPIC", shared, "PREFIXED"),
            Acl(department, "READ", "GROUP", groups, "PREFIXED"),
        }
    )


def worker_acls() -> frozenset[Acl]:
    """What builds the views: reads every department's topic and the bus's own, with its own groups."""
    return frozenset(
        {
            *(Acl(WORKER, operation, "TOPIC", prefix, "PREFIXED")
              for prefix in ("dept.", "bus.") for operation in ("READ", "DESCRIBE")),
            Acl(WORKER, "READ", "GROUP", "bus-worker-", "PREFIXED"),
        }
    )  # fmt: skip


class Broker:
    """Keeps the broker's principals, ACLs and topics as they should be. Calls block: not for the event loop.

    ``connect`` gives a new `Admin`; ``password`` the secret of a principal. Raises `BrokerUnavailable`.
    """

    def __init__(self, connect: Callable[[], Admin], password: Callable[[str], str], *, replication: int = 1) -> None:
        self._connect = connect
        self._password = password
        self._replication = replication
        self._admin: Admin | None = None
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """The control topic, those of alarms and of the audit log's heads, kept for ever; the worker's principal."""
        with self._lock:
            admin = self._connected()
            self._enrol(admin, WORKER, worker_acls())
            admin.ensure_topic(CONTROL_TOPIC, partitions=1, replication=self._replication, config={})
            kept = {"retention.ms": "-1", "message.timestamp.type": "LogAppendTime"}
            for topic in (ALARM_TOPIC, ANCHOR_TOPIC):
                admin.ensure_topic(topic, partitions=1, replication=self._replication, config=kept)

    def enrol(self, department: str) -> None:
        """A department's principal with its ACLs; harmless when it is there."""
        with self._lock:
            self._enrol(self._connected(), department, department_acls(department))

    def open_topic(self, contract: Contract) -> None:
        """The topic of an entity: never compacted, since the newest event is decided by version, not by offset."""
        config = {
            "cleanup.policy": "delete",
            "retention.ms": "-1",
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(1024 * 1024),
        }
        with self._lock:
            self._connected().ensure_topic(
                contract.topic, partitions=PARTITIONS, replication=self._replication, config=config
            )

    def close(self) -> None:
        with self._lock:
            if self._admin is not None:
                self._admin.close()
                self._admin = None

    def _connected(self) -> Admin:
        if self._admin is None:
            self._admin = self._connect()
        return self._admin

    def _enrol(self, admin: Admin, principal: str, acls: frozenset[Acl]) -> None:
        admin.set_scram(principal, self._password(principal))
        admin.ensure_acls(acls)
