"""Who may do what on the broker: principals, ACLs and topics, as the contracts and departments demand.

A department writes its own topics (``dept.<id>.``) and reads, with groups ``<id>.``, the topics of its streams, each
by an ACL of its own while a grant says so; nobody else does either. The bus's own worker reads ``dept.`` and ``bus.``
only, and what writes the streams no department's topic. Other ACLs on what is the bus's are taken away
(`Broker.reconcile`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from bus.audit.anchors import ANCHOR_TOPIC
from bus.core.contracts import Contract
from bus.core.shares import PREFIX, share_topic
from bus.infra.kafka import Acl, Admin

CONTROL_TOPIC: Final = "bus.control"
ALARM_TOPIC: Final = "bus.alarms"
WORKER: Final = "worker"
STREAMS: Final = "streams"
PARTITIONS: Final = 4
RESERVED: Final = frozenset({"admin", "administrator", "broker", "bus", "canary", "controller", STREAMS, WORKER})
"""Principals and subjects of the bus itself: a department so named would be given their password."""


_OURS: Final = ("dept.", PREFIX, "bus.")
_SHARE_CONFIG: Final = {
    "cleanup.policy": "compact,delete",  # written in order; `delete`, so that records up to a boundary can be deleted
    "retention.ms": "-1",
    "delete.retention.ms": str(7 * 86_400_000),
    "max.message.bytes": str(1024 * 1024),
}


def department_acls(department: str) -> frozenset[Acl]:
    """What a department's principal may do, beside reading its streams, and no more."""
    own, groups = f"dept.{department}.", f"{department}."
    return frozenset(
        {
            Acl(department, "WRITE", "TOPIC", own, "PREFIXED"),
            Acl(department, "DESCRIBE", "TOPIC", own, "PREFIXED"),
            Acl(department, "READ", "GROUP", groups, "PREFIXED"),
        }
    )


def share_acls(consumer: str, view: str) -> frozenset[Acl]:
    """What a consumer may do with its stream of a view. Kafka asks when a fetch arrives: one that is waiting when these
    are taken away still gets what comes while it waits, and no later one is answered. So whoever writes streams stops
    writing one that is revoked, and what is deleted from it is out of reach."""
    topic = share_topic(consumer, view)
    return frozenset({Acl(consumer, "READ", "TOPIC", topic), Acl(consumer, "DESCRIBE", "TOPIC", topic)})


def streams_acls() -> frozenset[Acl]:
    """What writes the streams: all of them and nothing else; it reads the bus's own topics."""
    return frozenset(
        {
            *(Acl(STREAMS, operation, "TOPIC", PREFIX, "PREFIXED")
              for operation in ("WRITE", "READ", "DESCRIBE", "DELETE")),
            *(Acl(STREAMS, operation, "TOPIC", "bus.", "PREFIXED") for operation in ("READ", "DESCRIBE")),
        }
    )  # fmt: skip


