"""A worker's sign of life: renews its leases; and notes how far each partition had gone when it looked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from bus.infra.database import translated_errors, write
from bus.views.store import POSITION, VIEW

Ends = Mapping[tuple[str, int], int]
Held = Sequence[tuple[str, int]]


def beat(engine: Engine, held: Held) -> set[str]:
    """Renews (view, epoch) pairs, one short transaction each; the names of those that are lost."""
    lost = set()
    for view, epoch in sorted(held):
        with translated_errors(), write(engine) as connection:
            mine = (VIEW.c.name == view) & (VIEW.c.epoch == epoch)
            if connection.execute(sa.update(VIEW).where(mine).values(beat=VIEW.c.beat + 1)).rowcount == 0:
                lost.add(view)
    return lost


def note_ends(engine: Engine, held: Held, ends: Ends, at_ms: int) -> None:
    """Where the partitions ended at ``at_ms``; a view that has applied all of it was complete then. A worker that has
    lost a view notes nothing for it."""
    if not ends:
        return
    complete = sa.case((POSITION.c.next_offset >= sa.bindparam("end"), at_ms), else_=POSITION.c.complete_ms)
    for view, epoch in sorted(held):
        mine = sa.exists().where(VIEW.c.name == view, VIEW.c.epoch == epoch)
        statement = (
            sa.update(POSITION)
            .where(
                POSITION.c.view == view,
                POSITION.c.topic == sa.bindparam("of_topic"),
                POSITION.c.partition == sa.bindparam("of_partition"),
                mine,
            )
            .values(end_offset=sa.bindparam("end"), complete_ms=complete)
        )
        # in the order in which builders write them, who would otherwise wait for each other
        rows = [{"of_topic": place[0], "of_partition": place[1], "end": end} for place, end in sorted(ends.items())]
        with translated_errors(), write(engine) as connection:
            connection.execute(statement, rows)
