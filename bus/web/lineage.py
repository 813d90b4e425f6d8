"""Where a value comes from, over HTTP: the events behind one row of a view."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from bus.sharing.formats import Format, document
from bus.web.addresses import parameters, stated_purpose
from bus.web.callers import parts_of, subject_of
from bus.web.problems import request_id

router = APIRouter(prefix="/v1/views", tags=["views"])
_PARAMETERS: Final = (
    ("query", "{key}", "each key column, as `licence_number=eq.20`"),
    ("query", "field", "columns, comma-separated; left out: every granted one"),
    ("header", "Purpose", "an id of the purpose register"),
)


def _documented() -> dict[str, Any]:
    parameters = [
        {"name": name, "in": place, "required": False, "description": text, "schema": {"type": "string"}}
        for place, name, text in _PARAMETERS
    ]
    return {"parameters": parameters, "security": [{"bearer": []}]}


@router.get("/{view}/lineage", summary="The events that made the values of one row", openapi_extra=_documented())
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
    headers = {"Policy-Revision": found.decision.policy_revision, "Data-Freshness": found.freshness}
    return Response(document(found.document()), media_type=Format.JSON, headers=headers)
