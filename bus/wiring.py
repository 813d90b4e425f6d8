"""The composition root: settings in, running parts out. Nothing else reads settings or chooses what is real."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import uvicorn

from bus.access.broker import CONTROL_TOPIC, WORKER, Broker
from bus.access.bundle import build_bundle, content_hash, etag
from bus.access.decision import Decider
from bus.access.engine import PolicyEngine
from bus.access.identity import Issuer, Verifier
from bus.access.opa import OpaClient
from bus.access.store import GrantStore
from bus.audit.log import AuditLog
from bus.contracts.directory import Directory
from bus.contracts.quarantine import Kept, Quarantined, as_json, recent
from bus.contracts.refusals import Refusals
from bus.contracts.registry import Registry
from bus.contracts.registry_client import RegistryClient
from bus.errors import SetupError
from bus.governance.office import Governance
from bus.governance.report import DepartmentReport
from bus.infra import logs
from bus.infra.database import open_database
from bus.infra.kafka import Admin, KafkaConnection
from bus.infra.stack import LocalStack, Program, Secrets, StackState
from bus.infra.stack.fetch import Downloads
from bus.publishing.publisher import Publisher as _Publisher
from bus.settings import Settings
from bus.sharing.client import QueryClient as _QueryClient
from bus.sharing.query import QueryDoor
from bus.sharing.readers import open_reader
from bus.sharing.watch import Watch
from bus.views.catalogue import Declarations, Shape, shapes
from bus.views.store import QUARANTINE, ViewStore
from bus.views.tables import live_rows, row_table
from bus.views.waiting import wait
from bus.views.worker import Worker
from bus.web import admin, registry, status
from bus.web.app import create_app
from bus.web.parts import Parts

ISSUER_KEY: Final = "issuer"
BUNDLE_KEY: Final = "bundle"
TOKEN_LIFETIME_S: Final = 900
TOKEN_RENEWED_S: Final = 600
OUTAGE: Final = "`bus up` or `make demo` starts the local stack; or point BUS_KAFKA and BUS_OPA at yours"


# --- where the running bus is ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """The addresses of a running bus, and the right to speak for its departments on this machine."""

    settings: Settings
    web: str
    kafka: str
    opa: str
    processes: Mapping[str, int]

    @classmethod
    def find(cls, settings: Settings | None = None) -> Site:
        """The bus that the environment names, else the local stack. Raises `SetupError` where none runs."""
        settings = settings or Settings()
        state = LocalStack(settings.home).state()
        kafka, opa = settings.kafka or (state and state.kafka), settings.opa or (state and state.opa)
        web = f"http://{settings.web_host}:{settings.web_port}" if settings.web_port else state and state.web
        if not web or not kafka or not opa:
            raise SetupError("The bus does not run here. Start it with `bus up` or `make demo`.")
        return cls(settings, web, kafka, opa, state.processes if state else {})

    @property
    def database(self) -> str:
        """The database's URL without a password."""
        head, at, tail = self.settings.database.rpartition("@")
        return f"{head.partition('://')[0]}://…@{tail}" if at else self.settings.database

    @property
    def secrets(self) -> Secrets:
        return Secrets(self.settings.home)

    def token(self, department: str, *, officer: str | None = None, administrator: bool = False) -> str:
        """A short-lived token from the local issuer."""
        issuer = Issuer(self.secrets.ensure_key(ISSUER_KEY).read_bytes())
        return issuer.token(department, officer=officer, administrator=administrator, lifetime_s=TOKEN_LIFETIME_S)

    def connection(self, principal: str) -> KafkaConnection:
        """How a principal reaches the broker."""
        return connection(self.settings, self.kafka, principal)


