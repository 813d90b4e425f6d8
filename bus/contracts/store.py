"""The tables of this room in the governance database, and every statement on them.

Schema ids come from the database's sequence and are never used again, whatever is deleted (pitfall 26).
The one row of `revisions` is both the revision that readers cache by and the lock that writers take.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from bus.infra.database import create_tables, write

METADATA: Final = sa.MetaData()
_CONTRACTS: Final = "contracts"

REVISIONS: Final = sa.Table(
    "contracts_revision",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
)
SCHEMAS: Final = sa.Table(
    "registry_schema",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("fingerprint", sa.Text, nullable=False, unique=True),
    sa.Column("document", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)
VERSIONS: Final = sa.Table(
    "registry_version",
    METADATA,
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("schema_id", sa.ForeignKey("registry_schema.id"), nullable=False),
    sa.UniqueConstraint("subject", "schema_id"),
)
RETIRED: Final = sa.Table("registry_retired", METADATA, sa.Column("entity", sa.Text, primary_key=True))
DEPARTMENTS: Final = sa.Table(
    "department",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("contact", sa.Text, nullable=False),
    sa.Column("legal_basis", sa.Text, nullable=False),
    sa.Column("suspended", sa.Boolean, nullable=False),
    sa.Column("attributes", sa.Text, nullable=False, server_default="{}"),  # JSON
)
PURPOSES: Final = sa.Table(
    "purpose",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("legal_basis", sa.Text, nullable=False),
)


def make_tables(engine: Engine) -> None:
    """Makes the tables that are missing and the row of the revision."""
    create_tables(engine, METADATA)
    with write(engine) as connection:
        statement = insert_new(connection, REVISIONS).values(name=_CONTRACTS, revision=0)
        connection.execute(statement.on_conflict_do_nothing())


def insert_new(connection: Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT of the database's own dialect: both know ON CONFLICT."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def revision(connection: Connection) -> int:
    """How many times a contract was registered."""
    return int(connection.execute(sa.select(REVISIONS.c.revision).where(REVISIONS.c.name == _CONTRACTS)).scalar_one())


def lock(connection: Connection) -> None:
    """Waits until no other writer is registering (SQLite: the transaction already holds the lock)."""
    connection.execute(sa.select(REVISIONS.c.revision).where(REVISIONS.c.name == _CONTRACTS).with_for_update())


def raise_revision(connection: Connection) -> None:
    connection.execute(
        sa.update(REVISIONS).where(REVISIONS.c.name == _CONTRACTS).values(revision=REVISIONS.c.revision + 1)
    )


def all_schemas(connection: Connection) -> dict[int, str]:
    rows = connection.execute(sa.select(SCHEMAS.c.id, SCHEMAS.c.document))
    return {int(row.id): str(row.document) for row in rows}


def schema_document(connection: Connection, schema_id: int) -> str | None:
    return connection.execute(sa.select(SCHEMAS.c.document).where(SCHEMAS.c.id == schema_id)).scalar_one_or_none()


def all_versions(connection: Connection) -> list[tuple[str, int, int]]:
    """(subject, version, schema id), in the order of subjects and versions."""
    rows = connection.execute(sa.select(VERSIONS).order_by(VERSIONS.c.subject, VERSIONS.c.version))
    return [(str(row.subject), int(row.version), int(row.schema_id)) for row in rows]


def subject_versions(connection: Connection, subject: str) -> list[tuple[int, int]]:
    """(version, schema id) of one subject, oldest first."""
    rows = connection.execute(
        sa.select(VERSIONS.c.version, VERSIONS.c.schema_id)
        .where(VERSIONS.c.subject == subject)
        .order_by(VERSIONS.c.version)
    )
    return [(int(row.version), int(row.schema_id)) for row in rows]


def schema_id_of(connection: Connection, fingerprint: str, document: str) -> int:
    """The id of a schema, given one if it is new."""
    known = connection.execute(sa.select(SCHEMAS.c.id).where(SCHEMAS.c.fingerprint == fingerprint)).scalar_one_or_none()
    if known is not None:
        return int(known)
    statement = sa.insert(SCHEMAS).values(fingerprint=fingerprint, document=document).returning(SCHEMAS.c.id)
    return int(connection.execute(statement).scalar_one())


def add_version(connection: Connection, subject: str, version: int, schema_id: int) -> None:
    connection.execute(sa.insert(VERSIONS).values(subject=subject, version=version, schema_id=schema_id))


def drop_version(connection: Connection, subject: str, schema_id: int) -> None:
    """The schema is no version of the subject any more, until it is added again; it keeps its id."""
    mine = (VERSIONS.c.subject == subject) & (VERSIONS.c.schema_id == schema_id)
    connection.execute(sa.delete(VERSIONS).where(mine))


def retired(connection: Connection) -> frozenset[str]:
    """The entities whose contracts are retired."""
    return frozenset(connection.execute(sa.select(RETIRED.c.entity)).scalars())


def retire(connection: Connection, entity: str) -> None:
    statement = insert_new(connection, RETIRED).values(entity=entity)
    connection.execute(statement.on_conflict_do_nothing())


def put_department(connection: Connection, values: Mapping[str, Any]) -> None:
    texts = {name: _text(values[name]) for name in ("title", "attributes")}
    _put(connection, DEPARTMENTS, {**values, **texts})


def put_purpose(connection: Connection, values: Mapping[str, Any]) -> None:
    _put(connection, PURPOSES, {**values, "title": _text(values["title"])})


def departments(connection: Connection, department_id: str | None = None) -> list[dict[str, Any]]:
    """All of them, or the one of that id."""
    return _documents(connection, DEPARTMENTS, "title", "attributes", only=department_id)


def purposes(connection: Connection) -> list[dict[str, Any]]:
    return _documents(connection, PURPOSES, "title")


def _text(members: Mapping[str, Any]) -> str:
    return json.dumps(dict(members), ensure_ascii=False, sort_keys=True)


def _put(connection: Connection, table: sa.Table, values: Mapping[str, Any]) -> None:
    changed = {name: value for name, value in values.items() if name != "id"}
    statement = insert_new(connection, table).values(**values)
    connection.execute(statement.on_conflict_do_update(index_elements=[table.c.id], set_=changed))


def _documents(connection: Connection, table: sa.Table, *parsed: str, only: str | None = None) -> list[dict[str, Any]]:
    query = sa.select(table).order_by(table.c.id)
    rows = connection.execute(query if only is None else query.where(table.c.id == only)).mappings()
    return [{**row, **{name: json.loads(row[name]) for name in parsed}} for row in rows]
