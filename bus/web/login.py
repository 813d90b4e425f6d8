"""Signing in to the portal and out again, by the code flow of an outside identity provider."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from bus.errors import Csrf, NotFound
from bus.web.callers import parts_of
from bus.web.portal import page
from bus.web.session import Sessions

router = APIRouter(include_in_schema=False)
_PAGES: Final = ("/", "/grants", "/disagreements")
_SAME: Final = "same-origin"


@router.get("/login")
async def login(request: Request, next: str = "/grants") -> Response:  # noqa: A002 - the name in the address
    """Sends the browser to the provider. ``next``: the page to come back to, one of the portal's own."""
    sessions = _sessions(request)
    back = next if next in _PAGES else _PAGES[0]
    address, started = await asyncio.to_thread(sessions.signin.start, _callback(sessions, request))
    response = RedirectResponse(address, status_code=303)
    sessions.begin(response, started, back)
    return response


@router.get("/login/callback")
async def callback(request: Request) -> Response:
    """The browser comes back. It is answered with a page of our own that leads on: a cookie that only our own pages
    may bring would not come along on a redirect that another site began."""
    sessions = _sessions(request)
    started, back = sessions.begun(request)
    answer = dict(request.query_params)
    person = await asyncio.to_thread(sessions.signin.finish, answer, started, _callback(sessions, request))
    response = page("signed_in.html", request, {"person": person, "back": back})
    sessions.open(response, person)
    return response


@router.post("/logout")
async def logout(request: Request) -> Response:
    """Forgets the person here, then at the provider. Only a form of our own may ask for it (A23)."""
    sessions = _sessions(request)
    if request.headers.get("sec-fetch-site", _SAME) != _SAME or request.headers.get("origin", "") not in (
        "",
        sessions.base(request),
    ):
        raise Csrf()
    onward = await asyncio.to_thread(sessions.signin.leave, f"{sessions.base(request)}/")
    response = RedirectResponse(onward or "/", status_code=303)
    sessions.close(response)
    return response


def _sessions(request: Request) -> Sessions:
    sessions = parts_of(request).sessions
    if sessions is None:
        raise NotFound(what="identity provider for signing in (BUS_OIDC_ISSUER)")
    return sessions


def _callback(sessions: Sessions, request: Request) -> str:
    return f"{sessions.base(request)}/login/callback"