def connection(settings: Settings, bootstrap: str, principal: str) -> KafkaConnection:
    """A principal's connection; the bus's own password may come from the environment."""
    given = settings.kafka_password if principal == settings.kafka_username else None
    password = given.get_secret_value() if given else Secrets(settings.home).kafka_password(principal)
    return KafkaConnection(
        bootstrap=bootstrap,
        username=principal,
        password=password,
        security_protocol=settings.kafka_security,
        cafile=settings.kafka_cafile,
    )


class _RenewedToken:
    """A token that is signed anew well before it expires."""

    def __init__(self, sign: Callable[[], str]) -> None:
        self._sign = sign
        self._token, self._until = "", 0.0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            if time.monotonic() > self._until:
                self._token, self._until = self._sign(), time.monotonic() + TOKEN_RENEWED_S
            return self._token


# --- the local stack ------------------------------------------------------------------------------------------------


def local_stack(settings: Settings, progress: Callable[[str], None]) -> LocalStack:
    """Kafka, OPA, serve and worker on this machine; what is configured from outside is left out."""
    environment = child_environment(settings) | {"BUS_HOME": "{home}", "BUS_WEB_PORT": "{web_port}"}
    if not settings.kafka:
        environment["BUS_KAFKA"] = "{kafka}"
    if not settings.opa:
        environment["BUS_OPA"] = "{opa}"
    command = (sys.executable, "-m", "bus.cli")
    serve_program = Program(
        "serve", (*command, "serve"), environment, ready=_serving(settings), after=("kafka",), listens=True
    )
    worker_program = Program("worker", (*command, "worker"), environment, after=("kafka", "serve"))
    return LocalStack(
        settings.home,
        programs=(serve_program, worker_program),
        kafka=not settings.kafka,
        opa=not settings.opa,
        web_port=settings.web_port,
        progress=progress,
    )


def child_environment(settings: Settings) -> dict[str, str]:
    """What the bus's own processes are told beside their parent's environment: what was set here, and UTC.

    Nothing else, since a process whose environment changed is started again by the next `bus up`.
    """
    given = {name: value for name, value in os.environ.items() if name.startswith("BUS_")}
    return {**given, "BUS_HOME": str(settings.home.resolve()), "TZ": "UTC", "PYTHONUNBUFFERED": "1"}


def _serving(settings: Settings) -> Callable[[], bool]:
    """Asks serve whether it can answer: rules loaded, canary decision good, database there."""

    def ready() -> bool:
        state = LocalStack(settings.home).state()
        if state is None:
            return False
        try:
            return httpx2.get(f"{state.web}/health/ready", timeout=2.0).status_code == 200
        except httpx2.TransportError:
            return False

    return ready


def start(progress: Callable[[str], None]) -> StackState:
    """Starts what is missing and returns when every part answers."""
    return local_stack(Settings(), progress).up()


def opa_binary(settings: Settings) -> Path:
    """OPA's program, for testing rules."""
    return Downloads(settings.home, progress=print).opa()


# --- serve ----------------------------------------------------------------------------------------------------------


def serve(settings: Settings) -> None:
    """Runs the web server until it is told to stop."""
    logs.configure("serve")
    parts = make_parts(settings)
    app = create_app(parts, routers=(admin.router, status.router, registry.router))
    config = uvicorn.Config(
        app,
        host=settings.web_host,
        port=settings.web_port,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=64 * 1024,
    )
    asyncio.run(uvicorn.Server(config).serve())


