"""A department's query client on the bus that runs here."""

from __future__ import annotations

from bus.sharing.client import QueryClient as _QueryClient
from bus.wiring.site import RenewedToken, Site


class QueryClient(_QueryClient):
    """Asks shared views; `connect` finds the running bus."""

    @classmethod
    def connect(cls, department: str, *, officer: str | None = None) -> QueryClient:
        """The client of ``department`` on the bus that runs here. Raises `SetupError` where none does."""
        site = Site.find()
        return cls(site.web, RenewedToken(lambda: site.token(department, officer=officer)))
