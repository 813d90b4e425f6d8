"""HTTP/1.1 as uvicorn speaks it, with a way to close a connection at once.

`close` sends first what the client has not taken, so a client that takes nothing would keep its connection for ever.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bus.web.changes import ABORT


class Protocol(HttpToolsProtocol):
    """Tells the application how to abort."""

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope[ABORT] = self.transport.abort  # type: ignore[typeddict-unknown-key]
