"""What governance keeps of its own in the governance database, and every statement on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

METADATA: Final = sa.MetaData()
DECLASSIFICATIONS: Final = sa.Table(
    "governance_declassification",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("view", sa.Text, nullable=False),
    sa.Column("field", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("sealed", sa.Text, nullable=False),  # the signed record; once revoked, without its signature
    sa.Column("revoked", sa.Text, nullable=False),  # when, by whom and why; empty while in force
)


@dataclass(frozen=True, slots=True)
class Kept:
    """A stored declassification; ``revoked`` is empty while it is in force."""

    id: str
    view: str
    field: str
    source: str
    sealed: str
    revoked: str


def kept(connection: Connection) -> list[Kept]:
    """Every declassification, by view and field."""
    query = sa.select(DECLASSIFICATIONS).order_by(
        DECLASSIFICATIONS.c.view, DECLASSIFICATIONS.c.field, DECLASSIFICATIONS.c.id
    )
    return [Kept(**row) for row in connection.execute(query).mappings()]


def put(connection: Connection, entries: Sequence[Mapping[str, Any]]) -> None:
    """Adds declassifications; one of the same id is replaced."""
    for values in entries:
        connection.execute(sa.delete(DECLASSIFICATIONS).where(DECLASSIFICATIONS.c.id == values["id"]))
        connection.execute(sa.insert(DECLASSIFICATIONS).values(**values))


def revoke(connection: Connection, found: Kept, why: str) -> None:
    """Takes the signature away, so that no later change of the row can bring it back."""
    unsigned = found.sealed.rpartition(".")[0] + "."
    statement = sa.update(DECLASSIFICATIONS).where(DECLASSIFICATIONS.c.id == found.id)
    connection.execute(statement.values(sealed=unsigned, revoked=why))
