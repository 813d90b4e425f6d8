"""A worker's sign of life: renews its leases and notes how far each partition had gone when it looked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.infra.database import translated_errors, write
from bus.views.store import POSITION, VIEW

Ends = Mapping[tuple[str, int], int]


def beat(engine: Engine, held: Sequence[tuple[str, int]], ends: Ends, at_ms: int) -> set[str]:
    """Renews (view, epoch) pairs, one short transaction each; the names of those that are lost.

    ``ends``: where the partitions ended at ``at_ms``; a view that has applied all of it was complete then.
    """
    lost = set()
    for view, epoch in sorted(held):
        with translated_errors(), write(engine) as connection:
            mine = (VIEW.c.name == view) & (VIEW.c.epoch == epoch)
            if connection.execute(sa.update(VIEW).where(mine).values(beat=VIEW.c.beat + 1)).rowcount == 0:
                lost.add(view)
            else:
                _note_ends(connection, view, ends, at_ms)
    return lost


def _note_ends(connection: Connection, view: str, ends: Ends, at_ms: int) -> None:
    """Fresh ends, and whether all was applied. Inside the view's transaction, so a fenced worker notes nothing."""
    if not ends:
        return
    complete = sa.case((POSITION.c.next_offset >= sa.bindparam("end"), at_ms), else_=POSITION.c.complete_ms)
    statement = (
        sa.update(POSITION)
        .where(
            POSITION.c.view == view,
            POSITION.c.topic == sa.bindparam("of_topic"),
            POSITION.c.partition == sa.bindparam("of_partition"),
        )
        .values(end_offset=sa.bindparam("end"), complete_ms=complete)
    )
    rows = [{"of_topic": topic, "of_partition": partition, "end": end} for (topic, partition), end in ends.items()]
    connection.execute(statement, rows)
