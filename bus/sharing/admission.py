"""How much a department may ask: at once, and within a minute. Memory is bounded by the limits themselves."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final

from bus.errors import RateLimited, TooManyAtOnce

AT_ONCE: Final = 20
REFUSALS_A_MINUTE: Final = 600
_MINUTE: Final = 60.0


class Admission:
    """Counts questions. ``clock``: monotonic seconds. Used from the event loop's thread only."""

    def __init__(self, clock: Callable[[], float], *, at_once: int = AT_ONCE) -> None:
        self._clock, self._at_once = clock, at_once
        self._under_way: Counter[str] = Counter()
        self._asked: dict[Hashable, deque[float]] = {}

    @contextmanager
    def under_way(self, department: str) -> Iterator[None]:
        """Holds one of the department's places. Raises `RateLimited` when all are taken."""
        if self._under_way[department] >= self._at_once:
            raise TooManyAtOnce(department=department, limit=self._at_once)
        self._under_way[department] += 1
        try:
            yield
        finally:
            self._under_way[department] -= 1
            if not self._under_way[department]:
                del self._under_way[department]

    def count(self, who: Hashable, per_minute: int) -> None:
        """Counts one question of the last minute. Raises `RateLimited` beyond the limit, with the seconds to wait."""
        now, asked = self._clock(), self._asked.setdefault(who, deque())
        while asked and asked[0] <= now - _MINUTE:
            asked.popleft()
        if len(asked) >= per_minute:
            raise RateLimited(limit=per_minute, retry_after_s=max(1, math.ceil(asked[0] + _MINUTE - now)))
        asked.append(now)
