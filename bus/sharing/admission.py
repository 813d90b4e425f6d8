"""How much may be asked: at once, and within a minute. Memory is bounded by the limits themselves."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final

from bus.errors import Overloaded, RateLimited, TooManyAtOnce, TooManyExports

AT_ONCE: Final = 20
IN_ALL: Final = 250
PUBLIC_AT_ONCE: Final = 5
PUBLIC_IN_ALL: Final = 50
PUBLIC_A_MINUTE: Final = 120
REFUSALS_A_MINUTE: Final = 600
_MINUTE: Final = 60.0
_COUNTED: Final = 20_000


class Admission:
    """Counts questions. ``clock``: monotonic seconds; ``at_once``: of one asker; ``in_all``: of all together, so that
    who is let in is answered soon. Used from the event loop's thread only."""

    def __init__(self, clock: Callable[[], float], *, at_once: int = AT_ONCE, in_all: int = IN_ALL) -> None:
        self._clock, self._at_once, self._in_all = clock, at_once, in_all
        self._under_way: Counter[Hashable] = Counter()
        self._public = 0
        self._asked: OrderedDict[Hashable, deque[float]] = OrderedDict()

    @contextmanager
    def under_way(self, department: str, address: str = "") -> Iterator[None]:
        """Holds one of the department's places, or of the ``address`` that asks without a token.

        Raises `TooManyAtOnce` when all of its own are taken, `Overloaded` when all are: whoever asks without a token
        can take only a part of those."""
        who, own = (department, address), PUBLIC_AT_ONCE if address else self._at_once
        if self._under_way[who] >= own:
            raise TooManyAtOnce(department=address or department, limit=own)
        if self._under_way.total() >= self._in_all or (address and self._public >= PUBLIC_IN_ALL):
            raise Overloaded(limit=PUBLIC_IN_ALL if address else self._in_all)
        self._under_way[who] += 1
        self._public += bool(address)
        try:
            yield
        finally:
            self._public -= bool(address)
            self._under_way[who] -= 1
            if not self._under_way[who]:
                del self._under_way[who]

    def count(self, who: Hashable, per_minute: int) -> None:
        """Counts one question of the last minute. Raises `RateLimited` beyond the limit, with the seconds to wait."""
        now, asked = self._clock(), self._of(who)
        while asked and asked[0] <= now - _MINUTE:
            asked.popleft()
        if len(asked) >= per_minute:
            raise RateLimited(limit=per_minute, retry_after_s=max(1, math.ceil(asked[0] + _MINUTE - now)))
        asked.append(now)

    def _of(self, who: Hashable) -> deque[float]:
        """Who asked longest ago is forgotten first."""
        asked = self._asked.setdefault(who, deque())
        self._asked.move_to_end(who)
        if len(self._asked) > _COUNTED:
            self._asked.popitem(last=False)
        return asked


class Places:
    """Places of exports: ``in_all`` of the server, ``each`` of one asker. Used from the event loop's thread only."""

    def __init__(self, *, in_all: int, each: int) -> None:
        self._in_all, self._each = in_all, each
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """How many places are taken."""
        return self._taken.total()

    def take(self, who: str) -> Callable[[], None]:
        """Takes a place; what is returned gives it back. Raises `TooManyExports`."""
        if self._taken[who] >= self._each:
            raise TooManyExports(limit=self._each, whose=who)
        if self._taken.total() >= self._in_all:
            raise TooManyExports(limit=self._in_all, whose="the bus")
        self._taken[who] += 1

        def give_back() -> None:
            self._taken[who] -= 1
            if not self._taken[who]:
                del self._taken[who]

        return give_back
