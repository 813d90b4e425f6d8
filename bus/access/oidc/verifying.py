"""Tokens of several issuers: each is held against the keys and the claims of the one that it names."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Protocol

from bus.access.identity import Subject, UnknownKey, Verifier, bearer
from bus.access.oidc.provider import Provider
from bus.errors import InvalidToken


class Verifying(Protocol):
    """Who a bearer token names."""

    def subject(self, authorization: str | None) -> Subject: ...


class Verifiers:
    """The bus's own issuer and an outside one, whose keys are read anew where a token names one that is not known."""

    def __init__(self, own: Verifier, outside: Verifier, provider: Provider) -> None:
        self._own, self._outside, self._provider = own, outside, provider

    def subject(self, authorization: str | None) -> Subject:
        """The subject that the header proves. Raises `InvalidToken`; `UnknownKey` where `refresh` may help."""
        issuer = _issuer(bearer(authorization))
        return (self._outside if issuer == self._provider.issuer else self._own).subject(authorization)

    def refresh(self, error: UnknownKey) -> None:
        """Reads the outside issuer's keys anew; raises the error where that was tried just now. Blocks for seconds."""
        if not self._provider.may_refresh():
            raise error
        self._provider.refresh()


def _issuer(token: str) -> object:
    """What the token says its issuer is: it only chooses who checks the token, this claim included."""
    parts = token.split(".")
    if len(parts) != 3:
        raise InvalidToken(why="it is not a token")
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise InvalidToken(why="it is not a token") from error
    return payload.get("iss") if isinstance(payload, Mapping) else None
