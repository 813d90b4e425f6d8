"""A served world: the demo's contracts, views and grants, rows of our own, a real OPA, a real uvicorn."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import sqlalchemy as sa
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from fastapi import APIRouter
from opa_process import POLICIES, pem_pair, running_opa
from served_declarations import EVERY_KIND, SAMPLE_VIEW, Declared, declared
from served_rows import SAMPLES, XSS, businesses, fill, rows_of

from bus.access.bundle import build_bundle, etag
from bus.access.decision import Decider
from bus.access.engine import Limits, PolicyEngine
from bus.access.identity import Issuer, Verifier
from bus.access.opa import OpaClient
from bus.access.revisions_store import raise_revision
from bus.audit.anchoring import Anchoring
from bus.audit.log import AuditLog
from bus.contracts.quarantine import Kept, Quarantined
from bus.infra.connection import KafkaConnection
from bus.infra.database import open_database, write
from bus.infra.records import RecordReader
from bus.sharing.budget.spending import Budget
from bus.sharing.budget.store import BudgetStore
from bus.sharing.exports.door import ExportDoor
from bus.sharing.exports.reading import ExportReader
from bus.sharing.lineage import LineageDoor
from bus.sharing.minimal.answering import MinimalDoor
from bus.sharing.query import QueryDoor
from bus.sharing.readers import open_reader
from bus.sharing.watch import Watch
from bus.views.catalogue import Shape, shapes
from bus.views.store import VIEW, ViewStore
from bus.web.app import create_app
from bus.web.parts import Parts
from bus.web.serving import Patient

__all__ = ["BUNDLE_TOKEN", "EVERY_KIND", "SAMPLES", "SAMPLE_VIEW", "XSS", "World", "businesses", "served"]
BUNDLE_TOKEN = "a-token-for-rules"


@dataclass
class World:
    """The served world. ``opa``: the process, for tests that stop it."""

    url: str
    parts: Parts
    views: sa.Engine
    governance: sa.Engine
    opa: Any
    bundle: list[bytes] = field(default_factory=list)

    def headers(self, department: str, purpose: str | None = None, **more: str) -> dict[str, str]:
        assert self.parts.issuer is not None
        stated = {"Purpose": purpose} if purpose else {}
        return {"Authorization": f"Bearer {self.parts.issuer.token(department)}", **stated, **more}

    def get(
        self, path: str, department: str = "food", purpose: str | None = "inspection_planning", **headers: str
    ) -> httpx2.Response:
        """One question, as a department."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx2.get(self.url + path, headers={**self.headers(department, purpose), **sent}, timeout=30)

    def entries(self) -> list[Mapping[str, Any]]:
        """The bodies of the audit entries, oldest first."""
        return [entry.body for entry in self.parts.audit.entries(limit=100_000)]

    def set_state(self, view: str, state: str) -> None:
        with self.views.begin() as connection:
            connection.execute(sa.update(VIEW).where(VIEW.c.name == view).values(state=state))


def _kept() -> Kept:
    reasons = [{"field": "licence_term_id", "expected": "a whole number", "received": "nothing"}]
    entry = Quarantined("publish", "market.business_licence", reasons, None, None, None, 9_103, None, None)
    return Kept(1, 1_700_000_000_000, entry)


@contextlib.contextmanager
def served(
    database_url: str,
    opa_binary: Path,
    folder: Path,
    *,
    complaints: int = 2_000,
    timeout_s: float = 5.0,
    demo: bool = True,
    kafka: KafkaConnection | None = None,
    more: Sequence[Mapping[str, Any]] = (),
    rows: Callable[[Shape, int], list[dict[str, Any]]] = rows_of,
    extend: Callable[[Parts], Parts] = lambda parts: parts,
    routers: Sequence[APIRouter] = (),
) -> Iterator[World]:
    """The world on a free loopback port, until the block ends. ``more``: further views to declare; ``rows``: of
    each view, of so many complaints; ``extend``: adds parts of one's own; ``routers``: of further audiences."""
    signing = pem_pair(ec.generate_private_key(ec.SECP256R1()))
    governance = open_database(database_url, "governance")
    views = open_database(database_url, "views", durable=False)
    store, known = ViewStore(views), declared(governance, more)
    with write(governance) as connection:
        revision = raise_revision(connection, "rules", dt.datetime.now(dt.UTC))
    current = shapes(known.declarations, known.registry.contracts())
    for shape in current.values():
        state = "building" if shape.view.name == "weather_daily" else "live"
        fill(views, shape, rows(shape, complaints), state=state)
    bundle = [build_bundle(POLICIES, revision, signing[0])]
    with running_opa(opa_binary, folder, bundle[0], signing[1]) as (opa, _):
        decider = _decider(opa.url, known)
        audit = AuditLog(governance)
        doors = _doors(database_url, decider, audit, known, store, current, timeout_s=timeout_s, kafka=kafka)
        parts = extend(_parts(known, decider, audit, store, current, doors, bundle, demo=demo))
        with running(parts, routers) as url:
            yield World(url, parts, views, governance, opa, bundle)
        audit.close()
    views.dispose()
    governance.dispose()


