"""Fills a view that is computed from others, and has those who write these keep it up to date from then on.

One transaction locks the views it reads, fills it from what they say and writes it into their ``dependents``: what they
are given afterwards their writers carry on (`derived.dependents`). Whoever holds the view looks with each tick
whether that is still so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.infra.database import translated_errors, write
from bus.views.catalogue import Shape
from bus.views.changelog.keeping import begin_anew
from bus.views.derived.dependents import FAILED, passes, stop, why
from bus.views.derived.figures import Figures
from bus.views.derived.graph import (
    NONE,
    Nodes,
    fits,
    followable,
    forsake,
    in_order,
    link_of,
    read_nodes,
    shapes_in,
    written,
)
from bus.views.derived.lookups import Lookups
from bus.views.rebuilding.generation import lock_mine, prepare_within
from bus.views.store import VIEW


class Enrolment:
    """One aggregate, or one view with look-ups, under the lease's ``epoch``. Not thread-safe."""

    def __init__(
        self, engine: Engine, shape: Shape, epoch: int, *, crash_point: Callable[[str], None] = lambda _: None
    ) -> None:
        self._engine, self._shape, self._epoch, self._crash = engine, shape, epoch, crash_point
        self._failed: dict[str, int] | None = None

    def refresh(self) -> bool:
        """Fills the view where nobody keeps it up to date, once the views it reads have the tables it needs; whether it
        did. One that cannot be computed is stopped with the reason, and tried again when these have moved on. Raises
        `Fenced` and `DatabaseUnavailable`."""
        with translated_errors():
            with self._engine.connect() as connection:
                nodes = read_nodes(connection)
            if self.is_kept(nodes):
                self._settle(nodes)
                return False
            if self._failed is not None and self._failed == self._seqs(nodes):
                return False
            return self._filled()

    def is_kept(self, nodes: Nodes | None = None) -> bool:
        """Whether those who write the views it reads keep it up to date. Raises `DatabaseUnavailable`."""
        if nodes is None:
            with translated_errors(), self._engine.connect() as connection:
                nodes = read_nodes(connection)
        own = nodes.get(self._shape.view.name)
        if own is None or own.fingerprint != self._shape.fingerprint:
            return False
        return all(name in nodes and followable(nodes, name, own.name) for name in self._shape.view.reads)

    def _filled(self) -> bool:
        try:
            with write(self._engine) as connection:
                done = self._fill(connection)
                self._crash("before commit")
        except (sa.exc.DBAPIError, ArithmeticError) as error:
            if passes(error):
                raise
            with write(self._engine) as connection:
                lock_mine(connection, self._shape.view.name, self._epoch)
                stop(connection, self._shape.view.name, why(error))
                self._failed = self._seqs(read_nodes(connection))
            return False
        self._failed = None
        return done

    def _fill(self, connection: Connection) -> bool:
        """Does nothing, and says so, while a view that it reads has no tables or older ones than it needs."""
        name, reads = self._shape.view.name, self._shape.view.reads
        for base in in_order(read_nodes(connection), reads):
            connection.execute(sa.update(VIEW).where(VIEW.c.name == base).values(seq=VIEW.c.seq + 1))
        nodes = read_nodes(connection)
        bases = shapes_in(nodes, self._shape.view)
        if bases is None or not fits(self._shape, bases):
            connection.rollback()
            return False
        prepare_within(connection, self._shape, self._epoch)
        self._crash("locked")
        self._compute(connection, bases)
        begin_anew(connection, name, raised=False)
        self._crash("filled")
        link = link_of(self._shape, bases)
        for base in reads:
            dependents = written({**nodes[base].dependents, name: link})
            connection.execute(sa.update(VIEW).where(VIEW.c.name == base).values(dependents=dependents))
            self._crash("enrolled")
        values = {"bases": json.dumps(self._seqs(nodes)), **self._state(nodes)}
        connection.execute(sa.update(VIEW).where(VIEW.c.name == name).values(**values))
        return True

    def _state(self, nodes: Nodes) -> dict[str, str]:
        """An aggregate is live with what it reads; a view with topics of its own is found live anew, or stays stopped
        where these are why."""
        own = nodes[self._shape.view.name]
        if self._shape.view.kind == "aggregate":
            live = all(nodes[base].state == "live" for base in self._shape.view.reads)
            return {"state": "live" if live else "building", "reason": ""}
        stopped = own.state == "stopped" and not own.reason.startswith(FAILED)
        return {} if stopped else {"state": "building", "reason": ""}

    def _compute(self, connection: Connection, bases: dict[str, Shape]) -> None:
        dialect, name = self._engine.dialect.name, self._shape.view.name
        if self._shape.view.kind != "aggregate":
            Lookups(self._shape, bases, dialect).fill(connection)
            forsake(connection, name)
            return
        figures = Figures(self._shape, bases, dialect, self._crash)
        figures.make(connection)
        figures.fill(connection)
        tables = [{"name": table.name, "live": False} for table in (figures.tables.rows, *figures.tables.stored)]
        connection.execute(sa.update(VIEW).where(VIEW.c.name == name).values(tables=json.dumps(tables)))

    def _seqs(self, nodes: Nodes) -> dict[str, int]:
        return {name: nodes[name].seq for name in self._shape.view.reads if name in nodes}

    def _settle(self, nodes: Nodes) -> None:
        """An aggregate is live while all views that it reads are. Other views are live by their own topics."""
        if self._shape.view.kind != "aggregate":
            return
        wanted = "live" if all(nodes[name].state == "live" for name in self._shape.view.reads) else "building"
        if nodes[self._shape.view.name].state == wanted:
            return
        own: Any = (VIEW.c.name == self._shape.view.name) & (VIEW.c.epoch == self._epoch) & (VIEW.c.bases != NONE)
        with write(self._engine) as connection:
            connection.execute(sa.update(VIEW).where(own).values(state=wanted, reason=""))
