"""Cursors as texts that only the bus can read, and that count for one question only (A13).

AES-256-GCM (NIST SP 800-38D) with a random nonce: what is inside is neither readable nor changeable, and what it is
bound to goes in as associated data, so that a cursor of another question does not open.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hmac
import json
import os
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus.errors import BadCursor

LONGEST: Final = 4_000
"""Characters: a longer cursor would not fit into an address."""
_NONCE: Final = 12
_PLAIN: Final = (str, bool, int)
_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "float": float.fromhex,
    "decimal": Decimal,
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "bytes": bytes.fromhex,
}


class Cursors:
    """Seals places in an order. ``secret``: of the bus; its processes share it, so any of them can go on."""

    def __init__(self, secret: bytes) -> None:
        self._box = AESGCM(hmac.digest(secret, b"bus.cursor", "sha256"))

    def seal(self, place: Sequence[Any], bound: bytes) -> str | None:
        """The place as a text that opens only for ``bound``; None where it would be too long."""
        nonce = os.urandom(_NONCE)
        inside = json.dumps([_written(value) for value in place], ensure_ascii=False).encode()
        text = _as_text(nonce + self._box.encrypt(nonce, inside, bound))
        return text if len(text) <= LONGEST else None

    def open(self, text: str, bound: bytes) -> tuple[Any, ...]:
        """The place. Raises `BadCursor` for a text that was not sealed here for ``bound``."""
        if len(text) > LONGEST:
            raise BadCursor()
        try:
            sealed = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
            if _as_text(sealed) != text:  # base64 has spare bits at its end
                raise BadCursor()
            inside = self._box.decrypt(sealed[:_NONCE], sealed[_NONCE:], bound)
        except (InvalidTag, ValueError, binascii.Error) as error:
            raise BadCursor() from error
        return tuple(_read(value) for value in json.loads(inside))


def _as_text(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


def _written(value: Any) -> Any:
    """JSON keeps texts, whole numbers and booleans as they are; the rest goes with its type."""
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, float):
        return ["float", value.hex()]
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    text = str(value) if isinstance(value, Decimal) else value.isoformat()
    return [type(value).__name__.lower(), text]


def _read(value: Any) -> Any:
    return _READ[value[0]](value[1]) if isinstance(value, list) else value