def _decider(opa: str, known: Declared) -> Decider:
    # a busy machine may take longer than the budget that the doors allow
    limits = Limits(budget=5.0, canary_good=10.0)
    return Decider(PolicyEngine(OpaClient(opa, timeout_s=5), limits=limits), known.grants, known.directory)


def _doors(
    database_url: str,
    decider: Decider,
    audit: AuditLog,
    known: Declared,
    store: ViewStore,
    current: Mapping[str, Shape],
    *,
    timeout_s: float,
    kafka: KafkaConnection | None,
) -> dict[str, Any]:
    """The doors, by the names that they have among the parts."""
    reader = open_reader(database_url, timeout_s=timeout_s)
    budget = Budget(BudgetStore(known.grants.engine), b"for tests")
    door = QueryDoor(
        decider=decider,
        reader=reader,
        audit=audit,
        shapes=lambda: current,
        watch=Watch(store, time.monotonic),
        budget=budget,
        contacts=lambda department: known.directory.department(department).contact,
        mask_secret=b"for tests",
    )
    records = RecordReader(kafka or KafkaConnection("127.0.0.1:9", "nobody", "none"), timeout_s=5 if kafka else 0.5)
    return {
        "door": door,
        "exports": ExportDoor(door, reader=ExportReader(database_url), audit=audit),
        "lineage": LineageDoor(
            door, decider=decider, reader=reader, audit=audit, records=records, versions=known.registry
        ),
        "minimal": MinimalDoor(door, reader=reader, audit=audit, budget=budget),
    }


def _parts(
    known: Declared,
    decider: Decider,
    audit: AuditLog,
    store: ViewStore,
    current: Mapping[str, Shape],
    doors: Mapping[str, Any],
    bundle: list[bytes],
    *,
    demo: bool,
) -> Parts:
    tokens = pem_pair(ed25519.Ed25519PrivateKey.generate())
    nothing: Any = None  # administration has its own tests
    return Parts(
        registry=known.registry,
        directory=known.directory,
        declarations=known.declarations,
        shapes=lambda: current,
        decider=decider,
        grants=known.grants,
        audit=audit,
        anchoring=Anchoring(audit, (), clock=lambda: dt.datetime.now(dt.UTC)),
        views=store,
        ask=nothing,
        **doors,
        verifier=Verifier(tokens[1]),
        issuer=Issuer(tokens[0]),
        bundle=lambda: (bundle[0], etag(bundle[0])),
        bundle_token=BUNDLE_TOKEN,
        quarantined=lambda: 1,
        governance=nothing,
        refusals=nothing,
        refused=lambda limit: [_kept()],
        report=nothing,
        credentials=nothing,
        demo=demo,
    )


@contextlib.contextmanager
def running(parts: Parts, routers: Sequence[APIRouter] = ()) -> Iterator[str]:
    """A real uvicorn over the parts, on a free loopback port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        app = create_app(parts, routers)
        config = uvicorn.Config(app, http=Patient, log_config=None, access_log=False, timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            url = f"http://127.0.0.1:{port}"
            _until_ready(url)
            yield url
        finally:
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


def _until_ready(url: str, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(f"{url}/health/ready", timeout=5).status_code == 200:
                return
        assert time.monotonic() < deadline, "the server did not become ready"
        time.sleep(0.05)
