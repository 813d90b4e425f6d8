"""``bus serve | worker | streams``: the processes that `bus up` keeps running; each loads what it needs, no more."""

from __future__ import annotations

from bus.settings import Settings


def serve() -> None:
    """Serve HTTP: the doors, the registry, governance, the portal. Runs in the foreground."""
    from bus.wiring.server import serve as run

    run(Settings())


def worker() -> None:
    """Build views out of the departments' events. Runs in the foreground; several share the views."""
    from bus.wiring.worker import work

    work(Settings())


def streams() -> None:
    """Write what consumers may see of views to their topics. Runs in the foreground; one process writes at a time."""
    from bus.wiring.streams import stream

    stream(Settings())