def make_parts(settings: Settings) -> Parts:
    """Everything behind the handlers, on the governance database and the (read-only) views database."""
    if not settings.kafka or not settings.opa:
        raise SetupError(f"serve needs Kafka and OPA: {OUTAGE}.")
    secrets = Secrets(settings.home)
    governance = open_database(settings.database, "governance")
    views_engine = open_database(settings.database, "views", durable=False)
    views = ViewStore(views_engine)
    registry_store, directory, declarations = Registry(governance), Directory(governance), Declarations(governance)
    grants, audit, refusals = GrantStore(governance), AuditLog(governance), Refusals(governance)
    current = _current_shapes(declarations, registry_store)
    opa_token = settings.opa_token.get_secret_value() if settings.opa_token else secrets.token("opa")
    decider = Decider(PolicyEngine(OpaClient(settings.opa, opa_token)), grants, directory)
    bus_connection = connection(settings, settings.kafka, settings.kafka_username)
    broker = Broker(lambda: Admin(bus_connection), secrets.kafka_password, replication=settings.kafka_replication)
    broker.prepare()

    def refused(limit: int) -> list[Kept]:
        with views_engine.connect() as connection_:
            both = [*refusals.recent(limit), *recent(connection_, QUARANTINE, limit)]
        return sorted(both, key=lambda kept: kept.at_ms, reverse=True)[:limit]

    return Parts(
        registry=registry_store,
        directory=directory,
        declarations=declarations,
        shapes=current,
        decider=decider,
        grants=grants,
        audit=audit,
        views=views,
        door=QueryDoor(
            decider=decider,
            reader=open_reader(settings.database, timeout_s=settings.query_timeout_s),
            audit=audit,
            shapes=current,
            watch=Watch(views, time.monotonic),
            contacts=lambda department: directory.department(department).contact,
            mask_secret=secrets.token("mask").encode(),
        ),
        verifier=Verifier(secrets.public_key(ISSUER_KEY).read_bytes()),
        issuer=Issuer(secrets.ensure_key(ISSUER_KEY).read_bytes()) if settings.demo else None,
        bundle=_rules(settings, grants),
        bundle_token=settings.bundle_token.get_secret_value() if settings.bundle_token else secrets.token("bundle"),
        quarantined=lambda: refusals.count() + views.quarantined(),
        governance=Governance(
            registry=registry_store,
            directory=directory,
            declarations=declarations,
            grants=grants,
            broker=broker,
            announce=_announcer(bus_connection),
        ),
        refusals=refusals,
        refused=refused,
        report=DepartmentReport(
            registry=registry_store,
            views=views,
            shapes=current,
            refused=lambda: refused(1_000),
            disclosures=lambda names: _disclosures(audit, names),
        ),
        credentials=lambda department: _credentials(connection(settings, str(settings.kafka), department)),
        demo=settings.demo,
        hosts=("127.0.0.1", "localhost", "[::1]", *filter(None, settings.web_hosts.split(","))),
    )


def _disclosures(audit: AuditLog, views: Sequence[str]) -> list[Mapping[str, Any]]:
    """The newest disclosures of these views."""
    bodies = (entry.body for entry in audit.recent(10_000))
    return [body for body in bodies if body.get("view") in views and body.get("kind") == "disclosure"]


def _current_shapes(declarations: Declarations, registry_: Registry) -> Callable[[], Mapping[str, Shape]]:
    """The shapes as declared now, computed again only when a declaration or a contract changed."""
    known: tuple[tuple[int, int], Mapping[str, Shape]] = ((-1, -1), {})

    def current() -> Mapping[str, Shape]:
        nonlocal known
        revision = (declarations.revision(), registry_.revision())
        if known[0] != revision:
            known = (revision, shapes(declarations, registry_.contracts()))
        return known[1]

    return current


def _rules(settings: Settings, grants: GrantStore) -> Callable[[], tuple[bytes, str]]:
    """The signed rules as they are in the policies' folder, signed again when a file changed."""
    private = Secrets(settings.home).ensure_key(BUNDLE_KEY).read_bytes()
    signed: dict[str, tuple[bytes, str]] = {}

    def bundle() -> tuple[bytes, str]:
        content = content_hash(settings.policies)
        if content not in signed:
            signed.clear()
            built = build_bundle(settings.policies, grants.rules_revision(content), private)
            signed[content] = (built, etag(built))
        return signed[content]

    return bundle


