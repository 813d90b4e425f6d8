"""Grants and rule revisions in the governance database, with a record of every change.

A decision reads one tiny row in the same request (`revisions`), so a revocation is effective with its
commit; the grants of a consumer on a view are read again only when that row moved.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.access.facts import refuse_inexact
from bus.access.revisions_store import METADATA as REVISIONS
from bus.access.revisions_store import SELECT_REVISIONS, Revisions, one_at_a_time, raise_revision, revisions_in
from bus.core.grants import Grant, GrantSet, parse_grant_set, refuse_conflicts
from bus.errors import GrantConflict, NotFound
from bus.infra.database import create_tables, translated_errors, write
from bus.infra.held import HeldRead

MAX_CACHED: Final = 10_000
METADATA: Final = sa.MetaData()
GRANTS: Final = sa.Table(
    "access_grants",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("set_name", sa.Text, nullable=False, index=True),
    sa.Column("consumer", sa.Text, nullable=False),
    sa.Column("view", sa.Text, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("approver", sa.Text, nullable=False),
    sa.Index("access_grants_pair", "consumer", "view"),
)
CHANGES: Final = sa.Table(
    "access_grant_changes",
    METADATA,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("change", sa.Text, nullable=False),  # added, changed, revoked
    sa.Column("grant_id", sa.Text, nullable=False, index=True),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("approver", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),  # the operating-system user, or the officer who revoked
    sa.Column("reason", sa.Text, nullable=False),
)


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


def _plain(value: Any) -> str:
    """Dates and times of a YAML document as JSON text."""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat() if value.tzinfo else value.isoformat()
    if isinstance(value, dt.date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot stand in a grant")


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, default=_plain, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _grant(row: Any) -> Grant:
    document = {"set": row.set_name, "author": row.author, "approver": row.approver}
    return parse_grant_set({**document, "grants": [json.loads(row.document)]}).grants[0]


class GrantStore:
    """Grants of all sets. Methods are synchronous and may be called from any thread.

    Raises `DatabaseUnavailable` from all of them. ``clock`` gives the instant that changes are recorded with.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], dt.datetime] = _utc_now) -> None:
        self.engine = engine
        self._clock = clock
        self._pairs: OrderedDict[tuple[str, str], tuple[int, PairGrants]] = OrderedDict()
        self._lock = threading.Lock()
        create_tables(engine, METADATA)
        create_tables(engine, REVISIONS)

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
            refuse_conflicts([*(_grant(row) for row in connection.execute(pair)), *mine])

    def _record(
        self, connection: Connection, before: Mapping[str, Any], grant_set: GrantSet, change: Change, os_user: str
    ) -> None:
        revision = raise_revision(connection, "grants", self._clock())
        by_id = {grant.id: grant for grant in grant_set.grants}
        for grant_id in change.revoked:
            _delete(connection, before[grant_id], revision, self._clock(), by=os_user, reason="gone from its set")
        for name, ids in (("added", change.added), ("changed", change.changed)):
            for grant_id in ids:
                connection.execute(GRANTS.delete().where(GRANTS.c.id == grant_id))
                row = _row(by_id[grant_id])
                connection.execute(GRANTS.insert().values(row))
                _log(connection, row, revision, self._clock(), change=name, by=os_user, reason="")

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
        query = sa.select(GRANTS).where(GRANTS.c.consumer == consumer, GRANTS.c.view == view).order_by(GRANTS.c.id)
        with translated_errors(), self.engine.connect() as connection:
            rows = connection.execute(query).all()
        digest = hashlib.sha256("\n".join(f"{row.set_name} {row.document}" for row in rows).encode()).hexdigest()
        found = PairGrants(tuple(_grant(row) for row in rows), digest)
        with self._lock:
            self._pairs[(consumer, view)] = (revision, found)
            self._pairs.move_to_end((consumer, view))
            while len(self._pairs) > MAX_CACHED:
                self._pairs.popitem(last=False)
        return found

    def all(self) -> tuple[Grant, ...]:
        """Every grant, by id."""
        with translated_errors(), self.engine.connect() as connection:
            return tuple(_grant(row) for row in connection.execute(sa.select(GRANTS).order_by(GRANTS.c.id)))

    def streamed(self) -> tuple[Grant, ...]:
        """Every grant with the channel stream, by id, whether it holds now or not."""
        query = sa.select(GRANTS).where(GRANTS.c.document.like('%"stream"%')).order_by(GRANTS.c.id)
        with translated_errors(), self.engine.connect() as connection:
            found = [_grant(row) for row in connection.execute(query)]
        return tuple(grant for grant in found if "stream" in grant.channels)

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
        return _grant(row)

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


def _row(grant: Grant) -> dict[str, str]:
    return {
        "id": grant.id,
        "set_name": grant.set,
        "consumer": grant.consumer,
        "view": grant.view,
        "document": _text(grant.document),
        "author": grant.author,
        "approver": grant.approver,
    }


def _difference(before: Mapping[str, Any], grant_set: GrantSet) -> Change:
    after = {grant.id: _row(grant) for grant in grant_set.grants}

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
    _log(connection, row._asdict(), revision, at, change="revoked", by=by, reason=reason)


def _log(
    connection: Connection, row: Mapping[str, Any], revision: int, at: dt.datetime, *, change: str, by: str, reason: str
) -> None:
    entry = {name: row[name] for name in ("document", "author", "approver")}
    entry |= {"grant_id": row["id"], "change": change, "by": by, "reason": reason}
    connection.execute(CHANGES.insert().values(revision=revision, at=at.isoformat(), **entry))
