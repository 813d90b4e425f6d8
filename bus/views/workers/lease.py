"""Who builds a view: a lease in the views database. Taking over raises ``epoch``, which fences the one before.

No wall clock is compared: whoever wants a lease waits ``lease_s`` of its own monotonic clock without seeing a renewal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from bus.infra.database import translated_errors, write
from bus.views.statements import insert_into
from bus.views.store import VIEW


class Leases:
    """The leases that one worker holds or watches. All methods raise `DatabaseUnavailable`."""

    def __init__(
        self, engine: Engine, worker: str, lease_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine, self._worker, self._lease_s, self._clock = engine, worker, lease_s, clock
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}

    def acquire(self, view: str) -> int | None:
        """Takes the lease if it is free or was not renewed for ``lease_s``: the new epoch, else None."""
        with translated_errors(), write(self._engine) as connection:
            row = connection.execute(sa.select(VIEW).where(VIEW.c.name == view)).first()
            if row is None:
                insert = insert_into(VIEW, self._engine.dialect.name).values(name=view).on_conflict_do_nothing()
                connection.execute(insert)
                row = connection.execute(sa.select(VIEW).where(VIEW.c.name == view)).one()
            if row.owner is not None and not self._expired(view, (row.epoch, row.beat)):
                return None
            crashes = row.crashes + (row.owner is not None)
            unchanged = (VIEW.c.name == view) & (VIEW.c.epoch == row.epoch) & (VIEW.c.beat == row.beat)
            taken = connection.execute(
                sa.update(VIEW)
                .where(unchanged)
                .values(owner=self._worker, epoch=row.epoch + 1, beat=row.beat + 1, crashes=crashes)
            )
        self._seen.pop(view, None)
        return row.epoch + 1 if taken.rowcount else None

    def _expired(self, view: str, sign: tuple[int, int]) -> bool:
        """Whether the sign of life has been the same for ``lease_s`` of our clock."""
        seen = self._seen.get(view)
        if seen is None or seen[0] != sign:
            self._seen[view] = (sign, self._clock())
            return False
        return self._clock() - seen[1] >= self._lease_s

    def release(self, held: Iterable[tuple[str, int]]) -> None:
        """Gives leases back, so that the next worker need not wait."""
        with translated_errors(), write(self._engine) as connection:
            for view, epoch in sorted(held):
                mine = (VIEW.c.name == view) & (VIEW.c.epoch == epoch)
                connection.execute(sa.update(VIEW).where(mine).values(owner=None, crashes=0))
