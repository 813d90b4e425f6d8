"""Every error as an RFC 9457 document: what, why, whom to ask, and never a stack, SQL or policy text."""

from __future__ import annotations

from typing import Any, Final

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from bus.errors import (
    BusError,
    EncodingNotTaken,
    ExtraForbidden,
    Invalid,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    TooLarge,
    Unauthorized,
)

MEDIA_TYPE: Final = "application/problem+json"


def request_id(request: Request) -> str:
    """The id that the edge gave this request."""
    return str(request.scope.get("bus.request_id", ""))


def problem(error: BusError, request: Request) -> Response:
    """The response for an error. ``message`` repeats the detail where PostgREST's and Confluent's clients look."""
    request.scope["bus.code"] = error.code
    document = error.problem(request_id(request))
    document.setdefault("message", error.detail)
    if request.url.path.startswith("/registry"):
        document.setdefault("error_code", error.status if error.status == 409 else error.status * 100 + 1)
    return Response(
        orjson.dumps(document, default=str),
        status_code=error.status,
        media_type=MEDIA_TYPE,
        headers=_headers(error),
    )


def _headers(error: BusError) -> dict[str, str]:
    headers: dict[str, str] = {}
    wait = error.members.get("retry_after_s", error.retry_after_s)
    if wait is not None:
        headers["Retry-After"] = str(wait)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="bus"'
    if error.members.get("policy_revision"):
        headers["Policy-Revision"] = str(error.members["policy_revision"])
    if isinstance(error, MethodNotAllowed) and error.members.get("allowed"):
        headers["Allow"] = str(error.members["allowed"])
    return headers


def from_validation(error: RequestValidationError) -> BusError:
    """A body or parameter that is not of the declared form: unknown members first, else the first fault."""
    faults = error.errors()
    for fault in faults:
        if fault["type"] == "extra_forbidden":
            return ExtraForbidden(field=_place(fault))
    first = faults[0]
    return Invalid(f"'{_place(first)}': {first['msg']}.", field=_place(first), expected=first["type"])


def _place(fault: Any) -> str:
    """``body.grants.0.id``; a member's own name is cut, since anybody may have written it."""
    return ".".join(str(part)[:80] for part in fault["loc"])


def from_http(error: HTTPException, request: Request) -> BusError:
    """The framework's own errors in our words."""
    if error.status_code == 413 or request.scope.get("bus.too_large"):
        return TooLarge(limit="what this address takes")
    if error.status_code == 405:
        return MethodNotAllowed(method=request.method, allowed=(error.headers or {}).get("Allow", ""))
    if error.status_code == 415:
        return EncodingNotTaken(encoding=request.headers.get("content-type", "")[:80])
    if error.status_code == 406:
        return NotAcceptable(why=str(error.detail))
    if error.status_code == 404:
        return NotFound(what="such address")
    return Invalid(str(error.detail)) if error.status_code < 500 else BusError()


def install(app: FastAPI) -> None:
    """Makes every error of the app a problem document."""

    async def on_bus_error(request: Request, error: Exception) -> Response:
        return problem(error if isinstance(error, BusError) else BusError(), request)

    async def on_validation(request: Request, error: Exception) -> Response:
        return problem(from_validation(error) if isinstance(error, RequestValidationError) else BusError(), request)

    async def on_http(request: Request, error: Exception) -> Response:
        return problem(from_http(error, request) if isinstance(error, HTTPException) else BusError(), request)

    async def on_defect(request: Request, error: Exception) -> Response:
        del error  # the edge writes it down, it says nothing to whoever asked
        return problem(BusError(), request)

    app.add_exception_handler(Exception, on_defect)
    app.add_exception_handler(BusError, on_bus_error)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
