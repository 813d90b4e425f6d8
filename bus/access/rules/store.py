"""The rules that were published, in the governance database: every revision with its files, none ever changed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

METADATA: Final = sa.MetaData()
RULES: Final = sa.Table(
    "access_rules",
    METADATA,
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("content", sa.Text, nullable=False, index=True),  # hash of the files
    sa.Column("files", sa.Text, nullable=False),  # JSON: text by path
    sa.Column("sealed", sa.Text, nullable=False),  # the signed record of this revision
)
_ALL: Final = sa.select(RULES.c.revision, RULES.c.content, RULES.c.files, RULES.c.sealed)


@dataclass(frozen=True, slots=True)
class Kept:
    """One revision as it is kept."""

    revision: int
    content: str
    files: str
    sealed: str


def newest(connection: Connection) -> Kept | None:
    row = connection.execute(_ALL.order_by(RULES.c.revision.desc()).limit(1)).first()
    return Kept(*row) if row else None


def newest_revision(connection: Connection) -> int | None:
    return connection.execute(sa.select(sa.func.max(RULES.c.revision))).scalar()


def of_revision(connection: Connection, revision: int) -> Kept | None:
    row = connection.execute(_ALL.where(RULES.c.revision == revision)).first()
    return Kept(*row) if row else None


def all_kept(connection: Connection) -> list[Kept]:
    """By revision, the newest first."""
    return [Kept(*row) for row in connection.execute(_ALL.order_by(RULES.c.revision.desc()))]


def was_published(connection: Connection, content: str) -> bool:
    return (
        connection.execute(sa.select(RULES.c.revision).where(RULES.c.content == content).limit(1)).first() is not None
    )


def put(connection: Connection, kept: Kept) -> None:
    connection.execute(RULES.insert().values(**asdict(kept)))
