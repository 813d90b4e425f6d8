"""How far a view is in its topics, and how many events it applied: what every transaction on it reads and writes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bus.views.merging import Counts
from bus.views.prepared import Prepared, encoded, given
from bus.views.statements import Insert, insert_into
from bus.views.store import POSITION, VIEW, Position, read_positions

Place = tuple[str, int]
_REMEMBERED_S: Final = 1.0
_ARROW: Final = {  # columns of POSITION in their order
    "view": pa.string(),
    "topic": pa.string(),
    "partition": pa.int32(),
    "next_offset": pa.int64(),
    "source_time_ms": pa.int64(),
    "sequenced": pa.bool_(),
    "end_offset": pa.int64(),
    "complete_ms": pa.int64(),
    "known_ms": pa.int64(),
}
_NAMES: Final = tuple(_ARROW)[1:]  # and of a Position
_of: Final = attrgetter(*_NAMES)
_COUNTED: Final = ("applied", "stale_dropped", "null_key", "quarantined")
_counts: Final = attrgetter(*_COUNTED)


@dataclass(frozen=True, slots=True)
class Step:
    """What one transaction changes of a view's progress: positions that moved, and what it counted."""

    view: str
    positions: Sequence[Position]
    counts: Counts


class Progress:
    """The positions of one view in the transactions of one builder. They are remembered from one to the next for a
    moment, while ``seq`` shows that no other transaction came between: all that write positions raise it, except that
    how complete a partition is may be noted at any time."""

    def __init__(self, view: str) -> None:
        self._view = view
        self._known: tuple[int, float, Mapping[Place, Position]] | None = None

    def recall(self, connection: Connection, seq: int) -> Mapping[Place, Position]:
        """The positions in the transaction that raised the view's ``seq`` to this. They are remembered again when it is
        known to be committed."""
        known, self._known = self._known, None
        if known is not None and known[0] == seq - 1 and time.monotonic() < known[1]:
            return known[2]
        return {(p.topic, p.partition): p for p in read_positions(connection, self._view)}

    def remember(self, seq: int, positions: Mapping[Place, Position]) -> None:
        """The transaction is committed, and the view has these positions."""
        self._known = (seq, time.monotonic() + _REMEMBERED_S, positions)


def store(connection: Connection, steps: Sequence[Step]) -> None:
    """Writes what changed of several views' progress at once. Whoever locks several positions does so by view, topic
    and partition: nobody waits in a circle."""
    dialect = connection.dialect.name
    moved = sorted(((s.view, *_of(one)) for s in steps for one in s.positions), key=itemgetter(slice(3)))
    if moved and dialect == "postgresql":
        arrays = zip(_ARROW.items(), zip(*moved, strict=True), strict=True)
        bound = {name: encoded(pa.array(values, kind)) for (name, kind), values in arrays}
        _prepared(dialect)[0].run(connection, bound)
    elif moved:
        _prepared(dialect)[0].run_many(connection, [dict(zip(_ARROW, row, strict=True)) for row in moved])
    counted = [(s.view, *_counts(s.counts)) for s in steps if any(_counts(s.counts))]
    if counted and dialect == "postgresql":
        kinds = (pa.string(), *(pa.int64() for _ in _COUNTED))
        every = zip(("name", *_COUNTED), kinds, zip(*counted, strict=True), strict=True)
        _prepared(dialect)[1].run(connection, {name: encoded(pa.array(values, kind)) for name, kind, values in every})
    elif counted:
        names = ("of_name", *(f"of_{name}" for name in _COUNTED))
        _prepared(dialect)[1].run_many(connection, [dict(zip(names, row, strict=True)) for row in counted])


@lru_cache
def _prepared(dialect: str) -> tuple[Prepared, Prepared]:
    """The statements for positions and for counters, made once."""
    return Prepared(_upsert(dialect), dialect), Prepared(_count(dialect), dialect)


def _count(dialect: str) -> sa.Update:
    names = ("name", *_COUNTED)
    rows = given([VIEW.c[name] for name in names]) if dialect == "postgresql" else None
    row: dict[str, Any] = {name: sa.bindparam(f"of_{name}") if rows is None else rows.c[name] for name in names}
    added = {name: VIEW.c[name] + row[name] for name in _COUNTED}
    return sa.update(VIEW).where(VIEW.c.name == row["name"]).values(added)


def _upsert(dialect: str) -> Insert:
    """Since when a partition is complete is never put back: the worker notes it beside the builder, which remembers."""
    insert = insert_into(POSITION, dialect)
    if dialect == "postgresql":
        source = given(list(POSITION.columns))
        insert = insert.from_select(list(_ARROW), sa.select(*source.c).where(sa.true()))
    changes: dict[str, Any] = {name: insert.excluded[name] for name in _NAMES[2:]}
    noted, new = POSITION.c.complete_ms, insert.excluded.complete_ms
    changes["complete_ms"] = sa.case((noted > new, noted), else_=sa.func.coalesce(new, noted))
    return insert.on_conflict_do_update(index_elements=["view", "topic", "partition"], set_=changes)


def write_positions(connection: Connection, view: str, positions: Sequence[Position]) -> None:
    """Stores the positions of a view."""
    if positions:
        store(connection, [Step(view, positions, Counts())])
