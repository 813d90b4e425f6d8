"""Begins and ends the logs of views as these are streamed or not, begins them anew with new tables, and prunes them.

Everything happens with the lock of the view's row, which every writer takes first: a transaction sees either no log, or
one that is complete after `log_from`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection, Engine

from bus.errors import DatabaseUnavailable, Fenced
from bus.infra.database import translated_errors, write
from bus.views.applied import read_shape
from bus.views.catalogue import Shape
from bus.views.changelog.streamed import Streamed
from bus.views.changelog.tables import AT, SEQ, log_name, log_table
from bus.views.store import VIEW, ViewState

log = structlog.get_logger(__name__)
_LOCK_WAIT: Final = "SET LOCAL lock_timeout = '500ms'"  # who reads for long is not made to hold up the view's writer
_BITE: Final = 5_000  # rows deleted in one transaction, unless one transaction of the view wrote more
_PRUNING_S: Final = 0.1
_DAY_MS: Final = 86_400_000


def switch(engine: Engine, shape: Shape, epoch: int, *, streamed: bool) -> bool:
    """Begins the view's log, or ends it; whether that was to be done and could be. Does nothing while its tables are of
    another shape. Raises `Fenced`, and `DatabaseUnavailable` where a reader is in the way: to be tried again."""
    view = shape.view.name
    with translated_errors(), write(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(_LOCK_WAIT)
        mine = (VIEW.c.name == view) & (VIEW.c.epoch == epoch)
        raised = sa.update(VIEW).where(mine).values(seq=VIEW.c.seq + 1)
        row = connection.execute(raised.returning(VIEW.c.seq, VIEW.c.log_from, VIEW.c.fingerprint)).first()
        if row is None:
            raise Fenced(view=view, epoch=epoch)
        if row.fingerprint != shape.fingerprint or (row.log_from is not None) == streamed:
            connection.rollback()
            return False
        drop(connection, view)
        if streamed:
            log_table(shape).create(connection)
        connection.execute(sa.update(VIEW).where(mine).values(log_from=row.seq if streamed else None))
    return True


def begin_anew(connection: Connection, view: str, *, raised: bool) -> None:
    """The view's rows are others than the log leads to, in this transaction, which has the lock of the view's row: what
    the log has so far goes, and it is complete from here on. ``raised``: whether this transaction has raised the view's
    ``seq`` already. Nothing happens where there is no log. Without a shape to make it for it ends, until whoever holds
    the view begins it again."""
    seq = VIEW.c.seq if raised else VIEW.c.seq + 1
    logged = sa.update(VIEW).where(VIEW.c.name == view, VIEW.c.log_from.is_not(None)).values(seq=seq, log_from=seq)
    row = connection.execute(logged.returning(VIEW.c.shape, VIEW.c.fingerprint)).first()
    if row is None:
        return
    drop(connection, view)
    shape = read_shape(row.shape, view, row.fingerprint)
    if shape is not None:
        log_table(shape).create(connection)
    else:
        connection.execute(sa.update(VIEW).where(VIEW.c.name == view).values(log_from=None))


def drop(connection: Connection, view: str) -> None:
    """Drops the log's table where there is one."""
    sa.Table(log_name(view), sa.MetaData()).drop(connection, checkfirst=True)


def prune(engine: Engine, shape: Shape, epoch: int, before_ms: int, *, bite: int = _BITE) -> int:
    """Deletes the oldest transactions of the log that are older than ``before_ms``, at most about ``bite`` rows; how
    many. Raises `Fenced` and `DatabaseUnavailable`."""
    table, view = log_table(shape), shape.view.name
    oldest = sa.select(table.c[SEQ], table.c[AT]).order_by(table.c[SEQ]).limit(bite).subquery()
    last = sa.select(sa.func.max(oldest.c[SEQ])).where(oldest.c[AT] < before_ms)
    mine = (VIEW.c.name == view) & (VIEW.c.epoch == epoch)
    logged = mine & VIEW.c.log_from.is_not(None) & (VIEW.c.fingerprint == shape.fingerprint)
    if not _has_old(engine, table, before_ms):
        return 0
    with translated_errors(), write(engine) as connection:
        if connection.execute(sa.select(VIEW.c.name).where(logged).with_for_update()).first() is None:
            return 0
        seq = connection.scalar(last)
        if seq is None:
            connection.rollback()
            return 0
        connection.execute(sa.update(VIEW).where(logged).values(log_from=seq))
        return connection.execute(sa.delete(table).where(table.c[SEQ] <= seq)).rowcount


def _has_old(engine: Engine, table: sa.Table, before_ms: int) -> bool:
    """Mostly there is nothing to prune: that is found out without holding up any writer."""
    with translated_errors(), engine.connect() as connection:
        first = connection.scalar(sa.select(table.c[AT]).order_by(table.c[SEQ]).limit(1))
    return first is not None and first < before_ms


class Logs:
    """The logs of the views that one worker holds. ``kept_days``: what is older goes; ``now_ms``: a clock."""

    def __init__(
        self,
        engine: Engine,
        streamed: Streamed,
        *,
        kept_days: float = 7.0,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._engine, self._streamed = engine, streamed
        self._kept_ms, self._now_ms = round(kept_days * _DAY_MS), now_ms
        self._names: frozenset[str] = frozenset()

    def look(self) -> None:
        """Which views are streamed now. Raises `DatabaseUnavailable`."""
        self._names = self._streamed.names()

    def follow(self, shape: Shape, epoch: int, state: ViewState) -> None:
        """One step for one view that this worker holds: its log begins or ends, else loses some of what is old. What
        a reader holds up is tried again with the next call. Raises `Fenced`."""
        view, streamed = shape.view.name, shape.view.name in self._names
        try:
            if (state.log_from is not None) != streamed:
                if switch(self._engine, shape, epoch, streamed=streamed):
                    log.info("changes_logged" if streamed else "changes_not_logged", view=view)
            elif streamed:
                self._prune(shape, epoch)
        except DatabaseUnavailable as error:
            log.warning("log_waits", view=view, cause=str(error.__cause__))

    def _prune(self, shape: Shape, epoch: int) -> None:
        """Bite by bite, so that the view's writer waits for one at most; what is left is for the next call."""
        until = time.monotonic() + _PRUNING_S
        while prune(self._engine, shape, epoch, self._now_ms() - self._kept_ms) and time.monotonic() < until:
            pass
