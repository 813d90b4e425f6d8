"""A view's generation: its tables as its declaration wants them. A changed declaration starts from offset 0."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.core.names import without_generation
from bus.errors import Fenced
from bus.infra.database import translated_errors, write
from bus.views.applied import shape_text
from bus.views.builder import Place
from bus.views.catalogue import Shape
from bus.views.changelog.keeping import begin_anew, drop
from bus.views.derived.graph import NONE, forsake
from bus.views.progress import write_positions
from bus.views.store import BY_VIEW, VIEW, Position, read_positions
from bus.views.tables import LIVE, layout, row_table


def prepare(engine: Engine, shape: Shape, epoch: int) -> bool:
    """Makes the view's tables, or drops and makes them again where the declaration changed; whether it did either.

    One transaction: readers see the old view, or state ``building``. Raises `Fenced`.
    """
    with translated_errors(), write(engine) as connection:
        return prepare_within(connection, shape, epoch)


def prepare_within(connection: Connection, shape: Shape, epoch: int) -> bool:
    """`prepare` as a part of a transaction. Views computed from one whose tables are made anew are filled again by
    whoever holds them."""
    row = lock_mine(connection, shape.view.name, epoch)
    if row.fingerprint == shape.fingerprint:
        return False
    _drop(connection, row)
    forsake(connection, shape.view.name)
    tables = tables_of(shape)
    for table in tables:
        create(connection, table)
    named = tables_of(replace(shape, view=replace(shape.view, name=without_generation(shape.view.name))))
    kept = [
        {"name": table.name, "live": LIVE in table.c, "of": own.name} for table, own in zip(tables, named, strict=True)
    ]
    sources = {source.name: f"dept.{source.entity}" for source in shape.view.sources}
    zero = dict.fromkeys(("applied", "stale_dropped", "null_key", "quarantined"), 0)
    connection.execute(
        sa.update(VIEW)
        .where(VIEW.c.name == shape.view.name)
        .values(
            seq=VIEW.c.seq + int(row.fingerprint != ""),  # so that no builder takes these for the tables that it wrote
            fingerprint=shape.fingerprint,
            shape=shape_text(shape),
            origins="{}",
            tables=json.dumps(kept),
            sources=json.dumps(sources),
            bases=NONE,
            state="building",
            reason="",
            **zero,
        )
    )
    begin_anew(connection, shape.view.name, raised=False)
    return True


def tables_of(shape: Shape) -> tuple[sa.Table, ...]:
    """Every stored table of a view, that of its rows first."""
    return (row_table(shape),) if shape.view.kind == "aggregate" else layout(shape).tables


def create(connection: Connection, table: sa.Table) -> None:
    """Makes a table. Its indexes get names that nothing else has: a table that is renamed keeps its indexes, and the
    next one of its first name brings its own."""
    made = table.to_metadata(sa.MetaData())
    for index in made.indexes:
        index.name = sa.quoted_name(f"i_{uuid.uuid4().hex}", quote=None)
    made.create(connection)


def start_positions(
    engine: Engine, view: str, epoch: int, starts: Mapping[Place, int], ids: Mapping[str, str] | None = None
) -> dict[Place, int]:
    """The view's next offsets, by (topic, partition); partitions that it does not know yet begin where ``starts`` says.
    ``ids`` of topics are kept where none is known. Raises `Fenced`."""
    with translated_errors(), write(engine) as connection:
        row = lock_mine(connection, view, epoch)
        origins = json.loads(row.origins)
        for topic, partition in sorted(starts):
            origin = origins.setdefault(topic, {"id": (ids or {}).get(topic, ""), "from": {}})
            origin["from"].setdefault(str(partition), starts[topic, partition])
        if origins != json.loads(row.origins):
            connection.execute(sa.update(VIEW).where(VIEW.c.name == view).values(origins=json.dumps(origins)))
        known = {(p.topic, p.partition): p.next_offset for p in read_positions(connection, view)}
        fresh = {place: start for place, start in starts.items() if place not in known}
        write_positions(connection, view, [Position(*place, start, None) for place, start in fresh.items()])
    return known | fresh


def remove(engine: Engine, view: str, epoch: int) -> None:
    """Drops a view that is no longer declared, with its positions. Raises `Fenced`."""
    with translated_errors(), write(engine) as connection:
        _drop(connection, lock_mine(connection, view, epoch))
        drop(connection, view)
        connection.execute(sa.delete(VIEW).where(VIEW.c.name == view))


def set_state(engine: Engine, view: str, epoch: int, state: str, reason: str = "") -> None:
    """Says how the view is doing: ``building``, ``live`` or ``stopped`` with a reason. Raises `Fenced`."""
    with translated_errors(), write(engine) as connection:
        lock_mine(connection, view, epoch)
        connection.execute(sa.update(VIEW).where(VIEW.c.name == view).values(state=state, reason=reason))


def note(engine: Engine, view: str, epoch: int, **values: str) -> None:
    """Sets columns of the view's row. Raises `Fenced`."""
    with translated_errors(), write(engine) as connection:
        mine = (VIEW.c.name == view) & (VIEW.c.epoch == epoch)
        if connection.execute(sa.update(VIEW).where(mine).values(**values)).rowcount == 0:
            raise Fenced(view=view, epoch=epoch)


def lock_mine(connection: Connection, view: str, epoch: int) -> sa.Row[tuple[object, ...]]:
    """The view's row, locked. Raises `Fenced` under another epoch."""
    statement = sa.select(VIEW).where(VIEW.c.name == view, VIEW.c.epoch == epoch).with_for_update()
    row = connection.execute(statement).first()
    if row is None:
        raise Fenced(view=view, epoch=epoch)
    return row


def _drop(connection: Connection, row: sa.Row[tuple[object, ...]]) -> None:
    for table in reversed(json.loads(row.tables)):
        sa.Table(table["name"], sa.MetaData()).drop(connection, checkfirst=True)
    for kept in BY_VIEW:
        connection.execute(sa.delete(kept).where(kept.c.view == row.name))