def build_rules(site: Site) -> tuple[bytes, int]:
    """The signed rules and their revision, for `bus policy build`."""
    grants = GrantStore(open_database(site.settings.database, "governance"))
    revision = grants.rules_revision(content_hash(site.settings.policies))
    key = site.secrets.ensure_key(BUNDLE_KEY).read_bytes()
    return build_bundle(site.settings.policies, revision, key), revision


def _announcer(bus_connection: KafkaConnection) -> Callable[[str], None]:
    """Tells running workers on the control topic that something changed. A message that cannot be sent is
    no loss: workers look at the revisions every second as well."""
    from kafka import KafkaProducer
    from kafka.errors import KafkaError

    producer: Any = None
    lock = threading.Lock()

    def announce(what: str) -> None:
        nonlocal producer
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


# --- worker ---------------------------------------------------------------------------------------------------------


def work(settings: Settings) -> None:
    """Builds views until it is told to stop."""
    logs.configure("worker")
    if not settings.kafka:
        raise SetupError(f"worker needs Kafka: {OUTAGE}.")
    governance = open_database(settings.database, "governance")
    Worker(
        views=open_database(settings.database, "views", durable=False),
        declarations=Declarations(governance),
        registry=Registry(governance),
        kafka=connection(settings, settings.kafka, WORKER),
        lease_s=settings.lease_s,
        batch_events=settings.batch_events,
    ).run()


# --- what departments hold ------------------------------------------------------------------------------------------


class Publisher(_Publisher):
    """Publishes a department's change events; `connect` finds the running bus."""

    @classmethod
    def connect(cls, department: str) -> Publisher:
        """The publisher of ``department`` on the bus that runs here. Raises `SetupError` where none does."""
        site = Site.find()
        token = _RenewedToken(lambda: site.token(department))
        return cls(
            department,
            connection=site.connection(department),
            registry=RegistryClient(f"{site.web}/registry", token),
            quarantine=_hand_over(site.web, token),
        )


class QueryClient(_QueryClient):
    """Asks shared views; `connect` finds the running bus."""

    @classmethod
    def connect(cls, department: str, *, officer: str | None = None) -> QueryClient:
        """The client of ``department`` on the bus that runs here. Raises `SetupError` where none does."""
        site = Site.find()
        return cls(site.web, _RenewedToken(lambda: site.token(department, officer=officer)))


def _hand_over(web: str, token: Callable[[], str]) -> Callable[[Any], None]:
    """Sends what a publisher refused to quarantine."""

    def hand_over(entries: list[Quarantined]) -> None:
        from bus.sharing.client import Answered, problem_of

        body = {"entries": [as_json(entry) for entry in entries]}
        headers = {"Authorization": f"Bearer {token()}"}
        response = httpx2.post(f"{web}/v1/quarantine", json=body, headers=headers, timeout=30.0)
        if response.status_code >= 400:
            raise Answered(problem_of(response))

    return hand_over


# --- what commands look at ------------------------------------------------------------------------------------------


def wait_for_views(site: Site, names: tuple[str, ...], timeout_s: float) -> None:
    """Returns when the views have applied everything published before the call."""
    governance = open_database(site.settings.database, "governance")
    known = _current_shapes(Declarations(governance), Registry(governance))()
    views = ViewStore(open_database(site.settings.database, "views", durable=False))
    with Admin(site.connection(site.settings.kafka_username)) as kafka_admin:
        wait(views, known, kafka_admin.end_offsets, names or tuple(known), timeout_s)


def view_rows(site: Site, name: str) -> list[dict[str, Any]]:
    """Every row of a view, straight from its table: for verification by an administrator, not a door."""
    governance = open_database(site.settings.database, "governance")
    shape = shapes(Declarations(governance), Registry(governance).contracts())[name]
    table = row_table(shape)
    columns = [table.c[column.name] for column in shape.columns]
    engine = open_database(site.settings.database, "views", read_only=True)
    from sqlalchemy import select

    with engine.connect() as connection_:
        return [dict(row) for row in connection_.execute(select(*columns).where(live_rows(table))).mappings()]
