"""Where a reader stands in a stream, as a text that it keeps: signed where the bus itself will act on it again."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

from bus.errors import BadCursor

MAX_CURSOR: Final = 200
_TEXT: Final = re.compile(r"([0-9]{1,19})\.([0-9]{1,16})\.([0-9]{1,19}|-)\.([A-Za-z0-9_-]{1,64})")
_MAC_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a share topic: the offset of the next record, in the topic of this id, as of ``at_ms`` (since 1970).
    ``until``: the offset at which the snapshot ends that is being read; None where none is."""

    topic_id: str
    offset: int
    at_ms: int
    until: int | None = None

    def __str__(self) -> str:
        until = "-" if self.until is None else str(self.until)
        return f"{self.offset}.{self.at_ms}.{until}.{self.topic_id}"


def read_place(text: str) -> Place:
    """The inverse of ``str(place)``. Raises `BadCursor`."""
    found = _TEXT.fullmatch(text) if len(text) <= MAX_CURSOR and text.isascii() else None
    if found is None:
        raise BadCursor()
    offset, at_ms, until, topic_id = found.groups()
    return Place(topic_id, int(offset), int(at_ms), None if until == "-" else int(until))


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose cursor it is: one consumer's, of one view, for one purpose."""

    consumer: str
    view: str
    purpose: str


class Cursors:
    """Signs places and reads them back. ``secret``: the bus's own."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"bus.cursor.changes", "sha256")

    def write(self, place: Place, scope: Scope) -> str:
        """The cursor: ASCII without spaces."""
        text = str(place)
        return f"{text}.{self._mac(text, scope)}"

    def read(self, cursor: str, scope: Scope) -> Place:
        """The place, if this bus signed it for this scope. Raises `BadCursor`."""
        text, _, mac = cursor.rpartition(".")
        if len(cursor) > MAX_CURSOR or not cursor.isascii() or not hmac.compare_digest(mac, self._mac(text, scope)):
            raise BadCursor()
        return read_place(text)

    def _mac(self, text: str, scope: Scope) -> str:
        """Ids hold no NUL, so no two scopes are the same bytes."""
        signed = "\0".join((scope.consumer, scope.view, scope.purpose, text)).encode()
        digest = hmac.new(self._key, signed, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest[:_MAC_BYTES]).rstrip(b"=").decode()
