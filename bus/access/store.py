"""Grants and rule revisions in the governance database, with a record of every change.

A decision reads one tiny row in the same request (`revisions`), so a revocation is effective with its
commit; the grants of a consumer on a view are read again only when that row moved.

Nothing that runs again and again looks at all grants: a hundred thousand shall cost what a hundred do. A pair is
looked up by an index, and of the grants of streams only those that changed are read again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.access.facts import refuse_inexact
from bus.access.revisions_store import METADATA as REVISIONS
from bus.access.revisions_store import SELECT_REVISIONS, Revisions, one_at_a_time, raise_revision, revisions_in
from bus.access.streamed_store import Streamed
from bus.access.tables_store import CHANGES, GRANTS, bring_up_to_date, grant_of, row_of
from bus.core.grants import Grant, GrantSet, refuse_conflicts
from bus.errors import GrantConflict, NotFound
from bus.infra.database import create_tables, translated_errors, write
from bus.infra.held import HeldRead

__all__ = ["CHANGES", "Change", "GrantStore", "PairGrants"]

MAX_CACHED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Change:
    """What applying a set did: ids of grants."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    revoked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PairGrants:
    """The grants of one consumer on one view, and a digest of them."""

    grants: tuple[Grant, ...]
    digest: str


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class GrantStore:
    """Grants of all sets. Methods are synchronous and may be called from any thread.

    Raises `DatabaseUnavailable` from all of them. ``clock`` gives the instant that changes are recorded with.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], dt.datetime] = _utc_now) -> None:
        self.engine = engine
        self._clock = clock
        self._pairs: OrderedDict[tuple[str, str], tuple[int, PairGrants]] = OrderedDict()
        self._lock = threading.Lock()
        self._streamed = Streamed()
        create_tables(engine, REVISIONS)
        bring_up_to_date(engine)

    def apply(self, grant_set: GrantSet, *, os_user: str) -> Change:
        """Replaces the set of that name, all or nothing; what is gone from it is revoked.

        Raises `GrantConflict` where a grant overlaps one of another set or takes its id, `BadFilter`
        for a condition with a number that OPA would round.
        """
        for grant in grant_set.grants:
            refuse_inexact(grant.rows)
        with translated_errors(), write(self.engine) as connection:
            one_at_a_time(connection)
            own = sa.select(GRANTS).where(GRANTS.c.set_name == grant_set.name)
            before = {row.id: row for row in connection.execute(own)}
            self._refuse_conflicts(connection, grant_set)
            change = _difference(before, grant_set)
            if change.added or change.changed or change.revoked:
                self._record(connection, before, grant_set, change, os_user)
        return change

    def _refuse_conflicts(self, connection: Connection, grant_set: GrantSet) -> None:
        ids = [grant.id for grant in grant_set.grants]
        others = sa.select(GRANTS).where(GRANTS.c.set_name != grant_set.name)
        taken = connection.execute(others.where(GRANTS.c.id.in_(ids)).limit(1)).first()
        if taken is not None:
            raise GrantConflict(first=f"{taken.set_name}/{taken.id}", second=f"{grant_set.name}/{taken.id}")
        for consumer, view in sorted({(grant.consumer, grant.view) for grant in grant_set.grants}):
            pair = others.where(GRANTS.c.consumer == consumer, GRANTS.c.view == view)
            mine = [grant for grant in grant_set.grants if (grant.consumer, grant.view) == (consumer, view)]
            refuse_conflicts([*(grant_of(row) for row in connection.execute(pair)), *mine])

    def _record(
        self, connection: Connection, before: Mapping[str, Any], grant_set: GrantSet, change: Change, os_user: str
    ) -> None:
        revision = raise_revision(connection, "grants", self._clock())
        by_id = {grant.id: grant for grant in grant_set.grants}
        for grant_id in change.revoked:
            _delete(connection, before[grant_id], revision, self._clock(), by=os_user, reason="gone from its set")
        for name, ids in (("added", change.added), ("changed", change.changed)):
            rows = [row_of(by_id[grant_id]) for grant_id in ids]
            if name == "changed":
                for grant_id in ids:
                    connection.execute(GRANTS.delete().where(GRANTS.c.id == grant_id))
            _add(connection, rows, revision, self._clock(), change=name, by=os_user)

    def revoke(self, grant_id: str, officer: str, reason: str) -> None:
        """Takes one grant back, effective with the return. Raises `NotFound`."""
        with translated_errors(), write(self.engine) as connection:
            one_at_a_time(connection)
            row = connection.execute(sa.select(GRANTS).where(GRANTS.c.id == grant_id)).first()
            if row is None:
                raise NotFound(what=f"grant '{grant_id}'")
            revision = raise_revision(connection, "grants", self._clock())
            _delete(connection, row, revision, self._clock(), by=officer, reason=reason)

    def active(self, consumer: str, view: str, at: dt.datetime) -> tuple[Grant, ...]:
        """The consumer's grants on the view that hold at the instant (aware)."""
        found = self.pair(consumer, view, self.revisions().grants)
        return tuple(grant for grant in found.grants if grant.active(at))

    def pair(self, consumer: str, view: str, revision: int) -> PairGrants:
        """All grants of the pair, as of at least ``revision``; read again only when that moved."""
        with self._lock:
            known = self._pairs.get((consumer, view))
        if known is not None and known[0] == revision:
            return known[1]
        # sorted here: asked for an order by id, SQLite may walk all grants of the view, since their index is in it
        query = sa.select(GRANTS).where(GRANTS.c.consumer == consumer, GRANTS.c.view == view)
        with translated_errors(), self.engine.connect() as connection:
            rows = sorted(connection.execute(query), key=lambda row: row.id)
        digest = hashlib.sha256("\n".join(_signature(row) for row in rows).encode()).hexdigest()
        # some grant changed, seldom one of these: reading a document is most of what this costs
        same = known is not None and known[1].digest == digest
        found = known[1] if known is not None and same else PairGrants(tuple(grant_of(row) for row in rows), digest)
        with self._lock:
            self._pairs[(consumer, view)] = (revision, found)
            self._pairs.move_to_end((consumer, view))
            while len(self._pairs) > MAX_CACHED:
                self._pairs.popitem(last=False)
        return found

    def all(
        self, *, consumer: str | None = None, view: str | None = None, after: str = "", limit: int | None = None
    ) -> tuple[Grant, ...]:
        """Every grant, by id, or those of a consumer or on a view. ``after``: only ids behind this one; ``limit``: so
        many at most. Without a consumer, view or limit it takes time and memory by the number of all grants."""
        query = sa.select(GRANTS).order_by(GRANTS.c.id).limit(limit)
        query = query.where(GRANTS.c.id > after) if after else query
        for column, wanted in ((GRANTS.c.consumer, consumer), (GRANTS.c.view, view)):
            query = query if wanted is None else query.where(column == wanted)
        with translated_errors(), self.engine.connect() as connection:
            return tuple(grant_of(row) for row in connection.execute(query))

    def consumers(self) -> tuple[tuple[str, int], ...]:
        """Who has grants, by id, each with how many."""
        query = sa.select(GRANTS.c.consumer, sa.func.count()).group_by(GRANTS.c.consumer).order_by(GRANTS.c.consumer)
        with translated_errors(), self.engine.connect() as connection:
            return tuple((str(consumer), int(count)) for consumer, count in connection.execute(query))

    def streamed(self) -> tuple[Grant, ...]:
        """Every grant with the channel stream, by id, whether it holds now or not; the same object until one changed.

        Only what the record of changes names since the last call is read again."""
        with translated_errors(), self.engine.connect() as connection:
            return self._streamed.read(connection)

    def last_change(self, grant_id: str) -> tuple[str, str]:
        """What was last done to a grant (added, changed, revoked) and the reason that was given; empty if nothing."""
        columns = (CHANGES.c.change, CHANGES.c.reason)
        query = sa.select(*columns).where(CHANGES.c.grant_id == grant_id).order_by(CHANGES.c.sequence.desc()).limit(1)
        with translated_errors(), self.engine.connect() as connection:
            row = connection.execute(query).first()
        return (row.change, row.reason) if row else ("", "")

    def get(self, grant_id: str) -> Grant:
        """Raises `NotFound`."""
        with translated_errors(), self.engine.connect() as connection:
            row = connection.execute(sa.select(GRANTS).where(GRANTS.c.id == grant_id)).first()
        if row is None:
            raise NotFound(what=f"grant '{grant_id}'")
        return grant_of(row)

    def revision(self) -> int:
        """Raised by every change of grants; 0 before the first."""
        return self.revisions().grants

    def revisions(self) -> Revisions:
        """Both revisions in one small read."""
        with translated_errors(), self.engine.connect() as connection:
            return revisions_in(connection.execute(SELECT_REVISIONS))

    def glance(self) -> Callable[[], Revisions]:
        """`revisions` for a single thread that asks with every request: the cheapest read there is."""
        if self.engine.dialect.name != "sqlite":
            return self.revisions
        held = HeldRead(self.engine, SELECT_REVISIONS)
        return lambda: revisions_in(held.rows())


