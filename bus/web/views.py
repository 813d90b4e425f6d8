"""The query door over HTTP: `/v1/views/{view}` in PostgREST's dialect."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from bus.errors import BadFilter
from bus.sharing.formats import Format, body, media_type, negotiate
from bus.sharing.query import Answer, Query, explanation, parse_query
from bus.web.callers import parts_of, subject_of
from bus.web.problems import request_id

router = APIRouter(prefix="/v1/views", tags=["views"])
MAX_PARAMETERS: Final = 200
_PARAMETERS: Final = (
    ("select", "columns, as `a,b` or `alias:a`; left out: every granted one"),
    ("{field}", "filter: `eq. neq. gt. gte. lt. lte. in.(…) is. like. ilike.`, each with `not.` in front"),
    ("or", "`(a.eq.1,and(b.is.null,c.gt.2))`; also `and`, `not.or`, `not.and`"),
    ("order", "`a.desc.nullslast,b`"),
    ("limit", "rows at most: 1,000 unless said otherwise, never more than the grant allows"),
    ("offset", "rows to leave out"),
    ("as_of", "history views: the rows as the bus knew them then; RFC 3339, or a date, which means its start in UTC"),
    ("valid_at", "history views: the rows that held then, according to what is known (or was, with `as_of`)"),
    ("explain", "`true`: the decision without rows"),
)


def _documented() -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "query", "required": False, "description": text, "schema": {"type": "string"}}
        for name, text in _PARAMETERS
    ]
    for name, text in (("Purpose", "an id of the purpose register"), ("Prefer", "`count=exact`"), ("Range", "`0-99`")):
        parameters.append(
            {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
        )
    return {"parameters": parameters, "security": [{"bearer": []}]}


@router.head("/{view}", include_in_schema=False)
@router.get("/{view}", summary="Query a shared view", openapi_extra=_documented())
async def query(view: str, request: Request) -> Response:
    """Rows that the caller's grant shows, masked and filtered inside the database, after the audit entry is written."""
    subject = await subject_of(request)
    chosen, stripped = negotiate(",".join(request.headers.getlist("accept")) or None)
    answer = await parts_of(request).door.answer(
        subject,
        view,
        lambda: _asked(request),
        _purpose(request),
        request_id=request_id(request),
    )
    if answer.explained:
        return Response(orjson.dumps(explanation(answer)), media_type=Format.JSON, headers=headers_of(answer))
    return Response(
        body(chosen, answer.names, answer.rows, stripped=stripped),
        status_code=206 if answer.partial else 200,
        headers={**headers_of(answer), "Content-Type": media_type(chosen), **_disposition(chosen, answer)},
    )


def _asked(request: Request) -> Query:
    """Raises what `parse_query` raises, and `BadFilter` for an address that is not UTF-8."""
    try:
        text = request.scope["query_string"].decode("ascii")
        params = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError as error:
        raise BadFilter(
            why=f"the address has more than {MAX_PARAMETERS} parameters or is not UTF-8 in % escapes."
        ) from error
    return parse_query(params, {name: ",".join(request.headers.getlist(name)) for name in ("prefer", "range")
                                if name in request.headers})  # fmt: skip


def _purpose(request: Request) -> str | None:
    """The one purpose that is stated; two are none."""
    stated = request.headers.getlist("purpose")
    return stated[0] if len(stated) == 1 else None


def headers_of(answer: Answer) -> dict[str, str]:
    """What every answer says about itself."""
    headers = {
        "Policy-Revision": answer.decision.policy_revision,
        "Data-Freshness": answer.freshness,
        "Masked-Columns": ",".join(answer.masked),
        "Content-Range": answer.content_range,
        "Range-Unit": "items",
        "Vary": "Accept, Authorization, Purpose, Prefer, Range",
    }
    headers |= {"Data-Stale": answer.stale.encode("ascii", "replace").decode()} if answer.stale else {}
    headers |= {"Suppressed": str(answer.withheld)} if answer.withheld else {}
    return headers | ({"Preference-Applied": "count=exact"} if answer.total is not None else {})


def _disposition(chosen: Format, answer: Answer) -> dict[str, str]:
    """Files are saved, never shown in the browser's own page (A24)."""
    if chosen is not Format.CSV:
        return {}
    return {"Content-Disposition": f'attachment; filename="{answer.view}.csv"'}