def worker_acls() -> frozenset[Acl]:
    """What builds the views: reads every department's topic and the bus's own, with its own groups."""
    return frozenset(
        {
            *(Acl(WORKER, operation, "TOPIC", prefix, "PREFIXED")
              for prefix in ("dept.", "bus.") for operation in ("READ", "DESCRIBE")),
            Acl(WORKER, "READ", "GROUP", "bus-worker-", "PREFIXED"),
        }
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Standing:
    """Who may have what: departments in force, those suspended, and the streams, as (consumer, view)."""

    departments: frozenset[str]
    suspended: frozenset[str]
    shares: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Drift:
    """What somebody else did to the ACLs and was put right: ``added`` by them, ``removed`` by them."""

    added: frozenset[Acl]
    removed: frozenset[Acl]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


class Broker:
    """Keeps the broker's principals, ACLs and topics as they should be. Calls block: not for the event loop.

    ``connect`` gives a new `Admin`; ``password`` the secret of a principal. ``trusted``: principals whose ACLs are left
    alone, such as the bus's own on a cluster that is not only ours. Raises `BrokerUnavailable`.
    """

    def __init__(
        self,
        connect: Callable[[], Admin],
        password: Callable[[str], str],
        *,
        replication: int = 1,
        trusted: Collection[str] = (),
    ) -> None:
        self._connect = connect
        self._password = password
        self._replication = replication
        self._trusted = frozenset(trusted)
        self._enrolled: set[str] = set()
        self._opened: set[str] = set()
        self._wanted: frozenset[Acl] | None = None
        self._admin: Admin | None = None
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """The control topic, those of alarms and of the audit log's heads, kept for ever; the worker's principal."""
        with self._lock:
            admin = self._connected()
            self._enrol(admin, WORKER, worker_acls())
            self._enrol(admin, STREAMS, streams_acls())
            admin.ensure_topic(CONTROL_TOPIC, partitions=1, replication=self._replication, config={})
            kept = {"retention.ms": "-1", "message.timestamp.type": "LogAppendTime"}
            for topic in (ALARM_TOPIC, ANCHOR_TOPIC):
                admin.ensure_topic(topic, partitions=1, replication=self._replication, config=kept)

    def enrol(self, department: str) -> None:
        """A department's principal with its ACLs; harmless when it is there."""
        with self._lock:
            self._enrolled.add(department)  # it may not be in the register yet when it is reconciled
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

    def open_shares(self, shares: Collection[tuple[str, str]]) -> None:
        """The topics of these streams, where they are missing. One of them that exists is brought to how it should be
        when this process first sees it; it is never deleted."""
        with self._lock:
            admin = self._connected()
            wanted = {share_topic(*share) for share in shares}
            missing = wanted - admin.topics() if wanted else set()
            for topic in sorted(missing | (wanted - self._opened)):
                admin.ensure_topic(topic, partitions=1, replication=self._replication, config=_SHARE_CONFIG)
                self._opened.add(topic)

    def reconcile(self, standing: Standing) -> Drift:
        """Makes the ACLs what they should be; returns when the broker shows them so. What is too much goes first.

        What differs from what this process made them last is drift; with its first call, everything that is too much.
        """
        with self._lock:
            admin, wanted = self._connected(), self._acls(standing)
            there = admin.acls()
            surplus = {acl for acl in there - wanted if self._governed(acl, standing)}
            admin.remove_acls(surplus)
            missing = wanted - there
            if missing:
                admin.ensure_acls(missing)
            before, self._wanted = self._wanted or frozenset(), wanted
        return Drift(frozenset(surplus - before), frozenset(missing & before))

    def _acls(self, standing: Standing) -> frozenset[Acl]:
        departments = (standing.departments | self._enrolled) - standing.suspended
        shares = (share for share in standing.shares if share[0] in departments)
        sets = [worker_acls(), streams_acls(), *map(department_acls, departments)]
        return frozenset().union(*sets, *(share_acls(*share) for share in shares))

    def _governed(self, acl: Acl, standing: Standing) -> bool:
        """Whether an ACL is the bus's to take away: one of its principals', or on anything of its topics and groups,
        also by way of a wildcard. Others' ACLs on other things of a shared cluster are not."""
        if acl.principal in self._trusted:
            return False
        principals = {*standing.departments, *standing.suspended, *self._enrolled, WORKER, STREAMS}
        if acl.principal in principals:
            return True
        if acl.resource_type == "TOPIC":
            return _touches(acl, _OURS)
        groups = (f"{principal}." for principal in principals)
        return acl.resource_type == "GROUP" and _touches(acl, ("bus-worker-", *groups))

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


def _touches(acl: Acl, prefixes: Collection[str]) -> bool:
    """Whether the ACL is on some resource whose name begins with one of these."""
    if acl.pattern == "PREFIXED":
        return any(acl.name.startswith(prefix) or prefix.startswith(acl.name) for prefix in prefixes)
    return acl.name == "*" or acl.name.startswith(tuple(prefixes))
