"""Portal pages on one view's freshness and on where departments disagree."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from bus.errors import Csrf, UnknownView
from bus.governance.disagreements import Asked, Seen
from bus.web.callers import parts_of
from bus.web.discrepancies import door
from bus.web.parts import Parts
from bus.web.portal import OWN, Id, current, page
from bus.web.problems import request_id

router = APIRouter(include_in_schema=False)
LIFETIME_S: Final = 30
EXAMPLES: Final = 20


@router.get("/view/{view}")
async def one_view(request: Request, view: str) -> Response:
    """How fresh a view is, by source, and which of its fields two departments report."""
    overview = await current(request)
    line = overview.view(view)
    if line is None:
        raise UnknownView(view=view)
    between = [one for one in overview.between if one.count.view == view]
    return page("view.html", request, {"overview": overview, "line": line, "between": between})


class Wanted(BaseModel):
    """Which examples to show; none without a view."""

    model_config = ConfigDict(extra="forbid")
    view: Id = ""
    field: Id = ""
    offset: int = Field(0, ge=0, le=10_000_000)
    lang: Id = ""


@router.get("/disagreements")
async def disagreements(request: Request, wanted: Annotated[Wanted, Query()]) -> Response:
    """Counts of disagreements by pair of departments; in a demonstration examples too, as staff of governance see
    them."""
    overview, parts = await current(request), parts_of(request)
    seen = await _examples(request, parts, wanted) if parts.demo and wanted.view else []
    content = {"overview": overview, "wanted": wanted, "seen": seen[:EXAMPLES], "more": len(seen) > EXAMPLES,
               "step": EXAMPLES}  # fmt: skip
    return page("disagreements.html", request, content)


async def _examples(request: Request, parts: Parts, wanted: Wanted) -> Sequence[Seen]:
    """One more than a page shows, with a short token of an administrator; recorded like every such question."""
    if request.headers.get("sec-fetch-site", "") not in OWN:
        raise Csrf()  # it writes an audit entry: no other site may start that
    if parts.issuer is None:
        raise TypeError("only a demonstration can ask as staff")
    token = parts.issuer.token("governance", administrator=True, lifetime_s=LIFETIME_S)
    subject = await asyncio.to_thread(parts.verifier.subject, f"Bearer {token}")
    asked = Asked(wanted.view, wanted.field or None, limit=EXAMPLES + 1, offset=wanted.offset)
    return await door(parts).page(subject, asked, request_id=request_id(request))
