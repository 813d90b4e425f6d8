"""Loopback ports: free ones are chosen once, written down and used again."""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path

from bus.infra.stack.files import write_private

LOOPBACK = "127.0.0.1"
_LOWEST = 20_000
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")


class Ports:
    """The recorded port of each part, in ``<home>/run/ports.json``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._recorded = _read(path)

    def take(self, name: str, *, ours: bool, wanted: int = 0) -> int:
        """The port for `name`: `wanted` if given, else the recorded one unless somebody else has it, else a new one.

        `ours` says that the process which may hold the recorded port is our own.
        """
        recorded = self._recorded.get(name, 0)
        port = wanted or (recorded if recorded and (ours or is_free(recorded)) else self._choose())
        if port != recorded:
            self._recorded[name] = port
            write_private(self._path, json.dumps(self._recorded))
        return port

    def _choose(self) -> int:
        taken = set(self._recorded.values())
        return next(port for port in iter(_candidate, 0) if port not in taken and is_free(port))


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # as servers do: connections of a former server that are still closing do not count
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """Whether somebody accepts connections on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) == 0


def _candidate() -> int:
    """A port below the range that the kernel gives to outgoing connections.

    A port inside it can be taken by any client while our server restarts; a client of the server itself,
    reconnecting over and over, may even connect to its own socket and so lock the server out for good.
    """
    return random.randrange(_LOWEST, _first_ephemeral())  # noqa: S311 - not a secret


def _first_ephemeral() -> int:
    try:
        first = int(_RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = 32_768
    return first if first > _LOWEST + 1_000 else 65_536


def _read(path: Path) -> dict[str, int]:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return {str(name): int(port) for name, port in content.items()}
