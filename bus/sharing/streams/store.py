"""The streams database: subscriptions with their positions, what each topic shows, and every change of terms.

Members and position commit together. A lost commit is no loss: the process goes back to the position before it and
sends again what it had sent, so the database need not reach the disk at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.contracts.store import insert_new
from bus.infra.database import create_tables, translated_errors, write
from bus.sharing.streams.states import Fenced, Kind, PolicyChange, Shown, SubscriptionState

__all__ = ["PolicyChange", "Shown", "StreamStore", "SubscriptionState"]
METADATA: Final = sa.MetaData()
_ID: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_KEY: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
SUBSCRIPTION: Final = sa.Table(
    "stream_subscription",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("consumer", sa.Text, nullable=False),
    sa.Column("view", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("terms", sa.Text, nullable=False),
    sa.Column("grants", sa.Text, nullable=False),  # ids, comma-separated
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("boundary", sa.BigInteger, nullable=False),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.Text, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("opaque", sa.Boolean, nullable=False),
    sa.Column("unsure", sa.BigInteger, nullable=False),
    sa.Column("problem", sa.Text, nullable=False),
    sa.UniqueConstraint("consumer", "view"),
)
MEMBER: Final = sa.Table(
    "stream_member",
    METADATA,
    sa.Column("view", sa.Text, primary_key=True),
    sa.Column("key", _KEY, primary_key=True),
    sa.Column("subscription", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("hash", sa.BigInteger, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Index("stream_member_of", "subscription", "generation"),
    sqlite_with_rowid=False,  # one change is looked up for all who have it: the rows of a key lie side by side
)
CHANGE: Final = sa.Table(
    "stream_change",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("consumer", sa.Text, nullable=False),
    sa.Column("view", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Index("stream_change_pair", "consumer", "view"),
)
LEASE: Final = sa.Table(
    "stream_lease",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
    sa.Column("held", sa.Boolean, nullable=False),
)
_KEYS_AT_ONCE: Final = 5_000
_FIELDS: Final = tuple(item.name for item in fields(SubscriptionState))
_CHANGE: Final = tuple(item.name for item in fields(PolicyChange) if item.name != "again")


class StreamStore:
    """Reads and writes the streams database. Safe to use from several threads; raises `DatabaseUnavailable`.

    Only the holder of the lease writes: `epoch` fences the others (`Fenced`).
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.epoch = 0
        create_tables(engine, METADATA)

    def subscription(self, consumer: str, view: str) -> SubscriptionState | None:
        """None where there never was one."""
        where = (SUBSCRIPTION.c.consumer == consumer) & (SUBSCRIPTION.c.view == view)
        return next(iter(self._states(where)), None)

    def subscriptions(self) -> list[SubscriptionState]:
        """Every one that there ever was, by consumer and view."""
        return self._states(sa.true())

    def _states(self, where: sa.ColumnElement[bool]) -> list[SubscriptionState]:
        query = sa.select(SUBSCRIPTION).where(where).order_by(SUBSCRIPTION.c.consumer, SUBSCRIPTION.c.view)
        with translated_errors(), self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return [SubscriptionState(**{name: row[name] for name in _FIELDS}) for row in rows]

    def changes(self, consumer: str, view: str, *, limit: int = 100) -> list[PolicyChange]:
        """The newest changes of terms, newest first."""
        pair = (CHANGE.c.consumer == consumer) & (CHANGE.c.view == view)
        query = sa.select(CHANGE).where(pair).order_by(CHANGE.c.id.desc()).limit(limit)
        with translated_errors(), self._engine.connect() as connection:
            return [PolicyChange(*(row[name] for name in _CHANGE)) for row in connection.execute(query).mappings()]

    def last_kind(self, state: SubscriptionState) -> Kind:
        """What the last change of its terms was; started where there was none, or it ended."""
        last = next(iter(self.changes(*state.pair, limit=1)), None)
        return last.kind if last is not None and last.kind != "ended" else "started"

    def members(self, view: str, keys: Sequence[str], only: int | None = None) -> dict[int, dict[str, int]]:
        """Who has these keys, by subscription: the hash of what was delivered, by key. ``only``: one subscription."""
        found: defaultdict[int, dict[str, int]] = defaultdict(dict)
        with translated_errors(), self._engine.connect() as connection:
            for start in range(0, len(keys), _KEYS_AT_ONCE):
                some = MEMBER.c.key.in_(keys[start : start + _KEYS_AT_ONCE])
                query = sa.select(MEMBER.c.subscription, MEMBER.c.key, MEMBER.c.hash).where(MEMBER.c.view == view, some)
                query = query if only is None else query.where(MEMBER.c.subscription == only)
                for subscription, key, hash_ in connection.execute(query):
                    found[subscription][key] = hash_
        return found

    def others(self, state: SubscriptionState, *, limit: int, at_random: bool = False) -> list[str]:
        """Some of the keys that the topic shows and that the present generation has not confirmed; which ones come
        first says nothing of them where they are taken ``at_random``."""
        stale = (MEMBER.c.subscription == state.id) & (MEMBER.c.generation < state.generation)
        query = sa.select(MEMBER.c.key).where(stale).limit(limit)
        with translated_errors(), self._engine.connect() as connection:
            return list(connection.scalars(query.order_by(sa.func.random()) if at_random else query))

    def count(self, state: SubscriptionState) -> int:
        """How many rows the topic shows."""
        query = sa.select(sa.func.count()).where(MEMBER.c.subscription == state.id)
        with translated_errors(), self._engine.connect() as connection:
            return int(connection.scalar(query) or 0)

    def save(self, state: SubscriptionState, change: PolicyChange | None = None) -> SubscriptionState:
        """Writes the subscription, with a change of its terms if there was one; returns it with its id."""
        with translated_errors(), write(self._engine) as connection:
            self._check(connection)
            if change is not None:
                _record(connection, change)
            return _save(connection, state)

    def advance(self, shown: Iterable[Shown]) -> None:
        """What was sent, and the positions after it, in one transaction: a few statements, however many there are."""
        with translated_errors(), write(self._engine) as connection:
            self._check(connection)
            put, gone, same, states = [], [], [], []
            for page in shown:
                state = page.subscription
                if state.id:
                    states.append({f"n_{name}": value for name, value in _members(state).items()})
                else:
                    state = _save(connection, state)
                view, id_, generation = state.view, state.id, state.generation
                put += [(view, key, id_, hash_, generation) for key, hash_ in page.put.items()]
                gone += [{"v": state.view, "k": key, "s": state.id} for key in page.gone]
                own = {"v": state.view, "s": state.id, "g": state.generation}
                same += [{**own, "k": key} for key in page.same]
            if states:
                connection.execute(_SAVE, states)
            if put:
                _put(connection, put)
            if gone:
                connection.execute(_FORGET, gone)
            if same:
                connection.execute(_CONFIRM, same)

    def forget(self, state: SubscriptionState) -> None:
        """Forgets all that the topic showed."""
        with translated_errors(), write(self._engine) as connection:
            self._check(connection)
            connection.execute(sa.delete(MEMBER).where(MEMBER.c.subscription == state.id))

    def acquire(self, seen: int | None) -> int | None:
        """Takes the lease if nobody holds it, or if its beat is still the one ``seen``: then this process writes. Else
        its beat, to be looked at again."""
        with translated_errors(), write(self._engine) as connection:
            row = connection.execute(sa.select(LEASE)).first()
            if row is None:
                connection.execute(insert_new(connection, LEASE).values(id=1, epoch=0, beat=0, held=False))
                row = connection.execute(sa.select(LEASE)).one()
            if row.held and row.beat != seen:
                return int(row.beat)
            self.epoch = row.epoch + 1
            connection.execute(sa.update(LEASE).values(epoch=self.epoch, beat=row.beat + 1, held=True))
        return None

    def beat(self, *, held: bool = True) -> None:
        """Renews the lease, or gives it back. Raises `Fenced` where another has it."""
        with translated_errors(), write(self._engine) as connection:
            mine = sa.update(LEASE).where(LEASE.c.epoch == self.epoch)
            if not connection.execute(mine.values(beat=LEASE.c.beat + 1, held=held)).rowcount:
                raise Fenced()

    def _check(self, connection: Connection) -> None:
        if self.epoch and connection.scalar(sa.select(LEASE.c.epoch)) != self.epoch:
            raise Fenced()


