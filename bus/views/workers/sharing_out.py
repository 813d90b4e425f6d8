"""How several workers share views: each says that it lives, and gives one back while another has two fewer.

No wall clock is compared: a worker lives while its number of beats was seen to rise within ``lease_s`` of our own
monotonic clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from bus.infra.database import translated_errors, write
from bus.views.statements import insert_into
from bus.views.store import VIEW, WORKER


class Workers:
    """The workers on one views database, as this one sees them. ``clock``: monotonic seconds.

    A worker that is not ready to build yet (`join` was not called) is seen by none.
    """

    def __init__(
        self, engine: Engine, worker: str, lease_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine, self.id, self._lease_s, self._clock = engine, worker, lease_s, clock
        self._seen: dict[str, tuple[int, float]] = {}
        self._free: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._owners: dict[str, str | None] = {}
        self._joined = False

    def join(self) -> None:
        """From now on this worker takes part."""
        self._joined = True

    def beat(self) -> None:
        """Says that this worker lives."""
        if not self._joined:
            return
        insert = insert_into(WORKER, self._engine.dialect.name).values(id=self.id, beat=1)
        again = insert.on_conflict_do_update(index_elements=["id"], set_={"beat": WORKER.c.beat + 1})
        with translated_errors(), write(self._engine) as connection:
            connection.execute(again)

    def look(self) -> None:
        """Sees who lives and how many views each has; forgets the dead. Shadows do not count."""
        with translated_errors(), self._engine.connect() as connection:
            beats = dict(connection.execute(sa.select(WORKER.c.id, WORKER.c.beat)).all())
            views = sa.select(VIEW.c.name, VIEW.c.owner).where(VIEW.c.name.not_like("%+%"))
            self._owners = dict(connection.execute(views).all())
        now = self._clock()
        for worker, number in beats.items():
            if worker not in self._seen or self._seen[worker][0] != number:
                self._seen[worker] = (number, now)
        self._seen = {worker: seen for worker, seen in self._seen.items() if worker in beats}
        dead = [worker for worker, (_, at) in self._seen.items() if now - at >= 4 * self._lease_s]
        if dead:
            with translated_errors(), write(self._engine) as connection:
                connection.execute(sa.delete(WORKER).where(WORKER.c.id.in_(dead)))
        living = {worker for worker, (_, at) in self._seen.items() if now - at < self._lease_s} | {self.id}
        self._counts = {worker: sum(owner == worker for owner in self._owners.values()) for worker in living}

    def leave(self) -> None:
        """The worker ends: others need not wait for its silence."""
        self._joined = False
        with translated_errors(), write(self._engine) as connection:
            connection.execute(sa.delete(WORKER).where(WORKER.c.id == self.id))

    @property
    def others(self) -> Mapping[str, int]:
        """How many views each other living worker has."""
        return {worker: count for worker, count in self._counts.items() if worker != self.id}

    def may_take(self, view: str) -> bool:
        """Whether to try for a view. One that somebody gave back, or that is new, is for whoever has fewest; after
        ``lease_s`` anybody may take it. Where a lease runs out, whoever is first takes it."""
        if self._owners.get(view) is not None:
            self._free.pop(view, None)
            return True
        first = self._free.setdefault(view, self._clock())
        mine = self._counts.get(self.id, 0)
        fewest = min(self.others.values(), default=mine)
        ready = self._joined or not self.others
        return (ready and mine <= fewest) or self._clock() - first >= self._lease_s

    def took(self, view: str) -> None:
        """This worker has it now."""
        self._free.pop(view, None)
        self._counts[self.id] = self._counts.get(self.id, 0) + 1

    def has_more(self) -> bool:
        """Whether this worker is to give one back: another has two fewer, and none waits to be taken yet."""
        if None in self._owners.values():
            return False
        return self._counts.get(self.id, 0) - min(self.others.values(), default=10**9) >= 2

    def has_fewer(self) -> bool:
        """Whether another is about to give one back for this worker to take."""
        return max(self.others.values(), default=0) - self._counts.get(self.id, 0) >= 2

    def gave(self) -> None:
        """This worker gave one back."""
        self._counts[self.id] = self._counts.get(self.id, 0) - 1
