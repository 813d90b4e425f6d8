"""serve: the doors, the registry, governance and the portal in one process."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import uvicorn

from bus.access.broker import CONTROL_TOPIC, Broker
from bus.access.decision import Decider
from bus.access.engine import PolicyEngine
from bus.access.identity import Issuer
from bus.access.opa import OpaClient
from bus.audit.log import AuditLog
from bus.errors import SetupError
from bus.governance.office import Governance
from bus.governance.promises.store import PromiseStore
from bus.governance.report import DepartmentReport
from bus.governance.shares.reconciling import Shares
from bus.infra import logs
from bus.infra.connection import KafkaConnection
from bus.infra.database import open_database
from bus.infra.stack.credentials import Secrets
from bus.infra.stack.opa import BUNDLE_TOKEN, OPA_TOKEN
from bus.settings import Settings
from bus.views.rebuilding.requests import Kind, Request, Requests
from bus.web import admin, registry, status
from bus.web.app import create_app
from bus.web.parts import Parts
from bus.web.serving import Patient, allow_connections
from bus.wiring.alarms import watching
from bus.wiring.anchoring import anchored, make_anchoring
from bus.wiring.broker import followed, make_broker, make_shares, reconciling
from bus.wiring.changes import make_streams
from bus.wiring.doors import Doors, open_doors
from bus.wiring.identity import Identity, make_identity, refreshed
from bus.wiring.rules import signed_rules
from bus.wiring.site import ISSUER_KEY, connection
from bus.wiring.stores import Stores, open_stores
from bus.wiring.streams import overview


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
    """Everything behind the handlers."""
    if not settings.kafka or not settings.opa:
        raise SetupError("serve needs BUS_KAFKA and BUS_OPA; `bus up` and `make demo` start all of it.")
    secrets, kafka = Secrets(settings.home), connection(settings, settings.kafka, settings.kafka_username)
    stores = open_stores(settings, secrets)
    opa_token = settings.opa_token.get_secret_value() if settings.opa_token else secrets.token(OPA_TOKEN)
    decider = Decider(PolicyEngine(OpaClient(settings.opa, opa_token)), stores.grants, stores.directory)
    broker = make_broker(settings, kafka, secrets)
    broker.prepare()
    announce = _announcer(kafka, stores.shapes.forget)
    shares = make_shares(
        stores.governance,
        kafka,
        grants=stores.grants,
        directory=stores.directory,
        shapes=stores.applied,
        registry=stores.registry,
        broker=broker,
        announce=announce,
    )
    return _assembled(
        settings,
        identity,
        stores,
        decider=decider,
        doors=open_doors(settings, secrets, stores, decider, kafka),
        governance=_governance(stores, broker, followed(announce, shares)),
        shares=shares,
        ask=_asker(stores, announce),
        kafka=kafka,
    )


def _assembled(
    settings: Settings,
    identity: Identity,
    stores: Stores,
    *,
    decider: Decider,
    doors: Doors,
    governance: Governance,
    shares: Shares,
    ask: Callable[[str, Kind], Request],
    kafka: KafkaConnection,
) -> Parts:
    """One member a line, and nothing else: so long because the handlers have that many parts behind them."""
    secrets, audit = Secrets(settings.home), stores.audit
    return Parts(
        registry=stores.registry,
        directory=stores.directory,
        declarations=stores.declarations,
        shapes=stores.shapes,
        decider=decider,
        grants=stores.grants,
        audit=audit,
        anchoring=make_anchoring(settings, audit, kafka),
        views=stores.views,
        ask=ask,
        door=doors.query,
        exports=doors.exports,
        lineage=doors.lineage,
        minimal=doors.minimal,
        verifier=identity.verifier,
        sessions=identity.sessions,
        proxies=settings.proxies,
        issuer=Issuer(secrets.ensure_key(ISSUER_KEY).read_bytes()) if settings.demo else None,
        bundle=signed_rules(settings, stores.governance, audit.append_sync),
        bundle_token=settings.bundle_token.get_secret_value() if settings.bundle_token else secrets.token(BUNDLE_TOKEN),
        quarantined=stores.quarantined,
        governance=governance,
        shares=shares,
        subscriptions=overview(settings),
        refusals=stores.refusals,
        refused=stores.refused,
        report=_report(stores),
        credentials=lambda department: _credentials(connection(settings, str(settings.kafka), department)),
        promises=stores.promises.all,
        streams=make_streams(
            settings,
            kafka,
            decider=decider,
            audit=audit,
            registry=stores.registry,
            views=stores.views,
            shapes=doors.query.current_shapes,
        ),
        demo=settings.demo,
        hosts=("127.0.0.1", "localhost", "[::1]", *filter(None, settings.web_hosts.split(","))),
    )


def _governance(stores: Stores, broker: Broker, announce: Callable[[str], None]) -> Governance:
    return Governance(
        registry=stores.registry,
        directory=stores.directory,
        declarations=stores.declarations,
        grants=stores.grants,
        declassifications=stores.declassifications,
        broker=broker,
        announce=announce,
    )


def _report(stores: Stores) -> DepartmentReport:
    return DepartmentReport(
        registry=stores.registry,
        views=stores.views,
        shapes=stores.shapes,
        refused=lambda: stores.refused(1_000),
        disclosures=lambda names: _disclosures(stores.audit, names),
        promises=stores.promises.all,
    )


def _asker(stores: Stores, announce: Callable[[str], None]) -> Callable[[str, Kind], Request]:
    """Tells workers what to do with a view."""
    requests = Requests(stores.governance)

    def ask(view: str, kind: Kind) -> Request:
        stores.declarations.get(view)
        request = requests.ask(view, kind)
        announce("views")
        return request

    return ask


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
