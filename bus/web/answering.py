"""An answer of the query door or the export door as an HTTP response: headers, entity tags, files, pages."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

import orjson
from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bus.access.identity import Subject
from bus.errors import BusError
from bus.sharing.answers import Answer, Asked, explanation
from bus.sharing.embedding.answering import nested_as_json
from bus.sharing.exports.door import Export
from bus.sharing.exports.files import SUFFIXES
from bus.sharing.formats import Format, body, media_type, negotiate
from bus.sharing.query import Query, parse_query
from bus.web.addresses import parameters
from bus.web.callers import parts_of
from bus.web.problems import request_id

SLICE: Final = 64 * 1024
_TAG: Final = re.compile(r'"([^"]*)"')
_EXPORT: Final = re.compile(r"(?:^|&)export=true(?:&|$)")
_EXPLAIN: Final = re.compile(r"(?:^|&)explain=true(?:&|$)")
log = logging.getLogger(__name__)


async def answered(
    request: Request, subject: Subject, view: str, purpose: str | None, *, address: str = ""
) -> Response:
    """The response to a question, in the format that it accepts. ``address``: of whoever asks without a token."""
    text = request.scope["query_string"].decode("latin-1")
    exported = bool(_EXPORT.search(text))
    chosen, stripped = negotiate(",".join(request.headers.getlist("accept")) or None, export=exported)
    explained = bool(_EXPLAIN.search(text))
    variant = f"{chosen} {stripped}"
    asked = Asked(subject, view, purpose, request_id(request), address, _known(request), variant)
    if (exported or chosen is Format.PARQUET) and not explained:
        export = await parts_of(request).exports.begin(asked, lambda: question(request), chosen)
        return Streamed(export, {**headers_of(export.answer), "Export-Rows": str(export.total)})
    answer = await parts_of(request).door.ask(asked, lambda: nested_as_json(question(request), chosen))
    headers = headers_of(answer) | _pages(request, answer)
    if answer.explained:
        return Response(orjson.dumps(explanation(answer)), media_type=Format.JSON, headers=headers)
    if answer.unchanged:
        return Response(status_code=304, headers={name: headers[name] for name in _UNCHANGED if name in headers})
    return Response(
        body(chosen, answer.names, answer.rows, stripped=stripped),
        status_code=206 if answer.partial else 200,
        headers={**headers, "Content-Type": media_type(chosen), **_disposition(chosen, answer)},
    )


_UNCHANGED: Final = ("ETag", "Cache-Control", "Vary", "Policy-Revision", "Data-Freshness", "Masked-Columns")


def question(request: Request) -> Query:
    """Raises what `parse_query` raises, and `BadFilter` for an address that is not UTF-8."""
    return _read(request.scope["query_string"], *(_joined(request, name) for name in ("prefer", "range")))


@lru_cache(maxsize=500)
def _read(text: bytes, prefer: str | None, range_: str | None) -> Query:
    """Kept, since the same questions are asked again and again and reading one takes longer than finding its rows."""
    headers = {name: value for name, value in (("prefer", prefer), ("range", range_)) if value is not None}
    return parse_query(parameters(text), headers)


def _joined(request: Request, name: str) -> str | None:
    return ",".join(request.headers.getlist(name)) if name in request.headers else None


def headers_of(answer: Answer) -> dict[str, str]:
    """What every answer says about itself. What is about persons is kept nowhere; the rest may be kept by the asker
    alone, and is asked about again each time."""
    headers = {
        "Policy-Revision": answer.decision.policy_revision,
        "Data-Freshness": answer.freshness,
        "Masked-Columns": ",".join(answer.masked),
        "Content-Range": answer.content_range,
        "Range-Unit": "items",
        "Vary": "Accept, Authorization, Purpose, Prefer, Range",
        "Cache-Control": "no-store" if answer.personal or not answer.tag else "private, no-cache",
    }
    headers |= {"Data-Stale": answer.stale.encode("ascii", "replace").decode()} if answer.stale else {}
    headers |= {"Suppressed": str(answer.withheld)} if answer.withheld else {}
    headers |= {"ETag": f'W/"{answer.tag}"'} if answer.tag else {}
    return headers | ({"Preference-Applied": "count=exact"} if answer.total is not None else {})


def _known(request: Request) -> frozenset[str]:
    """The entity tags that ``If-None-Match`` names, compared weakly (RFC 9110, 13.1.2)."""
    return frozenset(_TAG.findall(",".join(request.headers.getlist("if-none-match"))))


def _pages(request: Request, answer: Answer) -> dict[str, str]:
    """Where the next page is: its cursor, and its whole address (RFC 8288)."""
    if answer.next_cursor is None:
        return {}
    kept = [part for part in request.scope["query_string"].decode("latin-1").split("&")
            if part and part.partition("=")[0] not in ("cursor", "offset")]  # fmt: skip
    address = f"{request.scope['path']}?{'&'.join([*kept, f'cursor={answer.next_cursor}'])}"
    link = {"Link": f'<{address}>; rel="next"'} if address.isascii() and not set(address) & set('<>"') else {}
    return {"Next-Cursor": answer.next_cursor, **link}


def _disposition(chosen: Format, answer: Answer) -> dict[str, str]:
    """Files are saved, never shown in the browser's own page (A24)."""
    if chosen not in (Format.CSV, Format.PARQUET):
        return {}
    return _attached(chosen, answer)


