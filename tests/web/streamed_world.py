"""The served world with a door to streams on a real Kafka, found by `Site` as a bus that runs here."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
from served_world import World, served
from share_topic import Event, ShareTopic, decided, events

from bus.access.identity import Issuer, Verifier
from bus.core.grants import parse_grant_set
from bus.infra.acl import Acl
from bus.infra.connection import KafkaConnection
from bus.infra.database import open_database
from bus.infra.kafka import Admin
from bus.infra.stack.credentials import Secrets
from bus.sharing.streams.store import StreamStore
from bus.sharing.subscribing.changes import Decoder
from bus.sharing.subscribing.cursors import Cursors
from bus.sharing.subscribing.door import ChangesDoor, Limits
from bus.sharing.subscribing.permissions import Permissions
from bus.sharing.subscribing.topics import Topics
from bus.sharing.watch import Watch
from bus.web import registry
from bus.web.parts import Parts, StreamParts
from bus.wiring.changes import TopicIds, newest_schema
from bus.wiring.site import ISSUER_KEY

PURPOSE = "employment_support"
SECRET = b"for tests"


@dataclass
class Streamed:
    """The served world with a door to streams."""

    world: World
    kafka: KafkaConnection
    admin: Admin
    store: StreamStore
    home: Path
    door: ChangesDoor

    def topic(self, department: str, *, view: str = "sample", purpose: str = PURPOSE) -> ShareTopic:
        allow = decided(self.world, department, view, purpose)
        shape = self.world.parts.shapes()[view]
        return ShareTopic(self.world, self.kafka, self.admin, self.store, allow, shape)

    def grant(self, department: str, **members: Any) -> str:
        """A stream grant on the sample view; the set is the department's own, so another replaces it."""
        every = [column.name for column in self.world.parts.shapes()["sample"].columns]
        today = dt.date.today()
        grant = {
            "id": f"stream-{department}".replace("_", "-"),
            "consumer": department,
            "view": "sample",
            "purpose": PURPOSE,
            "channels": ["stream"],
            "fields": every,
            "valid": {"from": today - dt.timedelta(days=1), "to": today + dt.timedelta(days=100)},
            "limits": {"per_minute": 10_000, "rows": 1_000},
            "legal_basis": "Laboratory Act 3",
            **members,
        }
        document = {"set": grant["id"], "author": "li.na", "approver": "wang.wei", "grants": [grant]}
        self.world.parts.grants.apply(parse_grant_set(document), os_user="test")
        return str(grant["id"])

    @contextlib.contextmanager
    def stream(
        self, department: str, cursor: str | None = None, *, view: str = "sample", purpose: str = PURPOSE
    ) -> Iterator[tuple[httpx2.Response, Iterator[Event]]]:
        headers = self.world.headers(department, purpose, **({"Last-Event-ID": cursor} if cursor else {}))
        url = f"{self.world.url}/v1/views/{view}/changes"
        with httpx2.stream("GET", url, headers=headers, timeout=20) as response:
            if response.status_code != 200:
                response.read()
            yield response, events(response)

    def enrol(self, department: str, topic: str) -> KafkaConnection:
        """The department's own principal, that may read this topic and nothing else."""
        password = Secrets(self.home).kafka_password(department)
        self.admin.set_scram(department, password)
        self.admin.ensure_acls(Acl(department, operation, "TOPIC", topic) for operation in ("READ", "DESCRIBE"))
        return replace(self.kafka, username=department, password=password)

    @property
    def environment(self) -> dict[str, str]:
        """What tells `Site` where this bus runs."""
        return {
            "BUS_HOME": str(self.home),
            "BUS_KAFKA": self.kafka.bootstrap,
            "BUS_OPA": self.world.opa.url,
            "BUS_WEB_PORT": self.world.url.rpartition(":")[2],
        }


@contextlib.contextmanager
def streamed_world(folder: Path, opa_binary: Path, kafka: KafkaConnection, admin: Admin) -> Iterator[Streamed]:
    """The world; `folder` becomes its home."""
    url = f"sqlite:///{folder / 'data'}"
    store, secrets = StreamStore(open_database(url, "streams")), Secrets(folder)
    doors: list[ChangesDoor] = []

    def extend(parts: Parts) -> Parts:
        ids = TopicIds(kafka)
        door = ChangesDoor(
            permissions=Permissions(parts.decider, store, parts.door.current_shapes, time.monotonic),
            topics=Topics(kafka, Decoder(parts.registry.schema), ids),
            cursors=Cursors(SECRET),
            audit=parts.audit,
            watch=Watch(parts.views, time.monotonic),
            shapes=parts.door.current_shapes,
            limits=Limits(department=3, all=8, heartbeat_s=0.5, identity_s=0.5),
        )
        doors.append(door)
        broker = {"bootstrap_servers": kafka.bootstrap, "security_protocol": "SASL_PLAINTEXT"}
        return replace(
            parts,
            streams=StreamParts(door, broker, ids, newest_schema(parts.registry)),
            issuer=Issuer(secrets.ensure_key(ISSUER_KEY).read_bytes()),
            verifier=Verifier(secrets.public_key(ISSUER_KEY).read_bytes()),
        )

    with served(url, opa_binary, folder / "opa", extend=extend, routers=(registry.router,)) as world:
        yield Streamed(world, kafka, admin, store, folder, doors[0])
