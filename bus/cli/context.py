"""What every command needs: the running bus and whose token to send."""

from __future__ import annotations

from bus.cli.api import Api
from bus.sharing.client import QueryClient
from bus.wiring.site import Site


def administrator() -> Api:
    """The API as an administrator of the bus: whoever may read the bus's secrets on this machine."""
    site = Site.find()
    return Api(site.web, lambda: site.token("governance", administrator=True))


def department(name: str) -> Api:
    """The API as one department."""
    site = Site.find()
    return Api(site.web, lambda: site.token(name))


def query_client(name: str, officer: str | None = None) -> QueryClient:
    """The query door as one department, perhaps for an officer."""
    site = Site.find()
    return QueryClient(site.web, lambda: site.token(name, officer=officer))