def _signature(row: Any) -> str:
    """All that a grant is made of."""
    return repr((row.set_name, row.author, row.approver, row.document))


def _difference(before: Mapping[str, Any], grant_set: GrantSet) -> Change:
    after = {grant.id: row_of(grant) for grant in grant_set.grants}

    def changed(grant_id: str) -> bool:
        return any(getattr(before[grant_id], name) != value for name, value in after[grant_id].items())

    return Change(
        _sorted(after.keys() - before.keys()),
        _sorted(grant_id for grant_id in after.keys() & before.keys() if changed(grant_id)),
        _sorted(before.keys() - after.keys()),
    )


def _sorted(ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(ids))


def _delete(connection: Connection, row: Any, revision: int, at: dt.datetime, *, by: str, reason: str) -> None:
    connection.execute(GRANTS.delete().where(GRANTS.c.id == row.id))
    entry = _entry(row._asdict(), revision, at, change="revoked", by=by, reason=reason)
    connection.execute(CHANGES.insert().values(entry))


def _add(
    connection: Connection, rows: Sequence[Mapping[str, Any]], revision: int, at: dt.datetime, *, change: str, by: str
) -> None:
    """Adds and records many in two statements."""
    if rows:
        connection.execute(GRANTS.insert(), rows)
        connection.execute(CHANGES.insert(), [_entry(row, revision, at, change=change, by=by) for row in rows])


def _entry(
    row: Mapping[str, Any], revision: int, at: dt.datetime, *, change: str, by: str, reason: str = ""
) -> dict[str, Any]:
    entry = {name: row[name] for name in ("document", "author", "approver")}
    entry |= {"grant_id": row["id"], "change": change, "by": by, "reason": reason}
    return {**entry, "revision": revision, "at": at.isoformat()}
