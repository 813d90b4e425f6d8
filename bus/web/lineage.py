"""Where a value comes from, over HTTP: the events behind one row of a view."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from bus.web.addresses import parameters, stated_purpose
from bus.web.callers import parts_of, subject_of
from bus.web.one_row import answered, documented
from bus.web.problems import request_id

router = APIRouter(prefix="/v1/views", tags=["views"])
_FIELD: Final = ("query", "field", "columns, comma-separated; left out: every granted one")


@router.get("/{view}/lineage", summary="The events that made the values of one row", openapi_extra=documented(_FIELD))
async def lineage(view: str, request: Request) -> Response:
    """Of each granted column the event that gives its value: id, source, type, place, times, contract version; of a
    history all versions, of an aggregate what it counts. Values are not repeated. An event that its topic no longer
    keeps has its place and `kept` false."""
    subject = await subject_of(request)
    found = await parts_of(request).lineage.answer(
        subject,
        view,
        lambda: parameters(request.scope["query_string"]),
        stated_purpose(request),
        request_id=request_id(request),
    )
    return answered(found)
