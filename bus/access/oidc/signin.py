"""Signing people in: the authorization code flow with PKCE (OpenID Connect Core 1.0, 3.1; RFC 7636; RFC 9207)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import httpx2

from bus.access.identity import Subject, UnknownKey, Verifier
from bus.access.oidc.claims import Claims
from bus.access.oidc.provider import TIMEOUT_S, Provider
from bus.errors import IdentityUnavailable, InvalidToken

SCOPE: Final = "openid profile"
_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Started:
    """What must be known again when the person comes back; it stays with the browser, sealed."""

    state: str
    nonce: str
    verifier: str


class SignIn:
    """The portal as a client of the provider. ``redirect``: the portal's own address for coming back.

    ``tokens`` checks ID tokens: their audience is the client, not the bus, so neither passes for the other.
    """

    def __init__(
        self, provider: Provider, *, client_id: str, client_secret: str, tokens: Verifier, claims: Claims
    ) -> None:
        self._provider, self._client_id, self._secret = provider, client_id, client_secret
        self._tokens, self._claims = tokens, claims

    def start(self, redirect: str) -> tuple[str, Started]:
        """The address to send the browser to. Raises `IdentityUnavailable`. May block for some seconds."""
        started = Started(*(secrets.token_urlsafe(_BYTES) for _ in range(3)))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(started.verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect,
            "scope": SCOPE,
            "state": started.state,
            "nonce": started.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        address = self._provider.metadata().authorization
        if not address:
            raise IdentityUnavailable()
        return f"{address}{'&' if '?' in address else '?'}{urlencode(asked)}", started

    def finish(self, answer: Mapping[str, str], started: Started, redirect: str) -> Subject:
        """Who came back. Blocks for some seconds.

        Raises `InvalidToken` where the answer is not one to this start, and `IdentityUnavailable`.
        """
        if not hmac.compare_digest(answer.get("state", "").encode(), started.state.encode()):
            raise InvalidToken(why="the sign-in was not started here")
        if answer.get("iss", self._provider.issuer) != self._provider.issuer:
            raise InvalidToken(why="another provider answered")
        if "code" not in answer:
            raise InvalidToken(why="the provider did not let you in")
        claims = self._verified(self._exchange(answer["code"], started, redirect))
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), started.nonce.encode()):
            raise InvalidToken(why="it is not of this sign-in")
        return self._claims.person(claims)

    def leave(self, back: str) -> str | None:
        """Where the browser goes to sign out at the provider as well; None where it has no such place."""
        address = self._provider.metadata().end_session
        asked = {"client_id": self._client_id, "post_logout_redirect_uri": back}
        return f"{address}?{urlencode(asked)}" if address else None

    def _exchange(self, code: str, started: Started, redirect: str) -> str:
        """The ID token for the code."""
        asked = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect,
            "code_verifier": started.verifier,
        }
        try:
            with httpx2.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as http:
                client = (self._client_id, self._secret)
                response = http.post(self._provider.metadata().token, data=asked, auth=client)
                document: Any = response.json()
        except (httpx2.HTTPError, ValueError) as error:
            raise IdentityUnavailable() from error
        if response.status_code >= 500:
            raise IdentityUnavailable()
        token = document.get("id_token") if response.status_code == 200 and isinstance(document, dict) else None
        if not isinstance(token, str):
            raise InvalidToken(why="the provider did not confirm the sign-in")
        return token

    def _verified(self, token: str) -> Mapping[str, Any]:
        try:
            return self._tokens.claims(token)
        except UnknownKey:
            self._provider.refresh()
            return self._tokens.claims(token)
