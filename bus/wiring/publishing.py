"""A department's publisher on the bus that runs here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import httpx2

from bus.contracts.quarantine import Quarantined, as_json
from bus.contracts.registry_client import RegistryClient
from bus.errors import Unavailable
from bus.publishing.publisher import Publisher as _Publisher
from bus.sharing.client import Answered, problem_of
from bus.wiring.site import RenewedToken, Site


class Publisher(_Publisher):
    """Publishes a department's change events; `connect` finds the running bus."""

    @classmethod
    def connect(cls, department: str) -> Publisher:
        """The publisher of ``department`` on the bus that runs here. Raises `SetupError` where none does."""
        site = Site.find()
        token = RenewedToken(lambda: site.token(department))
        return cls(
            department,
            connection=site.connection(department),
            registry=RegistryClient(f"{site.web}/registry", token),
            quarantine=_hand_over(site.web, token),
            timeout_s=site.settings.publish_timeout_s,
        )


def _hand_over(web: str, token: Callable[[], str]) -> Callable[[Sequence[Quarantined]], None]:
    """Sends what a publisher refused to quarantine."""

    def hand_over(entries: Sequence[Quarantined]) -> None:
        body = {"entries": [as_json(entry) for entry in entries]}
        headers = {"Authorization": f"Bearer {token()}"}
        try:
            response = httpx2.post(f"{web}/v1/quarantine", json=body, headers=headers, timeout=30.0)
        except httpx2.TransportError as error:
            why = f"The bus does not answer at {web}, so refused rows could not be set aside. Publish them again."
            raise Unavailable(why) from error
        if response.status_code >= 400:
            raise Answered(problem_of(response))

    return hand_over
