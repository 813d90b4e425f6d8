"""streams: writes the share topics."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import structlog
from sqlalchemy.engine import Engine

from bus.access.broker import STREAMS
from bus.access.decision import Decider
from bus.access.engine import PolicyEngine
from bus.access.opa import OpaClient
from bus.access.store import GrantStore
from bus.audit.log import AuditLog
from bus.contracts.directory import Directory
from bus.contracts.registry import Registry
from bus.errors import SetupError
from bus.governance.declassification import Declassifications
from bus.infra import logs
from bus.infra.database import open_database
from bus.infra.kafka import Admin
from bus.infra.stack.credentials import Secrets
from bus.infra.stack.opa import BUNDLE_KEY, OPA_TOKEN
from bus.settings import Settings
from bus.sharing.streams.desk import Desk
from bus.sharing.streams.overview import subscriptions
from bus.sharing.streams.permits import Permits
from bus.sharing.streams.process import Lease, Streams
from bus.sharing.streams.sending import KafkaSink
from bus.sharing.streams.states import Fenced
from bus.sharing.streams.store import StreamStore
from bus.views.applied import AppliedShapes
from bus.views.catalogue import Declarations
from bus.views.changelog.reading import ChangeLog
from bus.views.store import ViewStore
from bus.wiring.site import connection
from bus.wiring.viewing import CurrentShapes

AUDIT_WAIT_S: Final = 2.0
log = structlog.get_logger(__name__)


def stream(settings: Settings) -> None:
    """Writes the share topics until it is told to stop; another process that took over ends it with exit code 1."""
    logs.configure("streams")
    if not settings.kafka or not settings.opa:
        raise SetupError("streams needs BUS_KAFKA and BUS_OPA; `bus up` and `make demo` start all of it.")
    try:
        asyncio.run(_until_told(settings, settings.kafka, settings.opa))
    except Fenced as error:
        log.error("fenced", detail=error.detail)
        sys.exit(1)


async def _until_told(settings: Settings, kafka: str, opa: str) -> None:
    loop, running = asyncio.get_running_loop(), asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel if running else loop.stop)
    with contextlib.suppress(asyncio.CancelledError):
        await _run(settings, kafka, opa)


async def _run(settings: Settings, kafka: str, opa: str) -> None:
    principal = connection(settings, kafka, STREAMS)
    sink = KafkaSink(principal, lambda: Admin(principal))
    async with writing(settings, opa, sink) as streams:
        await streams.run()


def _spare_collector() -> None:
    """What a page is made of is hundreds of thousands of small objects and no cycle: the collector, left as it is,
    walks over them again and again, a fifth of all the time."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


@contextlib.asynccontextmanager
async def writing(settings: Settings, opa: str, sink: KafkaSink) -> AsyncIterator[Streams]:
    """The parts of the process; they are given back when the block ends."""
    _spare_collector()
    secrets = Secrets(settings.home)
    governance = open_database(settings.database, "governance")
    views = open_database(settings.database, "views", read_only=True)
    audit = AuditLog(open_database(settings.database, "governance", wait_s=AUDIT_WAIT_S))
    token = settings.opa_token.get_secret_value() if settings.opa_token else secrets.token(OPA_TOKEN)
    grants = GrantStore(governance)
    decider = Decider(PolicyEngine(OpaClient(opa, token)), grants, Directory(governance))
    store = StreamStore(open_database(settings.database, "streams", durable=False))
    lease = Lease(store, settings.lease_s)
    registry = Registry(governance)
    desk = Desk(
        permits=Permits(decider, grants, now=_now),
        log=ChangeLog(views),
        store=store,
        audit=audit,
        sink=sink,
        registry=registry,
        shapes=_shapes(governance, views, registry, audit, secrets),
        mask_secret=secrets.token("mask").encode(),
        now=_now,
        alive=lease.check,
    )
    canary = asyncio.create_task(decider.run_canary(), name="canary")
    try:
        yield Streams(desk, lease)
    finally:
        canary.cancel()
        await sink.close()
        await asyncio.to_thread(audit.close)


def _shapes(governance: Engine, views: Engine, registry: Registry, audit: AuditLog, secrets: Secrets) -> AppliedShapes:
    """The views as their tables are now."""
    seals = secrets.ensure_key(BUNDLE_KEY).read_bytes()
    lowered = Declassifications(governance, seals, audit.append_sync).lowered
    current = CurrentShapes(Declarations(governance), registry, lowered=lowered)
    return AppliedShapes(current, ViewStore(views), clock=time.monotonic)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def overview(settings: Settings) -> Callable[[], list[dict[str, Any]]]:
    """How the streams stand, for `bus status`."""
    store = StreamStore(open_database(settings.database, "streams", durable=False))
    views = ChangeLog(open_database(settings.database, "views", read_only=True))
    return lambda: subscriptions(store, views.standings)
