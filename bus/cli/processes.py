"""``bus serve | worker | streams``: the processes that `bus up` keeps running; each loads what it needs, no more."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from bus.settings import Settings


def serve() -> None:
    """Serve HTTP: the doors, the registry, governance, the portal. Runs in the foreground."""
    with _loading():
        from bus.wiring.server import serve as run

    run(Settings())


def worker() -> None:
    """Build views out of the departments' events. Runs in the foreground; several share the views."""
    with _loading():
        from bus.wiring.worker import work

    work(Settings())


def streams() -> None:
    """Write what consumers may see of views to their topics. Runs in the foreground; one process writes at a time."""
    with _loading():
        from bus.wiring.streams import stream

    stream(Settings())


@contextmanager
def _loading() -> Iterator[None]:
    """What modules make stays as long as the process, so the collector need not look for garbage among it: neither now
    (a seventh of the time it takes to load serve) nor in each full collection later, which a caller would wait for."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
