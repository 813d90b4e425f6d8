"""For those who run the bus: is it alive, is it ready, its figures, and the rules that OPA fetches."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Awaitable
from typing import Final

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from bus.access.decision import Deny
from bus.access.identity import PUBLIC_SUBJECT
from bus.core.views import View
from bus.errors import BusError, InvalidToken, Unavailable
from bus.views.catalogue import Shape
from bus.web.callers import parts_of
from bus.web.parts import Parts

router = APIRouter(tags=["operations"])
BUNDLE_TYPE: Final = "application/vnd.openpolicyagent.bundles"  # tells OPA that long polling is understood
MAX_WAIT_S: Final = 60
LOOK_EVERY_S: Final = 0.2
READY_WITHIN_S: Final = 1.0
_NO_VIEW: Final = Shape(View("canary", {}, "canary", "entity", ("id",), listed=False), ())
_WAIT: Final = re.compile(r"(?:^|[;,\s])wait=([0-9]{1,4})(?:$|[;,\s])")


@router.get("/health/live", summary="Is the process alive")
async def live() -> Response:
    """Always 200 while the event loop turns."""
    return Response(b'{"live":true}', media_type="application/json")


@router.get("/health/ready", summary="Can questions be answered")
async def ready(request: Request) -> Response:
    """200 when the policy engine's canary is good and both databases answer, else 503; with each check."""
    parts = parts_of(request)
    checks = {
        "policy": await _check(_policy(parts)),
        "governance_database": await _check(asyncio.to_thread(parts.declarations.revision)),
        "views_database": await _check(asyncio.to_thread(parts.views.states, count=False)),
    }
    good = all(state == "ok" for state in checks.values())
    document = orjson.dumps({"ready": good, "checks": checks})
    return Response(document, status_code=200 if good else 503, media_type="application/json")


async def _policy(parts: Parts) -> None:
    """Asks for a decision that can only be no: getting one is what counts."""
    decision = await parts.decider.decide(PUBLIC_SUBJECT, _NO_VIEW, None, "query")
    if isinstance(decision, Deny) and isinstance(decision.error, Unavailable):
        raise decision.error


async def _check(work: Awaitable[object]) -> str:
    try:
        await asyncio.wait_for(work, READY_WITHIN_S)
    except BusError as error:
        return error.code
    except TimeoutError:
        return "timeout"
    return "ok"


@router.get("/metrics", summary="Figures for Prometheus")
async def metrics(request: Request) -> Response:
    """Requests, views and quarantine in Prometheus's text format."""
    text = await asyncio.to_thread(request.app.state.figures.text)
    return Response(text, media_type="text/plain; version=0.0.4")


@router.get("/internal/bundles/rules.tar.gz", include_in_schema=False)
async def bundle(request: Request) -> Response:
    """The signed rules, for OPA: with ``Prefer: wait=N`` and the ETag it has, the answer comes when they change."""
    parts = parts_of(request)
    _refuse_others(request, parts.bundle_token)
    content, etag = await asyncio.to_thread(parts.bundle)
    known = request.headers.get("if-none-match")
    until = time.monotonic() + _wait(request)
    while known == etag and time.monotonic() < until and not await request.is_disconnected():
        await asyncio.sleep(LOOK_EVERY_S)
        content, etag = await asyncio.to_thread(parts.bundle)
    headers = {"ETag": etag, "Content-Type": BUNDLE_TYPE}
    if known == etag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers)


def _refuse_others(request: Request, token: str) -> None:
    given = request.headers.get("authorization", "")
    if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        raise InvalidToken(why="it is not the one for rules")


def _wait(request: Request) -> float:
    """The seconds that OPA asked to be kept waiting, at most a minute."""
    found = _WAIT.search(request.headers.get("prefer", ""))
    return float(min(int(found[1]), MAX_WAIT_S)) if found else 0.0