_ONE: Final = (
    (MEMBER.c.view == sa.bindparam("v"))
    & (MEMBER.c.key == sa.bindparam("k"))
    & (MEMBER.c.subscription == sa.bindparam("s"))
)
_SAVE: Final = (
    sa.update(SUBSCRIPTION)
    .where(SUBSCRIPTION.c.id == sa.bindparam("n_id"))
    .values({name: sa.bindparam(f"n_{name}") for name in _FIELDS if name != "id"})
)
_FORGET: Final = sa.delete(MEMBER).where(_ONE)
_CONFIRM: Final = sa.update(MEMBER).where(_ONE).values(generation=sa.bindparam("g"))


def _put(connection: Connection, rows: Sequence[tuple[str, str, int, int, int]]) -> None:
    """Members as view, key, subscription, hash and generation. The statement goes to the driver as it is: SQLAlchemy
    takes longer to bind a row than SQLite to write it."""
    insert = insert_new(connection, MEMBER)
    new = {name: insert.excluded[name] for name in ("hash", "generation")}
    upsert = insert.on_conflict_do_update(index_elements=list(MEMBER.primary_key), set_=new)
    compiled: Any = upsert.compile(dialect=connection.dialect)
    names, order = [column.name for column in MEMBER.columns], compiled.positiontup
    if order is None:
        connection.exec_driver_sql(str(compiled), [dict(zip(names, row, strict=True)) for row in rows])
    else:
        places = [names.index(name) for name in order]
        same = places == list(range(len(names)))
        connection.exec_driver_sql(
            str(compiled), list(rows) if same else [tuple(row[p] for p in places) for row in rows]
        )


def _record(connection: Connection, change: PolicyChange) -> None:
    """A change that is tried again takes the place of its last try: its boundary is another now."""
    pair = (CHANGE.c.consumer == change.consumer) & (CHANGE.c.view == change.view)
    query = sa.select(CHANGE.c.id, CHANGE.c.kind).where(pair).order_by(CHANGE.c.id.desc()).limit(1)
    last = connection.execute(query).first() if change.again else None
    if last is not None and last.kind == change.kind:
        connection.execute(sa.delete(CHANGE).where(CHANGE.c.id == last.id))
    connection.execute(CHANGE.insert().values(**{name: getattr(change, name) for name in _CHANGE}))


def _members(value: Any) -> dict[str, Any]:
    return {item.name: getattr(value, item.name) for item in fields(value)}


def _save(connection: Connection, state: SubscriptionState) -> SubscriptionState:
    values = _members(state)
    del values["id"]
    if state.id:
        connection.execute(sa.update(SUBSCRIPTION).where(SUBSCRIPTION.c.id == state.id).values(**values))
        return state
    return replace(
        state, id=int(connection.scalar(sa.insert(SUBSCRIPTION).values(**values).returning(SUBSCRIPTION.c.id)))
    )
