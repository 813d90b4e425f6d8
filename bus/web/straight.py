"""The way to the query door that does not look through the routes.

What is asked most often is one address: finding its route among all others and resolving what the framework could
inject took a fifth of a question's time. The route itself stays where it is documented; every other address goes there.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from bus.errors import BusError
from bus.web.problems import problem
from bus.web.views import PREFIX, query, route

_BEFORE: Final = f"{PREFIX}/"
_METHODS: Final = ("GET", "HEAD")


class Straight:
    """ASGI middleware: a question to a view goes to its handler at once, with errors told as everywhere."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        view = _view(scope)
        if view is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route()
        request = Request(scope, receive, send)
        try:
            response = await query(view, request)
        except BusError as error:
            response = problem(error, request)
        await response(scope, receive, send)


def _view(scope: Scope) -> str | None:
    """The view that is asked; None for any other address."""
    if scope["type"] != "http" or scope["method"] not in _METHODS:
        return None
    before, view = scope["path"][: len(_BEFORE)], scope["path"][len(_BEFORE) :]
    return view if before == _BEFORE and view and "/" not in view else None
