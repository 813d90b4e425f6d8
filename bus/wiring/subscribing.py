"""A department's subscriber on the bus that runs here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import httpx2

from bus.contracts.registry_client import RegistryClient
from bus.errors import Unavailable
from bus.sharing.client import Answered, problem_of
from bus.sharing.subscribing.subscriber import Subscriber as _Subscriber
from bus.wiring.site import RenewedToken, Site


class Subscriber(_Subscriber):
    """Follows a view; `connect` finds the running bus."""

    @classmethod
    def connect(
        cls, department: str, view: str, *, purpose: str, cursor: str | None = None, timeout_s: float = 60.0
    ) -> Self:
        """The subscriber of ``department``, from ``cursor`` on. Raises `SetupError` where no bus runs, `Answered` for
        a refusal, and what `Subscriber` does."""
        site = Site.find()
        token = RenewedToken(lambda: site.token(department))
        registry = RegistryClient(f"{site.web}/registry", token)
        terms = _terms(site.web, token, view, purpose)
        return cls(terms, site.connection(department), registry.schema, cursor=cursor, timeout_s=timeout_s)


def _terms(web: str, token: Callable[[], str], view: str, purpose: str) -> Callable[[], Mapping[str, Any]]:
    """Asks the bus for the terms of the stream."""

    def ask() -> Mapping[str, Any]:
        headers = {"Authorization": f"Bearer {token()}", "Purpose": purpose}
        try:
            response = httpx2.get(f"{web}/v1/views/{view}/subscription", headers=headers, timeout=30.0)
        except httpx2.TransportError as error:
            raise Unavailable(f"The bus does not answer at {web}. `bus up` starts it.") from error
        if response.status_code >= 400:
            raise Answered(problem_of(response))
        terms: Mapping[str, Any] = response.json()
        return terms

    return ask
