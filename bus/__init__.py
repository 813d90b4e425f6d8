"""An event-driven data-sharing bus for the departments of one government.

The only door for department code. `Publisher` sends change events, `QueryClient` asks shared views, `Subscriber`
follows them; each has ``connect(department)``, which finds the running bus from the environment (``BUS_*``) or the
local stack. Loaded lazily, so that importing `bus` costs nothing and connects to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from bus.sharing.subscribing.changes import Delete, Notice, Upsert
    from bus.sharing.subscribing.subscriber import Batch
    from bus.wiring.publishing import Publisher
    from bus.wiring.querying import QueryClient
    from bus.wiring.subscribing import Subscriber

__all__ = ["Batch", "Delete", "Notice", "Publisher", "QueryClient", "Subscriber", "Upsert"]
__version__ = "0.1.0"
_HOMES: Final = {
    "Publisher": "bus.wiring.publishing",
    "QueryClient": "bus.wiring.querying",
    "Subscriber": "bus.wiring.subscribing",
    "Batch": "bus.sharing.subscribing.subscriber",
    "Delete": "bus.sharing.subscribing.changes",
    "Notice": "bus.sharing.subscribing.changes",
    "Upsert": "bus.sharing.subscribing.changes",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(name)
