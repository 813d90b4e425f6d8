"""What every request passes first: its id, the host check, size limits, security headers, one log line, one count.

Plain ASGI, because a handler of less than a millisecond stands behind it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sys
import time
import uuid
from collections.abc import Iterable, MutableMapping
from typing import Any, Final, TextIO

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bus.access.certificates import HEADER, certified
from bus.errors import (
    AddressTooLong,
    BadHost,
    BusError,
    EncodingNotTaken,
    ForeignIdentity,
    InvalidToken,
    TooLarge,
)
from bus.web.figures import Figures
from bus.web.problems import problem

MAX_ADDRESS: Final = 8 * 1024
MAX_BODY: Final = 1024 * 1024
CERTIFICATE: Final = HEADER.encode()
_CSP: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; "
    "script-src 'self'; style-src 'self'; img-src 'self' data:"
)
_ALWAYS: Final = (
    (b"content-security-policy", _CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"strict-transport-security", b"max-age=31536000"),
)


_encode: Final = json.JSONEncoder(ensure_ascii=True, default=str).encode


def _line(record: MutableMapping[str, Any], **options: Any) -> str:
    """One JSON line, ASCII only: no control or direction character of a request reaches a terminal (A26)."""
    return _encode(record)


def logger() -> Any:
    """A logger of JSON lines on standard output."""
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stdout),
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_line),
        ],
    )


class Lines:
    """Lines of a log, written out once for all that one turn of the event loop brought: a request's own line through
    the logger took a twentieth of its time."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._waiting: list[str] = []

    def write(self, record: MutableMapping[str, Any]) -> None:
        """Called in the event loop."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append(_line(record))

    def _flush(self) -> None:
        lines, self._waiting = self._waiting, []
        self._out.write("".join(f"{line}\n" for line in lines))
        self._out.flush()


class Edge:
    """ASGI middleware. ``hosts``: the names this service answers to, without ports; ``proxies``: the addresses whose
    forwarded client certificates are believed."""

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str], figures: Figures, proxies: Iterable[str] = ()) -> None:
        self._app, self._figures = app, figures
        self._hosts = frozenset(host.lower() for host in hosts)
        self._proxies = frozenset(proxies)
        self._log, self._lines = logger(), Lines(sys.stdout)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex  # never the client's: an id that others choose can be made to collide
        scope["bus.request_id"] = request_id
        scope["bus.status"] = 500
        started = time.perf_counter()
        try:
            await self._answer(scope, _limited(scope, receive), _with_headers(scope, send))
        finally:
            self._record(scope, time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refusal(scope)
        if refused is not None:
            await problem(refused, Request(scope))(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            self._log.error("failed", request=scope["bus.request_id"], exc_info=error)
            if not scope.get("bus.started"):
                await problem(BusError(), Request(scope))(scope, receive, send)

    def _refusal(self, scope: Scope) -> BusError | None:
        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_ADDRESS:
            return AddressTooLong(limit=MAX_ADDRESS)
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or _host_name(hosts[0]) not in self._hosts:
            return BadHost()
        for name, value in scope["headers"]:
            if name == CERTIFICATE and (refused := self._certify(scope, value)) is not None:
                return refused
            if name == b"content-length" and (not value.isdigit() or int(value) > MAX_BODY):
                return TooLarge(limit=f"{MAX_BODY} bytes")
            if name == b"content-encoding" and value.lower() != b"identity":
                return EncodingNotTaken(encoding=value.decode("latin-1")[:40])
        return None

    def _certify(self, scope: Scope, header: bytes) -> BusError | None:
        """Notes whom a forwarded client certificate names, once, and only from a trusted proxy (A09)."""
        if not scope["client"] or scope["client"][0] not in self._proxies or "bus.certified" in scope:
            return ForeignIdentity(header=HEADER)
        try:
            scope["bus.certified"] = certified(header.decode("latin-1"))
        except InvalidToken as error:
            return error
        return None

    def _record(self, scope: Scope, seconds: float) -> None:
        """One line and one count. The query is left out: a value in it may be a person's."""
        route = getattr(scope.get("route"), "path", None) or "other"
        self._figures.answered(route, scope["method"], scope["bus.status"], seconds)
        self._lines.write(
            {
                "request": scope["bus.request_id"],
                "method": scope["method"],
                "path": scope["path"],
                "status": scope["bus.status"],
                "ms": round(seconds * 1000, 2),
                "department": scope.get("bus.department"),
                "code": scope.get("bus.code"),
                "event": "request",
                "timestamp": dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z"),
            }
        )


def _host_name(header: bytes) -> str:
    """The name in a Host header, without its port."""
    text = header.decode("latin-1").lower()
    name, colon, port = text.rpartition(":")
    return name if colon and port.isdigit() else text


def _limited(scope: Scope, receive: Receive) -> Receive:
    """Stops reading a body of unstated length at the limit."""
    read = 0

    async def receive_limited() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > MAX_BODY:
            scope["bus.too_large"] = True  # FastAPI turns an error while it reads a body into one of its own
            raise TooLarge(limit=f"{MAX_BODY} bytes")
        return message

    return receive_limited


def _with_headers(scope: Scope, send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            scope["bus.started"], scope["bus.status"] = True, message["status"]
            headers = message["headers"] = list(message.get("headers", ()))
            headers += [*_ALWAYS, (b"request-id", scope["bus.request_id"].encode())]
            if not any(name == b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"no-store"))
        await send(message)

    return send_with_headers
