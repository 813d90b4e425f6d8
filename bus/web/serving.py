"""How long the server waits for a client: what uvicorn leaves open, closed (A22, F25).

A request's head must be there within 10 s and its body must go on coming; whoever does not take an answer is cut. So
neither a client that writes a byte now and then nor one that never reads can hold a connection, memory or a cursor.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from typing import Final

from bus.web.protocol import Protocol

HEAD_S: Final = 10.0
SILENCE_S: Final = 10.0
BODY_S: Final = 300.0
STALL_S: Final = 30.0
MAX_HEAD: Final = 64 * 1024
MAX_CONNECTIONS: Final = 4_000
_TOO_LARGE: Final = b"431 Request Header Fields Too Large"
_TOO_MANY: Final = b"503 Service Unavailable"


def allow_connections() -> None:
    """Raises this process's limit of open files as far as `MAX_CONNECTIONS` needs and its own hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + 1_000
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Patient(Protocol):
    """One connection, with an end to every wait."""

    head_s, silence_s, body_s, stall_s = HEAD_S, SILENCE_S, BODY_S, STALL_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection may wait for its first byte as long as for a head."""
        super().connection_made(transport)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._head_size, self._in_head = 0, True
        if len(self.connections) > MAX_CONNECTIONS:
            self._say(_TOO_MANY)
            return
        self._arm("head", self.head_s, self._close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing waits any more."""
        for name in list(self._timers):
            self._disarm(name)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Counts what comes before the end of a head."""
        if self._in_head:
            if "head" not in self._timers:
                self._arm("head", self.head_s, self._close)
            self._head_size += len(data)
        super().data_received(data)
        if self._in_head and self._head_size > MAX_HEAD and not self.transport.is_closing():
            self._say(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """The head is there: from here on the body is waited for."""
        self._in_head, self._head_size = False, 0
        self._disarm("head")
        self._arm("silence", self.silence_s, self._silent)
        self._arm("body", self.body_s, self._close)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """The body goes on coming."""
        self._arm("silence", self.silence_s, self._silent)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole; another one may follow."""
        self._disarm("silence")
        self._disarm("body")
        self._in_head = True
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The client does not take what is sent: from here on it is waited for."""
        super().pause_writing()
        self._arm("stall", self.stall_s, self._stalled)

    def resume_writing(self) -> None:
        """It takes some again."""
        self._disarm("stall")
        super().resume_writing()
        self._watch_rest()

    def on_response_complete(self) -> None:
        """What of the answer is still on the way must leave in time, too: closing waits for it without end."""
        super().on_response_complete()
        self._watch_rest()

    def _watch_rest(self) -> None:
        if "stall" not in self._timers and self.transport.get_write_buffer_size():
            self._arm("stall", self.stall_s, self._stalled)

    def _arm(self, name: str, seconds: float, then: Callable[[], None]) -> None:
        self._disarm(name)
        self._timers[name] = self.loop.call_later(seconds, then)

    def _disarm(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _silent(self) -> None:
        if self.flow.read_paused:  # it is the app that does not read on
            self._arm("silence", self.silence_s, self._silent)
        else:
            self._close()

    def _stalled(self) -> None:
        self._disarm("stall")
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _close(self) -> None:
        self.transport.abort()

    def _say(self, status: bytes) -> None:
        self.transport.write(
            b"HTTP/1.1 " + status + b"\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        self.transport.close()
        self._watch_rest()
