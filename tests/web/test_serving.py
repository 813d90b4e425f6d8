"""Slow clients: a head that dribbles, a body that stops, an answer that nobody takes, each with its end."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from bus.web.serving import MAX_HEAD, Patient
from tests.conftest import eventually

SOON_S = 0.4
LARGE = 20_000_000
HEAD = b"GET /%s HTTP/1.1\r\nHost: 127.0.0.1\r\n"


class Hasty(Patient):
    """The same with short times."""

    head_s = silence_s = stall_s = SOON_S


class App:
    """Answers with what it got, or with much; counts what it is doing."""

    def __init__(self) -> None:
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.under_way += 1
        try:
            size, more = 0, True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                size, more = size + len(message.get("body", b"")), message.get("more_body", False)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            left = LARGE if scope["path"] == "/large" else 0
            while left > 0:
                await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
                left -= 65_536
            await send({"type": "http.response.body", "body": str(size).encode()})
        finally:
            self.under_way -= 1


@pytest.fixture(scope="module")
def app() -> App:
    """The app behind the server."""
    return App()


@pytest.fixture(scope="module")
def port(app: App) -> Iterator[int]:
    """A server on a free port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, http=Hasty, log_config=None, lifespan="off", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        eventually(lambda: server.started)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(20)


@contextlib.contextmanager
def connected(port: int, buffer: int | None = None) -> Iterator[socket.socket]:
    """A connection whose reads wait for 10 s at most."""
    with socket.socket() as connection:
        if buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", port))
        yield connection


def _rest(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def _answer(connection: socket.socket) -> bytes:
    """One chunked answer."""
    got = b""
    while not got.endswith(b"0\r\n\r\n"):
        got += connection.recv(65_536)
    return got


def test_a_head_that_dribbles_is_cut(port: int) -> None:
    """Neither silence nor a byte now and then keeps a connection, at first or after an answer."""
    with connected(port) as silent:
        assert _rest(silent) == b""
    with connected(port) as slow:
        began = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for byte in HEAD % b"slow" * 100:
                slow.send(bytes([byte]))
                time.sleep(0.02)
        assert time.monotonic() - began < SOON_S * 5
        assert _rest(slow) == b""
    with connected(port) as kept:
        kept.sendall(HEAD % b"first" + b"\r\n")
        assert b"200 OK" in _answer(kept)
        kept.sendall(HEAD % b"second")
        assert _rest(kept) == b""


def test_a_body_that_stops_is_cut(port: int, app: App) -> None:
    """A body goes on or its connection ends, and what waited for it is told."""
    with connected(port) as stopped:
        stopped.sendall(HEAD.replace(b"GET", b"POST") % b"body" + b"Content-Length: 100\r\n\r\nabc")
        assert _rest(stopped) == b""
    with connected(port) as whole:
        whole.sendall(HEAD.replace(b"GET", b"POST") % b"body" + b"Content-Length: 6\r\n\r\nabc")
        whole.sendall(b"def")
        assert _answer(whole).endswith(b"6\r\n0\r\n\r\n")
    eventually(lambda: app.under_way == 0)


def test_an_answer_that_nobody_takes_is_cut(port: int, app: App) -> None:
    """Who does not read is cut, what answered it ends; who reads gets everything."""
    with connected(port, buffer=4_096) as deaf:
        deaf.sendall(HEAD % b"large" + b"\r\n")
        eventually(lambda: app.under_way == 1)
        eventually(lambda: app.under_way == 0)
        got = _rest(deaf)
        assert len(got) < LARGE
        assert not got.endswith(b"0\r\n\r\n")
    with connected(port) as reading:
        reading.sendall(HEAD % b"large" + b"Connection: close\r\n\r\n")
        assert len(_rest(reading)) > LARGE


@pytest.mark.parametrize("begin", [b"GET /" + b"a" * MAX_HEAD, HEAD % b"x" + b"X: " + b"a" * MAX_HEAD])
def test_a_head_without_end_is_refused(port: int, begin: bytes) -> None:
    """Before it fills the memory, whether it is the address or a header that does not end."""
    with connected(port) as long:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(20):
                long.sendall(begin)
        # what follows the address as the client repeats itself may be found ill-formed first
        assert _rest(long)[:12] in (b"HTTP/1.1 431", b"HTTP/1.1 400", b"")
