"""Which view is computed from which, as the views database has it: for every view its shape, who reads it, since when.

``dependents`` of a VIEW row: by view, what its tables were made for (`link_of`). ``bases`` of the row of a view that
reads others: their ``seq`` when it was filled from them; ``{}`` means that nobody keeps it up to date now.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bus.core.views import Measure, View
from bus.views.applied import read_shape
from bus.views.catalogue import Shape
from bus.views.store import VIEW
from bus.views.tables import is_one_level

NONE = "{}"
REFILL = "a view that it reads was made anew: it is filled again"


@dataclass(frozen=True, slots=True)
class Node:
    """One view. ``text``: its ``dependents`` as they are written; ``shape``: of its tables, None without any."""

    name: str
    fingerprint: str
    shape: Shape | None
    text: str
    bases: str
    seq: int
    state: str
    reason: str

    @property
    def dependents(self) -> dict[str, str]:
        """By view: its link."""
        found: dict[str, str] = json.loads(self.text)
        return found

    @property
    def enrolled(self) -> bool:
        """Whether it is kept up to date with the views that it reads."""
        return self.bases != NONE


Nodes = Mapping[str, Node]


def read_nodes(connection: Connection) -> dict[str, Node]:
    """Every view that has a row."""
    names = ("name", "fingerprint", "shape", "dependents", "bases", "seq", "state", "reason")
    rows = connection.execute(sa.select(*(VIEW.c[name] for name in names)))
    return {
        name: Node(name, fingerprint, read_shape(shape, name, fingerprint), text, *rest)
        for name, fingerprint, shape, text, *rest in rows
    }


def written(dependents: Mapping[str, str]) -> str:
    """``dependents`` as they are written and compared."""
    return json.dumps(dict(sorted(dependents.items())))


def shapes_in(nodes: Nodes, view: View) -> dict[str, Shape] | None:
    """The shapes of the views that this one reads; None where one of them has no tables."""
    found = {name: nodes[name].shape for name in view.reads if name in nodes}
    known = {name: shape for name, shape in found.items() if shape is not None}
    return known if len(known) == len(view.reads) else None


def link_of(shape: Shape, bases: Mapping[str, Shape]) -> str:
    """What the statements that keep a view depend on: its own shape, and of the views it reads the key and the columns
    it uses. A view that reads a view made anew with the same link need not be filled from scratch."""
    used = [(name, [_described(bases[name], column) for column in _used(shape.view, bases[name])],
             is_one_level(bases[name])) for name in sorted(bases)]  # fmt: skip
    text = json.dumps([shape.fingerprint, used], default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _used(view: View, base: Shape) -> list[str]:
    name, used = base.view.name, set[str]()
    for over in view.over:
        measured = [measure for measure in view.measures if measure.over == over.name]
        columns = {*view.key, *(measure.field for measure in measured if measure.field)}
        columns |= {column for measure in measured if measure.where for column in measure.where.fields}
        if over.view == name:
            used |= columns | ({over.join.local} if over.join else set())
        if over.join is not None and over.join.view == name:
            used |= columns & set(over.join.bring)
    for lookup in view.lookups:
        if lookup.view == name:
            used |= {field.field for field in view.fields if field.source == lookup.name}
    return [*base.view.key, *sorted((used & set(base.kinds)) - set(base.view.key))]


def _described(shape: Shape, name: str) -> tuple[Any, ...]:
    column = next(column for column in shape.columns if column.name == name)
    return (name, column.kind, column.scale)


def fits(shape: Shape, bases: Mapping[str, Shape]) -> bool:
    """Whether the view can be computed from views of these shapes, which may be older than what is declared."""
    own = {column.name: (column.kind, column.scale) for column in shape.columns}
    view, wanted = shape.view, list[tuple[str, str, Any]]()
    for over in view.over:
        bring = set(over.join.bring) if over.join is not None else set[str]()
        other = over.join.view if over.join is not None else ""
        measured = [measure for measure in view.measures if measure.over == over.name]
        used = [(name, own.get(name)) for name in view.key]
        used += [(measure.field, _figure_kind(measure, own)) for measure in measured if measure.field]
        used += [(name, None) for measure in measured if measure.where for name in measure.where.fields]
        wanted += [(other if name in bring else over.view, name, kind) for name, kind in used]
        wanted += [(over.view, over.join.local, None), (other, over.join.foreign, None)] if over.join else []
    for lookup in view.lookups:
        pairs = zip(bases[lookup.view].view.key, lookup.by, strict=False)
        wanted += [(lookup.view, theirs, own.get(mine)) for theirs, mine in pairs]
        fields = [field for field in view.fields if field.source == lookup.name and field.name not in view.key]
        wanted += [(lookup.view, field.field, own.get(field.name)) for field in fields]
    return all(_has(bases[base], name, kind) for base, name, kind in wanted)


def _figure_kind(measure: Measure, own: Mapping[str, Any]) -> Any:
    return None if measure.function in ("count", "distinct") else own.get(measure.name)


def _has(shape: Shape, name: str, kind: Any) -> bool:
    column = next((column for column in shape.columns if column.name == name), None)
    return column is not None and kind in (None, (column.kind, column.scale))


def in_order(nodes: Nodes, names: Iterable[str]) -> list[str]:
    """In the order in which VIEW rows are locked: each view after those that it reads, then by name. Every transaction
    that locks several keeps to it, so that none waits for another in a circle."""
    depths: dict[str, int] = {}

    def depth(name: str, path: tuple[str, ...] = ()) -> int:
        if name not in depths:
            shape = nodes[name].shape if name in nodes else None
            reads = [read for read in shape.view.reads if read not in path] if shape is not None else []
            depths[name] = 1 + max((depth(read, (*path, name)) for read in reads), default=-1)
        return depths[name]

    return sorted(names, key=lambda name: (depth(name), name))


def followable(nodes: Nodes, base: str, view: str) -> bool:
    """Whether whoever writes ``base`` is to keep ``view`` up to date, as the row of ``base`` says, and can."""
    node = nodes.get(view)
    if node is None or node.shape is None or not node.enrolled:
        return False
    bases = shapes_in(nodes, node.shape.view)
    return bases is not None and nodes[base].dependents.get(view) == link_of(node.shape, bases)


def forsake(connection: Connection, view: str) -> None:
    """The view's tables are other ones now: the views that read it are filled again by whoever holds them, and show
    themselves as building until then. Called with the lock of the view's row."""
    text = connection.scalar(sa.select(VIEW.c.dependents).where(VIEW.c.name == view))
    for name in sorted(json.loads(text or NONE)):
        release(connection, name)
    connection.execute(sa.update(VIEW).where(VIEW.c.name == view).values(dependents=NONE))


def release(connection: Connection, view: str) -> None:
    """Nobody keeps the view up to date any more, until it is filled again."""
    building = sa.case((VIEW.c.state == "live", "building"), else_=VIEW.c.state)
    reason = sa.case((VIEW.c.state == "live", REFILL), else_=VIEW.c.reason)
    kept = sa.update(VIEW).where(VIEW.c.name == view, VIEW.c.bases != NONE)
    connection.execute(kept.values(bases=NONE, state=building, reason=reason))
