"""The records of a share topic: rows as CloudEvents, and notices about the stream itself.

A notice has no value, so a client that does not know it sees a tombstone of a key that it never had.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

NOTICE_TYPE: Final = "bus.notice"
NOTICE_HEADER: Final = "bus_notice"
NOTICE_KEY: Final = b"\x00notice."
NoticeKind = Literal["snapshot_begins", "snapshot_ends", "narrowed", "widened", "ended"]
Header = tuple[str, bytes]
Record = tuple[bytes, bytes | None, list[Header]]
"""Key, value (None: a tombstone) and headers of one record."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What a consumer is told: from here on ``columns`` are shown, ``masked`` some of them, for ``purpose``, under the
    policy ``revision``; ``seq`` is the view's; ``at``: when (RFC 3339)."""

    kind: NoticeKind
    view: str
    revision: str
    reason: str
    purpose: str
    columns: Sequence[str]
    masked: Sequence[str]
    seq: int
    at: str

    def record(self, number: int) -> Record:
        """The record. ``number`` tells it from others of this revision."""
        content = json.dumps(asdict(self), ensure_ascii=False).encode()
        key = NOTICE_KEY + f"{self.revision}.{number}".encode()
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", key[1:]),
            ("ce_source", source(self.view)),
            ("ce_type", NOTICE_TYPE.encode()),
            ("ce_sequence", str(self.seq).encode()),
            (NOTICE_HEADER, content),
        ]
        return key, None, headers


def source(view: str) -> bytes:
    """Where a view's events come from: ``/bus/views/<view>``."""
    return f"/bus/views/{view}".encode()


class Stamp:
    """Makes the headers of one stream's records. ``generation``: of the stream, since one change of the view may be
    told anew under other terms; so an event that is sent twice has one id, and two events never share one."""

    def __init__(self, consumer: str, view: str, generation: int) -> None:
        self._start = f"{consumer}.{generation}.".encode()
        self._spec: Header = ("ce_specversion", b"1.0")
        self._source: Header = ("ce_source", source(view))
        self._upsert: Header = ("ce_type", f"share.{view}.upsert".encode())
        self._delete: Header = ("ce_type", f"share.{view}.delete".encode())

    def record(self, key: bytes, value: bytes | None, seq: int) -> Record:
        """An upsert, or a tombstone where there is no value."""
        number = str(seq).encode()
        kind = self._delete if value is None else self._upsert
        ce_id = ("ce_id", b"%b%b.%b" % (self._start, number, key))
        return key, value, [self._spec, ce_id, self._source, kind, ("ce_sequence", number)]


def notice_of(record_key: bytes | None, headers: Any) -> Notice | None:
    """The notice in a record of a share topic; None for every other record."""
    if record_key is None or not record_key.startswith(NOTICE_KEY):
        return None
    content = dict(headers).get(NOTICE_HEADER)
    return Notice(**json.loads(content)) if content else None
