"""What commands look at: views and rules as they are on the bus that runs here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import sqlalchemy as sa

from bus.contracts.registry import Registry
from bus.core.guards import Lowered
from bus.errors import UnknownView
from bus.infra.database import open_database
from bus.infra.kafka import Admin
from bus.views.applied import AppliedShapes
from bus.views.catalogue import Declarations, Shape, shapes
from bus.views.oracle.replay import Verification, verify_aggregate, verify_entity
from bus.views.store import ViewStore
from bus.views.tables import live_rows, row_table
from bus.views.waiting import wait
from bus.wiring.site import Site

KEPT_S: Final = 0.25


class CurrentShapes:
    """The shapes as declared now, computed again only when a declaration or a contract changed.

    Whether one did is asked at most every quarter of a second, as the state of views is, and at once after `forget`:
    a process that changes something itself sees it in its next question. ``lowered``: the declassifications in force,
    asked as often; who opens no door needs none. ``clock``: monotonic seconds.
    """

    def __init__(
        self,
        declarations: Declarations,
        registry: Registry,
        *,
        lowered: Callable[[], Lowered] = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._declarations, self._registry, self._clock, self._lowered = declarations, registry, clock, lowered
        self._known: tuple[tuple[int, int, Lowered], Mapping[str, Shape]] = ((-1, -1, {}), {})
        self._asked: float | None = None

    def __call__(self) -> Mapping[str, Shape]:
        asked, now = self._asked, self._clock()
        if asked is None or now - asked > KEPT_S:
            revision = (self._declarations.revision(), self._registry.revision(), self._lowered())
            if self._known[0] != revision:
                self._known = (revision, shapes(self._declarations, self._registry.contracts(), revision[2]))
            self._asked = now
        return self._known[1]

    def forget(self) -> None:
        """Makes the next call ask."""
        self._asked = None


def wait_for_views(site: Site, names: tuple[str, ...], timeout_s: float) -> None:
    """Returns when the views have applied everything published before the call."""
    governance = open_database(site.settings.database, "governance")
    known = CurrentShapes(Declarations(governance), Registry(governance))()
    views = ViewStore(open_database(site.settings.database, "views", durable=False))
    with Admin(site.connection(site.settings.kafka_username)) as kafka_admin:
        wait(views, known, kafka_admin.end_offsets, names or tuple(known), timeout_s)


def verify_view(site: Site, name: str) -> Verification:
    """Recomputes a view from its topics and compares it with its table, while everything runs."""
    governance = open_database(site.settings.database, "governance")
    registry = Registry(governance)
    views = open_database(site.settings.database, "views", read_only=True)
    declared = CurrentShapes(Declarations(governance), registry)
    known = AppliedShapes(declared, ViewStore(views), clock=time.monotonic)()
    if name not in known:
        raise UnknownView(view=name)
    if known[name].view.kind == "aggregate":
        return verify_aggregate(views, known[name])
    return asyncio.run(verify_entity(views, site.connection(site.settings.kafka_username), registry, known[name]))


def view_key(name: str) -> tuple[str, ...]:
    """The key columns of a declared view. Raises `UnknownView`."""
    return Declarations(open_database(Site.find().settings.database, "governance")).get(name).key


def view_rows(site: Site, name: str) -> list[dict[str, Any]]:
    """Every row of a view, straight from its table: for verification by an administrator, not a door."""
    governance = open_database(site.settings.database, "governance")
    engine = open_database(site.settings.database, "views", read_only=True)
    declared = CurrentShapes(Declarations(governance), Registry(governance))
    shape = AppliedShapes(declared, ViewStore(engine), clock=time.monotonic)()[name]
    table = row_table(shape)
    columns = [table.c[column.name] for column in shape.columns]
    with engine.connect() as connection_:
        return [dict(row) for row in connection_.execute(sa.select(*columns).where(live_rows(table))).mappings()]
