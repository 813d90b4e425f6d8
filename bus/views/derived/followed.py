"""What is computed from a view when its tables are swapped for others that were built beside them.

A swap calls `lock_reads` as its first statement, before it locks the view itself, and `follow_swap` once tables and
rows have their new names.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.core.names import without_generation
from bus.errors import DependentFailed, DependentsChanged
from bus.views.catalogue import Shape
from bus.views.derived.dependents import Dependents, stop
from bus.views.derived.graph import NONE, Node, in_order, read_nodes, written
from bus.views.statements import insert_into, temporary
from bus.views.store import VIEW
from bus.views.tables import live_rows, row_table, table_name

_TRIES: Final = 20


def lock_reads(connection: Connection, view: str) -> None:
    """The first statement of a swap: locks the views that this one or its shadow reads, which come before it."""
    nodes = read_nodes(connection)
    generations = [node for node in nodes.values() if without_generation(node.name) == view and node.shape is not None]
    reads = {name for node in generations if node.shape is not None for name in node.shape.view.reads if name in nodes}
    for name in in_order(nodes, reads):
        connection.execute(sa.update(VIEW).where(VIEW.c.name == name).values(seq=VIEW.c.seq + 1))


def follow_swap(connection: Connection, engine: Engine, view: str, *, shadow: str, replaced: str) -> None:
    """Called in the swap's transaction once tables and rows have their new names: what was ``shadow`` has the name of
    the view, what was the view is ``replaced`` (``dependents`` stays with the name). The views looked up
    keep the new tables up to date from now on. The keys whose rows differ are carried into the views computed from this
    one; where columns that these use are others now, they are filled again by whoever holds them."""
    _hand_over(connection, view, shadow, replaced)
    shape = read_nodes(connection)[view].shape
    if shape is None:
        raise DependentsChanged(view=view)
    follower = Dependents(engine, shape)
    touched = None
    for _ in range(_TRIES):
        nodes = follower.relearn(connection)
        if not follower.wants_rows:
            return
        touched = touched if touched is not None else _differing(connection, shape, nodes.get(replaced))
        try:
            with connection.begin_nested():
                follower.carry(connection, touched)
            return
        except DependentFailed as failure:
            stop(connection, failure.members["view"], failure.members["why"])
    raise DependentsChanged(view=view)


def _hand_over(connection: Connection, view: str, shadow: str, replaced: str) -> None:
    """What was registered for the shadow is the view's; nobody keeps the replaced tables up to date."""
    for node in read_nodes(connection).values():
        kept = {name: link for name, link in node.dependents.items() if name not in (view, shadow, replaced)}
        if shadow in node.dependents:
            kept[view] = node.dependents[shadow]
        if kept != node.dependents:
            connection.execute(sa.update(VIEW).where(VIEW.c.name == node.name).values(dependents=written(kept)))
    connection.execute(sa.update(VIEW).where(VIEW.c.name == replaced).values(bases=NONE))


def _differing(connection: Connection, shape: Shape, old: Node | None) -> sa.Table:
    """A temporary table of the view keys whose rows are others in the new table than in the old one."""
    before = old.shape if old is not None else None
    new, replaced = row_table(shape), row_table(before or shape)
    key = [new.c[name] for name in shape.view.key]
    columns = [sa.Column(f"g{i}", part.type, primary_key=True, autoincrement=False) for i, part in enumerate(key)]
    dialect = connection.dialect.name
    touched = temporary(table_name(f"x_{shape.view.name}", shape.fingerprint[:8]), columns, dialect)
    connection.execute(sa.schema.CreateTable(touched, if_not_exists=True))
    connection.execute(sa.delete(touched))
    names = list(touched.columns.keys())
    if before is None:
        connection.execute(sa.insert(touched).from_select(names, sa.select(*key).where(live_rows(new))))
        return touched
    kinds = {(column.name, column.kind, column.scale) for column in before.columns}
    same = [c.name for c in shape.columns if (c.name, c.kind, c.scale) in kinds and c.name not in shape.view.key]
    shown = [
        sa.select(*(table.c[name] for name in (*shape.view.key, *same))).where(live_rows(table))
        for table in (new, replaced)
    ]
    for these, those in (shown, reversed(shown)):
        only = these.except_(those).subquery()
        insert = insert_into(touched, dialect)
        found = sa.select(*(only.c[name] for name in shape.view.key)).where(sa.true())
        connection.execute(insert.from_select(names, found).on_conflict_do_nothing())
    return touched
