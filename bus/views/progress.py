"""How far a view is in its topics, and how many events it applied: what every transaction on it reads and writes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from operator import attrgetter
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
_place: Final = attrgetter("topic", "partition")
_COUNTED: Final = ("applied", "stale_dropped", "null_key", "quarantined")


class Progress:
    """The positions of one view in the transactions of one builder. They are remembered from one to the next for a
    moment, while ``seq`` shows that no other transaction came between: all that write positions raise it, except that
    how complete a partition is may be noted at any time."""

    def __init__(self, view: str, dialect: str) -> None:
        self._view = view
        self._upsert, self._count = Prepared(_upsert(dialect), dialect), Prepared(_COUNT, dialect)
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

    def store(self, connection: Connection, positions: Sequence[Position], counts: Counts) -> None:
        """Writes positions that changed, and what was counted. Whoever locks several positions does so by topic and
        partition: nobody waits in a circle."""
        positions = sorted(positions, key=_place)
        if positions and connection.dialect.name == "postgresql":
            columns = zip(*((self._view, *_of(position)) for position in positions), strict=True)
            arrays = zip(_ARROW.items(), columns, strict=True)
            self._upsert.run(connection, {name: encoded(pa.array(values, kind)) for (name, kind), values in arrays})
        elif positions:
            rows = [{"view": self._view, **dict(zip(_NAMES, _of(position), strict=True))} for position in positions]
            self._upsert.run_many(connection, rows)
        changes = {f"of_{name}": getattr(counts, name) for name in _COUNTED}
        if any(changes.values()):
            self._count.run(connection, {"of_name": self._view, **changes})


_COUNT: Final = (
    sa.update(VIEW)
    .where(VIEW.c.name == sa.bindparam("of_name"))
    .values({name: VIEW.c[name] + sa.bindparam(f"of_{name}") for name in _COUNTED})
)


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
        Progress(view, connection.dialect.name).store(connection, positions, Counts())
