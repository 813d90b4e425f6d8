"""The query door over HTTP: `/v1/views/{view}` in PostgREST's dialect."""

from __future__ import annotations

from functools import cache
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bus.web.addresses import stated_purpose
from bus.web.answering import answered, documented
from bus.web.callers import subject_of

PREFIX: Final = "/v1/views"
router = APIRouter(prefix=PREFIX, tags=["views"])


@router.head("/{view}", include_in_schema=False)
@router.get("/{view}", summary="Query a shared view", openapi_extra=documented(token=True))
async def query(view: str, request: Request) -> Response:
    """Rows that the caller's grant shows, masked and filtered inside the database, after the audit entry is written.

    `Next-Cursor` and `Link: <…>; rel="next"` lead to the next page. With `export=true`, or for Parquet, all rows as a
    file: a body that ends properly is whole, and `Export-Rows` says how many rows it has."""
    return await answered(request, await subject_of(request), view, stated_purpose(request))


@cache
def route() -> BaseRoute:
    """The route of `query`, by which requests are counted."""
    return next(route for route in router.routes if getattr(route, "endpoint", None) is query)
