"""A worker's sign of life: renews its leases; and notes how far each partition had gone when it looked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from bus.infra.database import translated_errors, write
from bus.views.store import POSITION, VIEW

Ends = Mapping[tuple[str, int], int]
Held = Sequence[tuple[str, int]]


def beat(engine: Engine, held: Held) -> set[str]:
    """Renews (view, epoch) pairs in short transactions; the names of those that are lost."""
    lost = set()
    for some in _transactions(engine, held):
        with translated_errors(), write(engine) as connection:
            for view, epoch in some:
                mine = (VIEW.c.name == view) & (VIEW.c.epoch == epoch)
                if connection.execute(sa.update(VIEW).where(mine).values(beat=VIEW.c.beat + 1)).rowcount == 0:
                    lost.add(view)
    return lost


def _transactions(engine: Engine, held: Held) -> Iterable[Held]:
    """One for each view, which then locks no other. On SQLite one for all: each would lock everything, and a builder
    that finds it locked sleeps for a while."""
    every = sorted(held)
    if engine.dialect.name == "sqlite":
        return [every] if every else []
    return [[one] for one in every]


def note_ends(engine: Engine, held: Held, ends: Ends, at_ms: int) -> None:
    """Where the partitions ended at ``at_ms``; a view that has applied all of it was complete then. A worker that has
    lost a view notes nothing for it."""
    if not ends:
        return
    complete = sa.case((POSITION.c.next_offset >= sa.bindparam("end"), at_ms), else_=POSITION.c.complete_ms)
    mine = sa.exists().where(VIEW.c.name == sa.bindparam("of_view"), VIEW.c.epoch == sa.bindparam("of_epoch"))
    place = {name: POSITION.c[name] == sa.bindparam(f"of_{name}") for name in ("view", "topic", "partition")}
    statement = (
        sa.update(POSITION).where(*place.values(), mine).values(end_offset=sa.bindparam("end"), complete_ms=complete)
    )
    # in the order in which builders write them, who would otherwise wait for each other
    every = [{"of_topic": topic, "of_partition": number, "end": end} for (topic, number), end in sorted(ends.items())]
    for some in _transactions(engine, held):
        rows = [{"of_view": view, "of_epoch": epoch, **row} for view, epoch in some for row in every]
        with translated_errors(), write(engine) as connection:
            connection.execute(statement, rows)
