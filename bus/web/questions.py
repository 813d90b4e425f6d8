"""Minimal answers over HTTP: yes or no to a question that a view declares, about one row."""

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
    ("query", "explain", "`true`: the decision without an answer"),
    ("header", "Purpose", "an id of the purpose register"),
)


def _documented() -> dict[str, Any]:
    parameters = [
        {"name": name, "in": place, "required": False, "description": text, "schema": {"type": "string"}}
        for place, name, text in _PARAMETERS
    ]
    return {"parameters": parameters, "security": [{"bearer": []}]}


@router.get("/{view}/questions/{question}", summary="Ask yes or no about one row", openapi_extra=_documented())
async def ask(view: str, question: str, request: Request) -> Response:
    """`answer` is true, false or null (not known), as of the instant `as_of`; the record is not shown. A key without a
    row, and one whose row the grant does not cover, are answered alike, as the view declares."""
    subject = await subject_of(request)
    said = await parts_of(request).minimal.answer(
        subject,
        view,
        question,
        lambda: parameters(request.scope["query_string"]),
        stated_purpose(request),
        request_id=request_id(request),
    )
    headers = {
        "Policy-Revision": said.decision.policy_revision,
        "Data-Freshness": said.freshness,
        "Vary": "Authorization, Purpose",
    }
    headers |= {"Data-Stale": said.stale.encode("ascii", "replace").decode()} if said.stale else {}
    return Response(document(said.document()), media_type=Format.JSON, headers=headers)
