"""Signed records: what the bus keeps in a database and must notice when somebody else changed it there.

Source of the form: RFC 7515, compact serialisation.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError

from bus.access.identity import algorithm, load_key


class Seal:
    """Signs and verifies records of one ``kind`` with one key. What is signed for another kind does not count."""

    def __init__(self, private_pem: bytes, kind: str) -> None:
        self._key = load_key(private_pem)
        self._header = {"alg": algorithm(self._key), "typ": kind, "kid": self._key.thumbprint()}

    def sign(self, record: Mapping[str, Any]) -> str:
        """The record with its signature, as one line of text."""
        payload = json.dumps(record, ensure_ascii=False, sort_keys=True).encode()
        return jws.serialize_compact(self._header, payload, self._key, algorithms=[self._header["alg"]])

    def open(self, sealed: str) -> dict[str, Any] | None:
        """The record, if this key signed exactly this text for this kind; else None."""
        if not _strict(sealed):
            return None
        try:
            found = jws.deserialize_compact(sealed, self._key, algorithms=[self._header["alg"]])
            record = json.loads(found.payload)
        except (JoseError, ValueError, TypeError, KeyError):
            return None
        return record if found.headers() == self._header and isinstance(record, dict) else None


def unverified(sealed: str) -> dict[str, Any]:
    """What a sealed text says, whoever wrote it: for lists that show why a record does not count. {} for nonsense."""
    try:
        payload = sealed.split(".")[1]
        record = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, IndexError, TypeError):
        return {}
    return record if isinstance(record, dict) else {}


def _strict(sealed: str) -> bool:
    """Base64 has spare bits at its end: a text that is not as it would be written is not what was signed."""
    try:
        parts = [(part, base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in sealed.split(".")]
    except ValueError:
        return False
    return all(base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == part for part, raw in parts)
