"""worker: builds views."""

from __future__ import annotations

from bus.access.broker import WORKER
from bus.contracts.registry import Registry
from bus.errors import SetupError
from bus.infra import logs
from bus.infra.database import open_database
from bus.settings import Settings
from bus.views.catalogue import Declarations
from bus.views.changelog.streamed import Streamed
from bus.views.rebuilding.requests import Requests
from bus.views.worker import Worker
from bus.wiring.site import connection


def work(settings: Settings) -> None:
    """Builds views until it is told to stop."""
    logs.configure("worker")
    if not settings.kafka:
        raise SetupError("worker needs BUS_KAFKA; `bus up` and `make demo` start all of it.")
    governance = open_database(settings.database, "governance")
    Worker(
        views=open_database(settings.database, "views", durable=False),
        declarations=Declarations(governance),
        registry=Registry(governance),
        kafka=connection(settings, settings.kafka, WORKER),
        requests=Requests(governance),
        streamed=Streamed(governance),
        changes_kept_days=settings.changes_kept_days,
        lease_s=settings.lease_s,
        batch_events=settings.batch_events,
    ).run()
