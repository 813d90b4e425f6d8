"""How fast a view may be built beside live ones: small transactions with rests between them while live views have
traffic, so that they stay nearly as fresh as alone; at full speed while they have none."""

from __future__ import annotations

from typing import Final

TRANSACTION_S: Final = 0.02  # of a shadow, while live views have traffic: so long may a live batch have to wait
SHARE: Final = 1 / 2  # of the time, at most, that a shadow's transactions take then
LEAST: Final = 500  # events: fewer save hardly any time, and the shadow must be faster than what arrives
_FIRST: Final = 500
_GROWTH: Final = 2.0


class Pace:
    """``events``: most of them in the next round; ``rest_s``: how long to wait before it. ``most``: at full speed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.events = min(_FIRST, most)
        self.rest_s = 0.0

    def applied(self, events: int, seconds: float, *, busy: bool) -> None:
        """A round of so many events took so long. ``busy``: whether live views have traffic."""
        if not busy:
            self.events, self.rest_s = self._most, 0.0
            return
        wanted = self.events * _GROWTH
        if seconds > 0 and events:
            wanted = min(wanted, events * TRANSACTION_S / seconds)
        self.events = max(min(LEAST, self._most), min(self._most, int(wanted)))
        self.rest_s = seconds * (1 / SHARE - 1)
