"""An event-driven data-sharing bus for the departments of one government.

The only door for department code. `Publisher` sends change events, `QueryClient` asks shared views;
each has ``connect(department)``, which finds the running bus from the environment (``BUS_*``) or the
local stack. Loaded lazily, so that importing `bus` costs nothing and connects to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bus.wiring.publishing import Publisher
    from bus.wiring.querying import QueryClient

__all__ = ["Publisher", "QueryClient"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Publisher":
        from bus.wiring.publishing import Publisher

        return Publisher
    if name == "QueryClient":
        from bus.wiring.querying import QueryClient

        return QueryClient
    raise AttributeError(name)
