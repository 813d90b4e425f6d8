"""What could not be applied, kept with its reasons (others say DLQ).

Two databases have the table: governance keeps what a publisher refused (origin ``publish``), views what came
straight to a topic and could not be applied (origin ``topic``), in the transaction that moves past it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bus.contracts.store import insert_new

Origin = Literal["publish", "topic"]
ORIGINS: Final[tuple[Origin, ...]] = ("publish", "topic")
_LIMIT: Final = 2**63


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One event or row that was set aside.

    ``reasons``: objects with ``field``, ``expected``, ``received``. Origin ``topic`` has topic, partition and offset;
    origin ``publish`` has ``line`` (from 1). ``key``: the record key as text. ``payload``: the raw bytes,
    for origin ``publish`` the record as JSON.
    """

    origin: Origin
    entity: str
    reasons: list[dict[str, Any]]
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    line: int | None = None
    key: str | None = None
    payload: bytes | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry as it lies in quarantine. ``at_ms``: when it was put there, milliseconds since 1970."""

    id: int
    at_ms: int
    entry: Quarantined


def quarantine_table(metadata: sa.MetaData) -> sa.Table:
    """The table ``quarantine``, to be made with the database's other tables."""
    return sa.Table(
        "quarantine",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("entity", sa.Text, nullable=False),
        sa.Column("reasons", sa.Text, nullable=False),
        sa.Column("topic", sa.Text),
        sa.Column("partition", sa.Integer),
        sa.Column("offset", sa.BigInteger),
        sa.Column("line", sa.BigInteger),
        sa.Column("key", sa.Text),
        sa.Column("payload", sa.LargeBinary),
        sa.UniqueConstraint("topic", "partition", "offset"),  # nulls are distinct: rows of origin publish never clash
        sqlite_autoincrement=True,
    )


def put(connection: Connection, table: sa.Table, entries: Sequence[Quarantined]) -> None:
    """Adds the entries; one that is there already (same topic, partition, offset) is left as it is."""
    if not entries:
        return
    now_ms = time.time_ns() // 1_000_000
    statement = insert_new(connection, table).on_conflict_do_nothing(index_elements=["topic", "partition", "offset"])
    connection.execute(statement, [_row(entry, now_ms) for entry in entries])


def count(connection: Connection, table: sa.Table) -> int:
    """How many entries there are."""
    return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def recent(connection: Connection, table: sa.Table, limit: int = 100) -> list[Kept]:
    """The newest entries, newest first."""
    rows = connection.execute(sa.select(table).order_by(table.c.id.desc()).limit(limit)).mappings()
    return [_kept(dict(row)) for row in rows]


def as_json(entry: Quarantined) -> dict[str, Any]:
    """An entry as JSON can carry it: ``payload`` in hexadecimal."""
    payload = entry.payload.hex() if entry.payload is not None else None
    return {**_fields(entry), "reasons": entry.reasons, "payload": payload}


def from_json(doc: Mapping[str, Any]) -> Quarantined:
    """The inverse of `as_json`. Raises TypeError, KeyError or ValueError for anything else."""
    payload = doc.get("payload")
    entry = Quarantined(**{**doc, "payload": bytes.fromhex(payload) if payload is not None else None})
    if not isinstance(entry.reasons, list) or not all(isinstance(reason, dict) for reason in entry.reasons):
        raise TypeError("reasons are objects")
    if not all(text is None or isinstance(text, str) for text in (entry.topic, entry.key)):
        raise TypeError("topic and key are texts")
    if not isinstance(entry.entity, str) or "\x00" in entry.entity:
        raise TypeError("the entity is an id")
    for number in (entry.partition, entry.offset, entry.line):
        if number is not None and (type(number) is not int or not 0 <= number < _LIMIT):
            raise TypeError("places are numbers")
    return entry


def _fields(entry: Quarantined) -> dict[str, Any]:
    names = ("origin", "entity", "topic", "partition", "offset", "line", "key", "payload")
    return {name: getattr(entry, name) for name in names}


def _row(entry: Quarantined, now_ms: int) -> dict[str, Any]:
    # U+0000 is valid in JSON and in a key, not in PostgreSQL's text.
    key = entry.key.replace("\x00", "\N{SYMBOL FOR NULL}") if entry.key is not None else None
    return {**_fields(entry), "key": key, "at_ms": now_ms, "reasons": json.dumps(entry.reasons)}


def _kept(row: Mapping[str, Any]) -> Kept:
    entry = {name: value for name, value in row.items() if name not in ("id", "at_ms")}
    payload = bytes(entry["payload"]) if entry["payload"] is not None else None
    return Kept(
        row["id"], row["at_ms"], Quarantined(**{**entry, "reasons": json.loads(entry["reasons"]), "payload": payload})
    )
