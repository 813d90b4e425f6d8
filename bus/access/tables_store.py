"""The tables of grants in the governance database, and how a grant stands in them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.access.revisions_store import one_at_a_time
from bus.core.grants import Grant, parse_grant_set
from bus.infra.database import create_tables, translated_errors, write

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
    sa.Column("streamed", sa.Boolean),  # whether the channel stream is among its channels; null: not looked at yet
    sa.Index("access_grants_pair", "consumer", "view"),
)
# beside the table, so that one of an earlier version gets them too
_INDEXES: Final = (
    sa.Index("access_grants_streamed", GRANTS.c.streamed, GRANTS.c.id),
    sa.Index("access_grants_view", GRANTS.c.view),
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
_NOT_LOOKED_AT: Final = sa.select(GRANTS).where(GRANTS.c.streamed.is_(None))


def bring_up_to_date(engine: Engine) -> None:
    """Makes the tables, and what tables of an earlier version lack. Raises `DatabaseUnavailable`."""
    create_tables(engine, METADATA)
    with translated_errors(), engine.connect() as connection:
        there = {index["name"] for index in sa.inspect(connection).get_indexes(GRANTS.name)}
        if {index.name for index in _INDEXES} <= there and connection.execute(_NOT_LOOKED_AT.limit(1)).first() is None:
            return
    with translated_errors(), write(engine) as connection:
        one_at_a_time(connection)
        for index in _INDEXES:
            index.create(connection, checkfirst=True)
        _look(connection)


def _look(connection: Connection) -> None:
    for row in connection.execute(_NOT_LOOKED_AT).all():
        streamed = "stream" in grant_of(row).channels
        connection.execute(GRANTS.update().where(GRANTS.c.id == row.id).values(streamed=streamed))


def _plain(value: Any) -> str:
    """Dates and times of a YAML document as JSON text."""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat() if value.tzinfo else value.isoformat()
    if isinstance(value, dt.date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot stand in a grant")


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, default=_plain, sort_keys=True, ensure_ascii=False, allow_nan=False)


def grant_of(row: Any) -> Grant:
    """The grant of a row of `GRANTS`."""
    document = {"set": row.set_name, "author": row.author, "approver": row.approver}
    return parse_grant_set({**document, "grants": [json.loads(row.document)]}).grants[0]


def row_of(grant: Grant) -> dict[str, Any]:
    """The row of `GRANTS` of a grant."""
    return {
        "id": grant.id,
        "set_name": grant.set,
        "consumer": grant.consumer,
        "view": grant.view,
        "document": _text(grant.document),
        "author": grant.author,
        "approver": grant.approver,
        "streamed": "stream" in grant.channels,
    }
