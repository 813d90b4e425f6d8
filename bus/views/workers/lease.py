"""Who builds a view: a lease in the views database. Taking over raises ``epoch``, which fences the one before.

No wall clock is compared: whoever wants a lease waits ``lease_s`` of its own monotonic clock without seeing a renewal.
A holder that says that it lives, but cannot renew since its own long transaction locks the view, keeps it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.infra.database import end_sessions, translated_errors, write
from bus.views.statements import insert_into
from bus.views.store import VIEW, WORKER

_LOCK_WAIT: Final = "SET LOCAL lock_timeout = '500ms'"  # on PostgreSQL; SQLite has no locks of rows
_LOCK_NOT_AVAILABLE: Final = "55P03"
_FORGOTTEN_LEASES: Final = 3  # without a renewal, though its holder lives


class Leases:
    """The leases that one worker holds or watches. All methods raise `DatabaseUnavailable`."""

    def __init__(
        self, engine: Engine, worker: str, lease_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine, self._worker, self._lease_s, self._clock = engine, worker, lease_s, clock
        self._seen: dict[tuple[str, str], tuple[tuple[int, ...], float]] = {}

    def acquire(self, view: str) -> int | None:
        """Takes the lease if it is free or was not renewed for ``lease_s``: the new epoch, else None. A view that a
        transaction keeps locked is left for the next time."""
        with translated_errors(), write(self._engine) as connection:
            row = self._row(connection, view)
            if row.owner is not None and not self._lapsed(connection, view, row):
                return None
            if not self._locks(connection, view, row.owner):
                connection.rollback()
                return None
            crashes = row.crashes + (row.owner is not None)
            unchanged = (VIEW.c.name == view) & (VIEW.c.epoch == row.epoch) & (VIEW.c.beat == row.beat)
            taken = connection.execute(
                sa.update(VIEW)
                .where(unchanged)
                .values(owner=self._worker, epoch=row.epoch + 1, beat=row.beat + 1, crashes=crashes)
            )
        self._seen.pop(("view", view), None)
        return row.epoch + 1 if taken.rowcount else None

    def _row(self, connection: Connection, view: str) -> Any:
        """The view's row, made if it is not there."""
        row = connection.execute(sa.select(VIEW).where(VIEW.c.name == view)).first()
        if row is None:
            insert = insert_into(VIEW, self._engine.dialect.name).values(name=view).on_conflict_do_nothing()
            connection.execute(insert)
            row = connection.execute(sa.select(VIEW).where(VIEW.c.name == view)).one()
        return row

    def _lapsed(self, connection: Connection, view: str, row: Any) -> bool:
        """Whether neither lease nor holder gave a sign for ``lease_s``, or the lease alone for much longer."""
        unrenewed_s = self._silent_s(("view", view), (row.epoch, row.beat))
        owner_s = self._owner_silent_s(connection, row.owner)
        return unrenewed_s >= self._lease_s * (1 if owner_s >= self._lease_s else _FORGOTTEN_LEASES)

    def _owner_silent_s(self, connection: Connection, owner: str) -> float:
        """How long a worker has not been seen to live; one that is not known is silent for ever."""
        beat = connection.scalar(sa.select(WORKER.c.beat).where(WORKER.c.id == owner))
        return float("inf") if beat is None else self._silent_s(("worker", owner), (beat,))

    def _silent_s(self, who: tuple[str, str], sign: tuple[int, ...]) -> float:
        """For how long the sign of life has been the same, by our clock."""
        seen = self._seen.get(who)
        if seen is None or seen[0] != sign:
            self._seen[who] = (sign, self._clock())
            return 0.0
        return self._clock() - seen[1]

    def _locks(self, connection: Connection, view: str, owner: str | None) -> bool:
        """Locks the view's row, waiting shortly for who writes it at the moment: a view that others compute from theirs
        is locked again and again, so that not to wait at all would be never to have it."""
        locked = sa.select(VIEW.c.name).where(VIEW.c.name == view)
        if connection.execute(locked.with_for_update(skip_locked=True)).first() is not None:
            return True
        self._interrupt(connection, owner)
        connection.exec_driver_sql(_LOCK_WAIT)
        try:
            return connection.execute(locked.with_for_update()).first() is not None
        except sa.exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            return False

    def _interrupt(self, connection: Connection, owner: str | None) -> None:
        """Ends what a silent holder has under way: a process that is stopped in the middle of a transaction would keep
        the view locked for as long as it sleeps. What it did not commit, the next one reads again."""
        if owner is not None and self._owner_silent_s(connection, owner) >= self._lease_s:
            end_sessions(connection, owner)

    def release(self, held: Iterable[tuple[str, int]]) -> None:
        """Gives leases back, so that the next worker need not wait."""
        with translated_errors(), write(self._engine) as connection:
            for view, epoch in sorted(held):
                mine = (VIEW.c.name == view) & (VIEW.c.epoch == epoch)
                connection.execute(sa.update(VIEW).where(mine).values(owner=None, crashes=0))
