"""The fixed tables of the views database: views with their leases, positions, quarantine; and what readers ask them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.contracts.quarantine import Kept, quarantine_table, recent
from bus.infra.database import create_tables, translated_errors

State = Literal["building", "live", "stopped"]
_TEXT: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")  # ordered by bytes on both databases
METADATA: Final = sa.MetaData()
VIEW: Final = sa.Table(
    "view",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False, server_default=""),
    sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("seq", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("owner", sa.Text),
    sa.Column("beat", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("crashes", sa.Integer, nullable=False, server_default="0"),
    sa.Column("state", sa.Text, nullable=False, server_default="building"),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("tables", sa.Text, nullable=False, server_default="[]"),
    sa.Column("sources", sa.Text, nullable=False, server_default="{}"),
    sa.Column("bases", sa.Text, nullable=False, server_default="{}"),
    sa.Column("dependents", sa.Text, nullable=False, server_default="{}"),  # views computed from this one, see `graph`
    sa.Column("applied", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("stale_dropped", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("null_key", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("quarantined", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("shape", sa.Text, nullable=False, server_default=""),  # what the tables were made for, see `applied`
    sa.Column("origins", sa.Text, nullable=False, server_default="{}"),  # by topic: its id, each partition's first
    sa.Column("request", sa.Text, nullable=False, server_default=""),  # the last rebuild or undo that was taken up
    sa.Column("rebuild", sa.Text, nullable=False, server_default="{}"),  # how that one goes, or how it ended
    sa.Column("undone", sa.Text, nullable=False, server_default=""),  # a fingerprint that was taken back by an undo
    sa.Column("log_from", sa.BigInteger),  # the log of its changes is complete after this seq; null: there is none
)
OF_THE_NAME: Final = (
    *("name", "dependents", "epoch", "seq", "owner", "beat", "crashes", "request", "rebuild", "undone", "log_from"),
)
"""Columns of a view's row that stay where they are when its tables are swapped; all others follow the tables."""
POSITION: Final = sa.Table(
    "position",
    METADATA,
    sa.Column("view", sa.Text, primary_key=True),
    sa.Column("topic", sa.Text, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
    sa.Column("source_time_ms", sa.BigInteger),
    sa.Column("sequenced", sa.Boolean, nullable=False),
    sa.Column("end_offset", sa.BigInteger, nullable=False),
    sa.Column("complete_ms", sa.BigInteger),
    sa.Column("known_ms", sa.BigInteger),
)
WORKER: Final = sa.Table(
    "worker",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("beat", sa.BigInteger, nullable=False),
)
QUARANTINE: Final = quarantine_table(METADATA)
DISCREPANCY: Final = sa.Table(
    "discrepancy",
    METADATA,
    sa.Column("view", sa.Text, primary_key=True),
    sa.Column("key", _TEXT, primary_key=True),
    sa.Column("field", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("other", sa.Text, primary_key=True),
    sa.Column("shown", sa.Text, nullable=False),
    sa.Column("reported", sa.Text, nullable=False),
    sa.Column("topic", sa.Text, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("offset", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("opened_ms", sa.BigInteger, nullable=False),
    sa.Column("closed_ms", sa.BigInteger),
)
sa.Index(
    "discrepancy_open",
    *(DISCREPANCY.c[name] for name in ("view", "key", "field", "other")),
    unique=True,
    sqlite_where=DISCREPANCY.c.closed_ms.is_(None),
    postgresql_where=DISCREPANCY.c.closed_ms.is_(None),
)
BY_VIEW: Final = (POSITION, DISCREPANCY)  # what a view has in fixed tables, by its name in the column `view`


@dataclass(frozen=True, slots=True)
class ViewState:
    """How a view is doing. ``rows``: what readers can see; ``lag``: events known to wait; ``fingerprint``: of the
    shape its tables have (another than the declared one: not rebuilt yet). Counters since the last rebuild."""

    name: str
    state: State
    seq: int
    rows: int
    epoch: int
    worker: str | None
    reason: str
    fingerprint: str = ""
    lag: int = 0
    applied: int = 0
    stale_dropped: int = 0
    null_key: int = 0
    quarantined: int = 0
    bases: Mapping[str, int] | None = None
    shape: str = ""
    rebuild: Mapping[str, Any] | None = None
    undone: str = ""
    request: str = ""
    origins: Mapping[str, Any] | None = None
    log_from: int | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """Where a view is in one partition. ``source_time_ms``: time of the newest event applied; ``end_offset``: where the
    partition ended when the worker last looked; ``complete_ms``: when everything there was had been applied;
    ``known_ms``: since when the newest event of a history is known."""

    topic: str
    partition: int
    next_offset: int
    source_time_ms: int | None
    sequenced: bool = False
    end_offset: int = 0
    complete_ms: int | None = None
    known_ms: int | None = None


class ViewStore:
    """What the views database says about views. Any number of readers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._there = False
        if not _read_only(engine):
            create_tables(engine, METADATA)

    @property
    def engine(self) -> Engine:
        return self._engine

    def states(self, *, count: bool = True) -> dict[str, ViewState]:
        """The state of every view that a worker has taken up, by name. ``count=False``: ``rows`` is 0, no counting."""
        with translated_errors(), self._engine.connect() as connection:
            if not self._is_there(connection):
                return {}
            lags = {row[0]: row[1] for row in connection.execute(_LAGS)}
            rows = connection.execute(sa.select(VIEW).order_by(VIEW.c.name)).mappings().all()
            counted = {row["name"]: _count(connection, row) if count else 0 for row in rows}
        return {row["name"]: _state(row, counted[row["name"]], int(lags.get(row["name"]) or 0)) for row in rows}

    def state(self, view: str) -> ViewState | None:
        """The state of one view without counting its rows; None before a worker has taken it up."""
        with translated_errors(), self._engine.connect() as connection:
            if not self._is_there(connection):
                return None
            row = connection.execute(sa.select(VIEW).where(VIEW.c.name == view)).mappings().first()
            lag = connection.execute(_LAGS.where(POSITION.c.view == view)).first()
        return _state(row, 0, int(lag[1]) if lag else 0) if row else None

    def fingerprints(self) -> dict[str, str]:
        """Of the shapes that the views' tables have, by view, shadows included."""
        with translated_errors(), self._engine.connect() as connection:
            if not self._is_there(connection):
                return {}
            return dict(connection.execute(sa.select(VIEW.c.name, VIEW.c.fingerprint)).all())

    def positions(self, view: str) -> list[Position]:
        """The positions of a view, by topic and partition."""
        with translated_errors(), self._engine.connect() as connection:
            return read_positions(connection, view) if self._is_there(connection) else []

    def freshness(self, view: str) -> dict[str, float]:
        """Seconds that the view may be behind its topics, by source: time since it was last known to hold everything
        there was; ``inf`` before it did for the first time. And by view that it reads, which it is as far behind as."""
        with translated_errors(), self._engine.connect() as connection:
            if not self._is_there(connection):
                return {}
            row = connection.execute(sa.select(VIEW.c.bases, VIEW.c.sources).where(VIEW.c.name == view)).first()
            if row is None:
                return {}
            read = {base: max(_behind(connection, base).values(), default=0.0) for base in json.loads(row.bases)}
            behind = _behind(connection, view)
            own = {source: behind.get(topic, float("inf")) for source, topic in json.loads(row.sources).items()}
            return {name: max(own.get(name, 0.0), read.get(name, 0.0)) for name in {**own, **read}}

    def quarantined(self) -> int:
        """How many events are set aside in the views database (origin ``topic``)."""
        with translated_errors(), self._engine.connect() as connection:
            if not self._is_there(connection):
                return 0
            return connection.scalar(sa.select(sa.func.count()).select_from(QUARANTINE)) or 0

    def set_aside(self, limit: int = 100) -> list[Kept]:
        """The newest events set aside in the views database, newest first."""
        with translated_errors(), self._engine.connect() as connection:
            return recent(connection, QUARANTINE, limit) if self._is_there(connection) else []

    def _is_there(self, connection: Connection) -> bool:
        """Whether the fixed tables were made: a reader may start before the first worker."""
        self._there = self._there or sa.inspect(connection).has_table(VIEW.name)
        return self._there


_LAGS: Final = sa.select(
    POSITION.c.view,
    sa.func.sum(
        sa.case(
            (POSITION.c.end_offset > POSITION.c.next_offset, POSITION.c.end_offset - POSITION.c.next_offset), else_=0
        )
    ),
).group_by(POSITION.c.view)


def _read_only(engine: Engine) -> bool:
    with translated_errors(), engine.connect() as connection:
        statement = "PRAGMA query_only" if engine.dialect.name == "sqlite" else "SHOW transaction_read_only"
        return connection.exec_driver_sql(statement).scalar() in (1, "on")


def _count(connection: Connection, row: sa.RowMapping) -> int:
    """The rows that readers can see; the first of the view's tables is the one of its rows."""
    tables = json.loads(row["tables"])
    if not tables:
        return 0
    live = sa.column("_live", sa.Boolean)
    statement = sa.select(sa.func.count()).select_from(sa.table(tables[0]["name"]))
    return connection.scalar(statement.where(live.is_(True)) if tables[0]["live"] else statement) or 0


def _state(row: sa.RowMapping, rows: int, lag: int) -> ViewState:
    return ViewState(
        name=row["name"],
        state=row["state"],
        seq=row["seq"],
        rows=rows,
        epoch=row["epoch"],
        worker=row["owner"],
        reason=row["reason"],
        fingerprint=row["fingerprint"],
        lag=lag,
        applied=row["applied"],
        stale_dropped=row["stale_dropped"],
        null_key=row["null_key"],
        quarantined=row["quarantined"],
        bases=json.loads(row["bases"]),
        shape=row["shape"],
        rebuild=json.loads(row["rebuild"]) or None,
        undone=row["undone"],
        request=row["request"],
        origins=json.loads(row["origins"]),
        log_from=row["log_from"],
    )


_POSITIONS: Final = (
    sa.select(*(POSITION.c[field.name] for field in fields(Position)))
    .where(POSITION.c.view == sa.bindparam("of"))
    .order_by(POSITION.c.topic, POSITION.c.partition)
)


def read_positions(connection: Connection, view: str) -> list[Position]:
    """The positions of a view inside a transaction."""
    return [Position(*row) for row in connection.execute(_POSITIONS, {"of": view})]


def _behind(connection: Connection, view: str) -> dict[str, float]:
    now, behind = time.time() * 1_000, dict[str, float]()
    for position in read_positions(connection, view):
        seconds = float("inf") if position.complete_ms is None else max(0.0, (now - position.complete_ms) / 1_000)
        behind[position.topic] = max(behind.get(position.topic, 0.0), seconds)
    return behind
