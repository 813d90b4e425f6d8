"""Who may be believed: the bus's own issuer, an outside identity provider if one is configured, people who sign in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bus.access.identity import Verifier
from bus.access.oidc.claims import Claims
from bus.access.oidc.provider import Provider
from bus.access.oidc.signin import SignIn
from bus.access.oidc.verifying import Verifiers
from bus.infra.stack.credentials import Secrets
from bus.settings import Settings
from bus.sharing.cursors.sealing import Cursors
from bus.web.session import Sessions
from bus.wiring.site import ISSUER_KEY


@dataclass(frozen=True, slots=True)
class Identity:
    """``verifier`` of bearer tokens; ``sessions`` of people, where they can sign in; ``provider``: the outside one."""

    verifier: Verifier | Verifiers
    sessions: Sessions | None = None
    provider: Provider | None = None


def make_identity(settings: Settings) -> Identity:
    """What the settings name."""
    own = Verifier(Secrets(settings.home).public_key(ISSUER_KEY).read_bytes())
    if settings.oidc_issuer is None:
        return Identity(own)
    provider = Provider(settings.oidc_issuer)
    systems = Claims(settings.oidc_department_claim, "", settings.oidc_administrator_claim)
    outside = Verifier(issuer=provider.issuer, audience=settings.oidc_audience, keys=provider, subject=systems.subject)
    return Identity(Verifiers(own, outside, provider), _sessions(settings, provider), provider)


def _sessions(settings: Settings, provider: Provider) -> Sessions | None:
    if settings.oidc_client_id is None or settings.oidc_client_secret is None:
        return None
    people = Claims(
        settings.oidc_person_department_claim, settings.oidc_officer_claim, settings.oidc_administrator_claim
    )
    tokens = Verifier(issuer=provider.issuer, audience=settings.oidc_client_id, keys=provider, subject=people.person)
    secret = settings.oidc_client_secret.get_secret_value()
    signin = SignIn(provider, client_id=settings.oidc_client_id, client_secret=secret, tokens=tokens, claims=people)
    box = Cursors(Secrets(settings.home).token("session").encode())
    secure = settings.tls_terminated or settings.tls_certificate is not None
    return Sessions(signin, box, secure=secure, address=settings.web_address)


@contextmanager
def refreshed(identity: Identity) -> Iterator[None]:
    """Keeps the outside provider's keys up to date until the block ends."""
    if identity.provider is None:
        yield
        return
    stopping = threading.Event()
    thread = threading.Thread(target=identity.provider.run, args=(stopping,), name="identity", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(1.0)
