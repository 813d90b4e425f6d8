"""Keeps the log's head elsewhere every minute, and holds the log against what was kept."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from bus.audit.anchors import Anchor, Place
from bus.audit.log import AuditLog
from bus.errors import BusError

log = structlog.get_logger(__name__)
ANCHOR_EVERY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Compared:
    """The log against its anchors. ``first_bad``: the first bad entry that is known; ``agreed``: up to this entry an
    anchor vouches for the log; ``contradicted``: an anchor that an unbroken log does not bear out; ``unread``: places
    that could not be reached, so nothing is known from them."""

    entries: int
    ok: bool
    first_bad: int | None
    unclosed: tuple[int, ...]
    anchors: int
    agreed: int
    contradicted: Anchor | None
    unread: tuple[str, ...]


class Anchoring:
    """Keeps the head in every place each minute, and compares the log with what was kept.

    ``clock`` gives the instant that is kept with a head.
    """

    def __init__(self, audit: AuditLog, places: Sequence[Place], *, clock: Callable[[], dt.datetime]) -> None:
        self._audit, self._places, self._clock = audit, places, clock
        self._last: dict[str, Anchor] = {}
        self._problems: dict[str, str] = {}

    def keep(self) -> None:
        """Keeps the head wherever it is not kept yet. A place that fails is logged and tried again the next time."""
        head, at = self._audit.head(), self._clock().isoformat(timespec="seconds")
        for place in self._places:
            last = self._last.get(place.name)
            if head.sequence == 0 or (last is not None and last.head == head):
                continue
            try:
                place.keep(head, at)
            except BusError as error:
                self._problems[place.name] = error.detail
                log.error("the audit log's head could not be kept", place=place.name, error=error.code)
            else:
                self._last[place.name] = Anchor(head, at, place.name)
                self._problems.pop(place.name, None)

    def run(self, stopping: threading.Event, every_s: float = ANCHOR_EVERY_S) -> None:
        """Keeps the head at once, each ``every_s`` and once more when it is told to stop."""
        while True:
            ending = stopping.is_set()
            try:
                self.keep()
            except BusError as error:
                log.error("the audit log's head could not be read", error=error.code)
            if ending:
                return
            stopping.wait(every_s)

    def status(self) -> Mapping[str, Any]:
        """By place: the entry that was last kept and when, and what is wrong."""
        return {
            place.name: {
                "sequence": self._last[place.name].head.sequence if place.name in self._last else None,
                "at": self._last[place.name].at if place.name in self._last else None,
                "problem": self._problems.get(place.name),
            }
            for place in self._places
        }

    def compare(self) -> Compared:
        """Follows the whole chain and holds it against every anchor. Raises `DatabaseUnavailable`."""
        anchors, unread = self._kept()
        verdict = self._audit.verify([anchor.head for anchor in anchors])
        borne_out = (
            anchor.head.sequence for anchor in anchors if verdict.ok or anchor.head.sequence <= verdict.entries
        )
        against = (anchor for anchor in anchors if anchor.head.sequence == verdict.against)
        return Compared(
            verdict.entries,
            verdict.ok,
            verdict.first_bad,
            verdict.unclosed,
            anchors=len(anchors),
            agreed=max(borne_out, default=0),
            contradicted=next(against, None),
            unread=tuple(unread),
        )

    def _kept(self) -> tuple[list[Anchor], list[str]]:
        anchors: list[Anchor] = []
        unread = []
        for place in self._places:
            try:
                anchors += place.kept()
            except BusError as error:
                log.error("the audit log's anchors could not be read", place=place.name, error=error.code)
                unread.append(place.name)
        return anchors, unread