def _attached(chosen: Format, answer: Answer) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{answer.view}.{SUFFIXES[chosen]}"'}


class Streamed(Response):
    """An export as it is made. Its last chunk is sent only when its end is recorded: whoever gets a body that is whole
    by HTTP's own rules has all of it, and a body that breaks off is not."""

    def __init__(self, export: Export, headers: Mapping[str, str]) -> None:
        self._export = export
        sent = {name: value for name, value in headers.items() if name not in ("Content-Range", "Range-Unit")}
        sent |= {"Content-Type": media_type(export.format), **_attached(export.format, export.answer)}
        self.status_code = 200
        self.background = None
        self.body = b""
        self.init_headers({**sent, "Cache-Control": "no-store"})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope["method"] != "HEAD" and not await self._sent(send, gone):
                return
            await self._export.finish()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except BusError as error:
            # the body breaks off here: its reader knows by that, the audit log has a closing entry that says so
            log.warning("Export %s broke off: %s", scope.get("bus.request_id"), error.code)
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone
            await asyncio.shield(self._export.close())

    async def _sent(self, send: Send, gone: asyncio.Task[None]) -> bool:
        """Sends the file; False where the client went away."""
        async for chunk in self._export.chunks():
            for start in range(0, len(chunk), SLICE):
                await send({"type": "http.response.body", "body": chunk[start : start + SLICE], "more_body": True})
                if gone.done():
                    return False
        return True


async def _gone(receive: Receive) -> None:
    """Returns when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def documented(*, token: bool) -> dict[str, Any]:
    """The parameters and headers of a question, for OpenAPI. ``token``: whether one is needed."""
    headers = [*(_HEADERS if token else ()), *_ALWAYS]
    places = [(name, "query", text) for name, text in _PARAMETERS] + [(name, "header", text) for name, text in headers]
    parameters = [
        {"name": name, "in": place, "required": False, "description": text, "schema": {"type": "string"}}
        for name, place, text in places
    ]
    return {"parameters": parameters, **({"security": [{"bearer": []}]} if token else {})}


_PARAMETERS: Final = (
    ("select", "columns `a,alias:b`; figures `ward,n:count()`; related views `a,alias:view(b,c)`; left out: all"),
    ("{field}", "filter: `eq. neq. gt. gte. lt. lte. in.(…) is. like. ilike. plfts. fts.`, each with `not.` in front"),
    ("{alias}.{field}", "a filter of an embedded view; also `{alias}.order` and `{alias}.limit` (of each row)"),
    ("or", "`(a.eq.1,and(b.is.null,c.gt.2))`; also `and`, `not.or`, `not.and`"),
    ("order", "`a.desc.nullslast,b`"),
    ("limit", "rows at most: 1,000 unless said otherwise, never more than the grant allows"),
    ("offset", "rows to leave out"),
    ("cursor", "the `Next-Cursor` of the page before, with the same question; `start`: the first of several pages"),
    ("as_of", "history views: the rows as the bus knew them then; RFC 3339, or a date, which means its start in UTC"),
    ("valid_at", "history views: the rows that held then, according to what is known (or was, with `as_of`)"),
    ("export", "`true`: all rows as a file (CSV, JSON lines); needs the channel `export`, as Parquet always does"),
    ("explain", "`true`: the decision without rows"),
)  # fmt: skip
_HEADERS: Final = (("Purpose", "an id of the purpose register"),)
_ALWAYS: Final = (
    ("Prefer", "`count=exact`"),
    ("Range", "`0-99`"),
    ("If-None-Match", "the `ETag` of an earlier answer: 304 while it still holds"),
)
