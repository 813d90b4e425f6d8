"""Minimal answers over HTTP: yes or no to a question that a view declares, about one row."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from bus.web.addresses import parameters, stated_purpose
from bus.web.callers import parts_of, subject_of
from bus.web.one_row import answered, documented
from bus.web.problems import request_id

router = APIRouter(prefix="/v1/views", tags=["views"])
_EXPLAIN: Final = ("query", "explain", "`true`: the decision without an answer")


@router.get("/{view}/questions/{question}", summary="Ask yes or no about one row", openapi_extra=documented(_EXPLAIN))
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
    headers = {"Vary": "Authorization, Purpose"}
    headers |= {"Data-Stale": said.stale.encode("ascii", "replace").decode()} if said.stale else {}
    return answered(said, headers)
