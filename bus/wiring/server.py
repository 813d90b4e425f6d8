"""serve: the doors, the registry, governance and the portal in one process."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import uvicorn

from bus.access.broker import CONTROL_TOPIC
from bus.access.decision import Decider
from bus.access.engine import PolicyEngine
from bus.access.identity import Issuer
from bus.access.opa import OpaClient
from bus.access.store import GrantStore
from bus.audit.log import AuditLog
from bus.contracts.directory import Directory
from bus.contracts.quarantine import Kept
from bus.contracts.refusals import Refusals
from bus.contracts.registry import Registry
from bus.errors import SetupError
from bus.governance.declassification import Declassifications
from bus.governance.office import Governance
from bus.governance.promises.store import PromiseStore
from bus.governance.report import DepartmentReport
from bus.infra import logs
from bus.infra.connection import KafkaConnection
from bus.infra.database import open_database
from bus.infra.records import RecordReader
from bus.infra.stack.credentials import Secrets
from bus.infra.stack.opa import BUNDLE_KEY, BUNDLE_TOKEN, OPA_TOKEN
from bus.settings import Settings
from bus.sharing.budget.spending import Budget
from bus.sharing.budget.store import BudgetStore
from bus.sharing.exports.door import ExportDoor
from bus.sharing.exports.reading import ExportReader
from bus.sharing.lineage import LineageDoor
from bus.sharing.minimal.answering import MinimalDoor
from bus.sharing.query import QueryDoor
from bus.sharing.readers import open_reader
from bus.sharing.watch import Watch
from bus.views.applied import AppliedShapes
from bus.views.catalogue import Declarations
from bus.views.rebuilding.requests import Kind, Request, Requests
from bus.views.store import ViewStore
from bus.web import admin, registry, status
from bus.web.app import create_app
from bus.web.parts import Parts
from bus.web.serving import Patient, allow_connections
from bus.wiring.alarms import watching
from bus.wiring.anchoring import anchored, make_anchoring
from bus.wiring.broker import followed, make_broker, make_shares, reconciling
from bus.wiring.changes import make_streams
from bus.wiring.identity import Identity, make_identity, refreshed
from bus.wiring.rules import signed_rules
from bus.wiring.site import ISSUER_KEY, connection
from bus.wiring.streams import overview
from bus.wiring.viewing import CurrentShapes

AUDIT_WAIT_S: Final = 0.12


def serve(settings: Settings) -> None:
    """Runs the web server until it is told to stop."""
    logs.configure("serve")
    allow_connections()
    identity = make_identity(settings)
    parts = make_parts(settings, identity)
    app = create_app(parts, routers=(admin.router, status.router, registry.router))
    config = uvicorn.Config(
        app,
        host=settings.web_host,
        port=settings.web_port,
        http=Patient,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        ssl_ca_certs=str(settings.tls_client_ca) if settings.tls_client_ca else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.tls_client_ca else ssl.CERT_NONE,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=64 * 1024,
    )
    promises = PromiseStore(open_database(settings.database, "governance"))
    bus_connection = connection(settings, str(settings.kafka), settings.kafka_username)
    with (
        watching(promises, parts.registry, bus_connection),
        anchored(parts.anchoring),
        reconciling(parts.shares),
        refreshed(identity),
        asyncio.Runner(loop_factory=config.get_loop_factory()) as runner,  # uvloop, where there is one
    ):
        runner.run(uvicorn.Server(config).serve())


def make_parts(settings: Settings, identity: Identity) -> Parts:
    """Everything behind the handlers, on the governance database and the (read-only) views database."""
    if not settings.kafka or not settings.opa:
        raise SetupError("serve needs BUS_KAFKA and BUS_OPA; `bus up` and `make demo` start all of it.")
    secrets = Secrets(settings.home)
    governance = open_database(settings.database, "governance")
    views = ViewStore(open_database(settings.database, "views", read_only=True))
    registry_store, directory, declarations = Registry(governance), Directory(governance), Declarations(governance)
    promises = PromiseStore(governance)
    grants, refusals = GrantStore(governance), Refusals(governance)
    # a disclosure that cannot be recorded soon is refused soon, whoever else holds the database
    audit = AuditLog(open_database(settings.database, "governance", wait_s=AUDIT_WAIT_S))
    seals = secrets.ensure_key(BUNDLE_KEY).read_bytes()
    declassifications = Declassifications(governance, seals, audit.append_sync)
    current = CurrentShapes(declarations, registry_store, lowered=declassifications.lowered)
    applied = AppliedShapes(current, views, clock=time.monotonic)
    opa_token = settings.opa_token.get_secret_value() if settings.opa_token else secrets.token(OPA_TOKEN)
    decider = Decider(PolicyEngine(OpaClient(settings.opa, opa_token)), grants, directory)
    bus_connection = connection(settings, settings.kafka, settings.kafka_username)
    broker = make_broker(settings, bus_connection, secrets)
    broker.prepare()

    reader = open_reader(settings.database, timeout_s=settings.query_timeout_s)
    budget = Budget(BudgetStore(governance), secrets.token("mask").encode())
    door = QueryDoor(
        decider=decider,
        reader=reader,
        audit=audit,
        shapes=applied,
        watch=Watch(views, time.monotonic),
        budget=budget,
        contacts=lambda department: directory.department(department).contact,
        mask_secret=secrets.token("mask").encode(),
    )
    lineage = LineageDoor(
        door,
        decider=decider,
        reader=reader,
        audit=audit,
        records=RecordReader(bus_connection),
        versions=registry_store,
    )

    requests, announce = Requests(governance), _announcer(bus_connection, current.forget)
    shares = make_shares(
        governance,
        bus_connection,
        grants=grants,
        directory=directory,
        shapes=applied,
        registry=registry_store,
        broker=broker,
        announce=announce,
    )

    def ask(view: str, kind: Kind) -> Request:
        declarations.get(view)
        request = requests.ask(view, kind)
        announce("views")
        return request

    def refused(limit: int) -> list[Kept]:
        both = [*refusals.recent(limit), *views.set_aside(limit)]
        return sorted(both, key=lambda kept: kept.at_ms, reverse=True)[:limit]

    return Parts(
        registry=registry_store,
        directory=directory,
        declarations=declarations,
        shapes=current,
        decider=decider,
        grants=grants,
        audit=audit,
        anchoring=make_anchoring(settings, audit, bus_connection),
        views=views,
        ask=ask,
        door=door,
        exports=ExportDoor(door, reader=ExportReader(settings.database), audit=audit),
        lineage=lineage,
        minimal=MinimalDoor(door, reader=reader, audit=audit, budget=budget),
        verifier=identity.verifier,
        sessions=identity.sessions,
        proxies=settings.proxies,
        issuer=Issuer(secrets.ensure_key(ISSUER_KEY).read_bytes()) if settings.demo else None,
        bundle=signed_rules(settings, governance, audit.append_sync),
        bundle_token=settings.bundle_token.get_secret_value() if settings.bundle_token else secrets.token(BUNDLE_TOKEN),
        quarantined=lambda: refusals.count() + views.quarantined(),
        governance=Governance(
            registry=registry_store,
            directory=directory,
            declarations=declarations,
            grants=grants,
            declassifications=declassifications,
            broker=broker,
            announce=followed(announce, shares),
        ),
        shares=shares,
        subscriptions=overview(settings),
        refusals=refusals,
        refused=refused,
        report=DepartmentReport(
            registry=registry_store,
            views=views,
            shapes=current,
            refused=lambda: refused(1_000),
            disclosures=lambda names: _disclosures(audit, names),
            promises=promises.all,
        ),
        credentials=lambda department: _credentials(connection(settings, str(settings.kafka), department)),
        promises=promises.all,
        streams=make_streams(
            settings,
            bus_connection,
            decider=decider,
            audit=audit,
            registry=registry_store,
            views=views,
            shapes=door.current_shapes,
        ),
        demo=settings.demo,
        hosts=("127.0.0.1", "localhost", "[::1]", *filter(None, settings.web_hosts.split(","))),
    )


def _disclosures(audit: AuditLog, views: Sequence[str]) -> list[Mapping[str, Any]]:
    """The newest disclosures of these views."""
    bodies = (entry.body for entry in audit.recent(10_000))
    return [body for body in bodies if body.get("view") in views and body.get("kind") == "disclosure"]


def _announcer(bus_connection: KafkaConnection, forget: Callable[[], None]) -> Callable[[str], None]:
    """Tells this process and running workers (on the control topic) that something changed. A message that cannot
    be sent is no loss: workers look at the revisions every second as well."""
    from kafka import KafkaProducer
    from kafka.errors import KafkaError

    producer: Any = None
    lock = threading.Lock()

    def announce(what: str) -> None:
        nonlocal producer
        forget()
        with lock:
            try:
                producer = producer or KafkaProducer(**bus_connection.kafka_python(), bootstrap_timeout_ms=5_000)
                producer.send(CONTROL_TOPIC, what.encode())
            except KafkaError:
                producer = None

    return announce


def _credentials(known: KafkaConnection) -> dict[str, str]:
    return {
        "bootstrap_servers": known.bootstrap,
        "security_protocol": known.security_protocol,
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": known.username,
        "sasl_plain_password": known.password,
    }
