"""The grants of streams, kept as they were last read: what changes is read again, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bus.access.tables_store import CHANGES, GRANTS, grant_of
from bus.core.grants import Grant

_LAST: Final = sa.select(sa.func.max(CHANGES.c.sequence))
_PORTION: Final = 500


class Streamed:
    """The grants of streams as of one entry of the record of changes. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # its own: a decision must not wait for what is read here
        self._sequence: int | None = None
        self._by_id: dict[str, Grant] = {}
        self._grants: tuple[Grant, ...] = ()

    def read(self, connection: Connection) -> tuple[Grant, ...]:
        """By id; the same object until one of them changed. A change that is committed between two of the statements
        is read now, and once more with the next call."""
        with self._lock:
            last = int(connection.execute(_LAST).scalar() or 0)
            if self._sequence is None or last < self._sequence:  # fewer entries: a backup was put in their place
                self._keep({grant.id: grant for grant in _with_streams(connection, None)})
            elif last > self._sequence:
                changed = self._since(connection)
                found = {grant.id: grant for grant in _with_streams(connection, changed)}
                if found or not changed.isdisjoint(self._by_id):
                    kept = {name: grant for name, grant in self._by_id.items() if name not in changed}
                    self._keep(kept | found)
            self._sequence = last
            return self._grants

    def _keep(self, by_id: dict[str, Grant]) -> None:
        self._by_id, self._grants = by_id, tuple(by_id[name] for name in sorted(by_id))

    def _since(self, connection: Connection) -> frozenset[str]:
        """The ids of what changed since the last call."""
        query = sa.select(CHANGES.c.grant_id).where(CHANGES.c.sequence > self._sequence)
        return frozenset(connection.execute(query).scalars())


def _with_streams(connection: Connection, ids: frozenset[str] | None) -> Iterator[Grant]:
    """Grants with the channel stream; ``ids`` None: of all."""
    query = sa.select(GRANTS).where(GRANTS.c.streamed.is_(True))
    ordered = sorted(ids or ())
    parts = [ordered[start : start + _PORTION] for start in range(0, len(ordered), _PORTION)]
    for chosen in [query] if ids is None else [query.where(GRANTS.c.id.in_(part)) for part in parts]:
        yield from (grant_of(row) for row in connection.execute(chosen))
