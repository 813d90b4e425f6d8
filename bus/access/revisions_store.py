"""The revisions in force, of rules and of grants: the one small row each that every decision reads."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

METADATA: Final = sa.MetaData()
REVISIONS: Final = sa.Table(
    "access_revisions",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),  # grants, rules
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("content", sa.Text, nullable=False),  # hash of the rules
    sa.Column("at", sa.Float, nullable=False),  # seconds since 1970
)
SELECT_REVISIONS: Final = sa.select(REVISIONS.c.name, REVISIONS.c.revision, REVISIONS.c.at)


@dataclass(frozen=True, slots=True)
class Revisions:
    """The revisions in force. ``rules_at``: when the rules got theirs, seconds since 1970."""

    rules: int
    grants: int
    rules_at: float


def revisions_in(rows: Iterable[Any]) -> Revisions:
    found = {name: (revision, at) for name, revision, at in rows}
    (rules, at), (grants, _) = found.get("rules", (0, 0.0)), found.get("grants", (0, 0.0))
    return Revisions(rules, grants, at)


def raise_revision(connection: Connection, name: str, at: dt.datetime, content: str = "") -> int:
    """The next revision of ``name`` (grants, rules), in force with the transaction's commit."""
    query = sa.select(REVISIONS.c.revision).where(REVISIONS.c.name == name)
    revision = int(connection.execute(query).scalar() or 0) + 1
    values = {"revision": revision, "content": content, "at": at.timestamp()}
    if revision == 1:
        connection.execute(REVISIONS.insert().values(name=name, **values))
    else:
        connection.execute(REVISIONS.update().where(REVISIONS.c.name == name).values(values))
    return revision


def one_at_a_time(connection: Connection) -> None:
    """SQLite's write lock is taken by `write`; PostgreSQL would let two changes miss each other's grants."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7205762)"))
