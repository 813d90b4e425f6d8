"""What commands look at: views and rules as they are on the bus that runs here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from bus.contracts.registry import Registry
from bus.errors import UnknownView
from bus.infra.database import open_database
from bus.infra.kafka import Admin
from bus.views.catalogue import Declarations, Shape, shapes
from bus.views.replay import Verification, verify_aggregate, verify_entity
from bus.views.store import ViewStore
from bus.views.tables import live_rows, row_table
from bus.views.waiting import wait
from bus.wiring.site import Site


def current_shapes(declarations: Declarations, registry_: Registry) -> Callable[[], Mapping[str, Shape]]:
    """The shapes as declared now, computed again only when a declaration or a contract changed."""
    known: tuple[tuple[int, int], Mapping[str, Shape]] = ((-1, -1), {})

    def current() -> Mapping[str, Shape]:
        nonlocal known
        revision = (declarations.revision(), registry_.revision())
        if known[0] != revision:
            known = (revision, shapes(declarations, registry_.contracts()))
        return known[1]

    return current


def wait_for_views(site: Site, names: tuple[str, ...], timeout_s: float) -> None:
    """Returns when the views have applied everything published before the call."""
    governance = open_database(site.settings.database, "governance")
    known = current_shapes(Declarations(governance), Registry(governance))()
    views = ViewStore(open_database(site.settings.database, "views", durable=False))
    with Admin(site.connection(site.settings.kafka_username)) as kafka_admin:
        wait(views, known, kafka_admin.end_offsets, names or tuple(known), timeout_s)


def verify_view(site: Site, name: str) -> Verification:
    """Recomputes a view from its topics and compares it with its table, while everything runs."""
    governance = open_database(site.settings.database, "governance")
    registry = Registry(governance)
    known = current_shapes(Declarations(governance), registry)()
    if name not in known:
        raise UnknownView(view=name)
    views = open_database(site.settings.database, "views", read_only=True)
    if known[name].view.reads:
        return verify_aggregate(views, known[name], known)
    return asyncio.run(verify_entity(views, site.connection(site.settings.kafka_username), registry, known[name]))


def view_rows(site: Site, name: str) -> list[dict[str, Any]]:
    """Every row of a view, straight from its table: for verification by an administrator, not a door."""
    governance = open_database(site.settings.database, "governance")
    shape = shapes(Declarations(governance), Registry(governance).contracts())[name]
    table = row_table(shape)
    columns = [table.c[column.name] for column in shape.columns]
    engine = open_database(site.settings.database, "views", read_only=True)
    with engine.connect() as connection_:
        return [dict(row) for row in connection_.execute(sa.select(*columns).where(live_rows(table))).mappings()]
