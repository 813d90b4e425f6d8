"""Where a reader goes on, and when it must be given every row anew. Plain rules: no clock, no Kafka.

A share topic is compacted, so its records from the start on are a snapshot: each row at least once, each row that
is gone with a tombstone (for seven days) or not at all.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bus.sharing.subscribing.changes import BEGINS, ENDS, Change, Notice
from bus.sharing.subscribing.cursors import Place

TOMBSTONES_KEPT_MS: Final = 7 * 86_400_000
_MARGIN_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """A topic as it is: its id, the offset of its first record that may be read, and the one after its last."""

    topic_id: str
    start: int
    end: int


def reason_for_snapshot(place: Place | None, bounds: Bounds, now_ms: int) -> str | None:
    """Why a reader at ``place`` cannot just go on; None where it can."""
    if place is None:
        return "no cursor was given"
    if place.topic_id != bounds.topic_id or place.offset > bounds.end:
        return "the stream was begun anew since"
    if place.offset < bounds.start:
        return "what changed since is no longer kept"
    if place.offset < bounds.end and now_ms - place.at_ms > TOMBSTONES_KEPT_MS - _MARGIN_MS:
        return "the cursor is older than deletions are kept"
    return None


class Reading:
    """One reader's way through a topic. ``next``: the offset of the record it takes next; ``about``: what the notices
    made here say of the stream (view, purpose, revision)."""

    def __init__(self, place: Place | None, bounds: Bounds, *, now_ms: int, about: Mapping[str, Any]) -> None:
        self.topic_id = bounds.topic_id
        self._about = about
        self._inner = False  # within a snapshot that the topic itself holds
        self._until: int | None = None
        self._waiting: list[Change] = []
        reason = reason_for_snapshot(place, bounds, now_ms)
        if place is not None and reason is None:
            self.next = place.offset
            self._until = place.until
        else:
            self.next = bounds.start
            self._until = bounds.end
            self._waiting.append(self._notice(BEGINS, str(reason), now_ms))

    @property
    def in_snapshot(self) -> bool:
        """Whether every row is being given anew."""
        return self._until is not None

    def place(self, offset: int, now_ms: int) -> Place:
        """The place before ``offset``."""
        return Place(self.topic_id, offset, now_ms, self._until)

    def waiting(self, now_ms: int) -> list[tuple[Place, Change]]:
        """What is to be told before the next record, each with the place after it."""
        found = [(self.place(self.next, now_ms), change) for change in self._waiting]
        self._waiting.clear()
        return [*found, *self._end(now_ms)]

    def take(self, offset: int, change: Change, now_ms: int) -> list[tuple[Place, Change]]:
        """What the reader is told for a record: the change, each with the place after it. A snapshot in the topic
        within the snapshot that is being given is part of it."""
        self.next = offset + 1
        found = [] if self._is_inner(change) else [(self.place(self.next, now_ms), change)]
        return [*found, *self._end(now_ms)]

    def pass_to(self, offset: int) -> None:
        """Records before ``offset`` were compacted away."""
        self.next = max(self.next, offset)

    def _is_inner(self, change: Change) -> bool:
        if self._until is None or not isinstance(change, Notice) or change.kind not in (BEGINS, ENDS):
            return False
        self._inner = change.kind == BEGINS
        return True

    def _end(self, now_ms: int) -> Iterable[tuple[Place, Change]]:
        if self._until is None or self.next < self._until or self._inner:
            return ()
        self._until = None
        return ((self.place(self.next, now_ms), self._notice(ENDS, "", now_ms)),)

    def _notice(self, kind: str, reason: str, now_ms: int) -> Notice:
        at = dt.datetime.fromtimestamp(now_ms / 1_000, dt.UTC).isoformat(timespec="milliseconds")
        return Notice({"kind": kind, **self._about, "reason": reason, "at": at.replace("+00:00", "Z")})
