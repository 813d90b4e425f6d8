"""The web app: routers in, one ASGI application out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from fastapi import APIRouter, FastAPI

from bus.web import (
    changes,
    discrepancies,
    freshness,
    grants,
    lineage,
    login,
    open_data,
    operations,
    origins,
    pages,
    portal,
    problems,
    questions,
    reference,
    views,
)
from bus.web.edge import Edge
from bus.web.figures import Figures
from bus.web.parts import Parts


def create_app(parts: Parts, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """The application over these parts. ``routers``: further ones, for other audiences.

    Run it without an access log (addresses may hold persons' data; the app logs each request itself)
    and with a graceful shutdown of a few seconds (OPA's long polls would hold it for up to a minute).
    """
    app = FastAPI(
        title="Government data-sharing bus",
        version=parts.version,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        redirect_slashes=False,
    )
    app.state.parts = parts
    broker = parts.shares.found if parts.shares is not None else None
    app.state.figures = Figures(
        parts.views, parts.quarantined, parts.shapes, parts.promises, broker=broker, streams=parts.subscriptions
    )
    problems.install(app)
    doors = (
        views.router,
        open_data.router,
        changes.router,
        lineage.router,
        questions.router,
        discrepancies.router,
        freshness.router,
        grants.api,
    )
    portal_pages = (portal.router, pages.router, origins.router, grants.router, login.router)
    for router in (*doors, operations.router, reference.router, *portal_pages, *routers):
        app.include_router(router)
    portal.mount_static(app)
    app.add_middleware(Edge, hosts=parts.hosts, figures=app.state.figures, proxies=parts.proxies)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The canary decision runs as long as the app does: without it every door closes."""
    parts: Parts = app.state.parts
    canary = asyncio.create_task(parts.decider.run_canary())
    try:
        yield
    finally:
        canary.cancel()
        with suppress(asyncio.CancelledError):
            await canary
        if parts.streams is not None:
            await parts.streams.door.close()
        await parts.exports.close()
        await parts.lineage.close()
        await parts.door.close()
