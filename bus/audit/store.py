"""The table of the audit log. Triggers refuse changes as a second wall; the hash chain finds what gets past them."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy import event

METADATA: Final = sa.MetaData()
ENTRIES: Final = sa.Table(
    "audit_entries",
    METADATA,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("body", sa.Text, nullable=False),  # canonical JSON, ASCII
    sa.Column("hash", sa.Text, nullable=False),
)
_REFUSED: Final = "the audit log is append-only"
_SQLITE: Final = """CREATE TRIGGER IF NOT EXISTS audit_no_{name} BEFORE {verb} ON audit_entries
BEGIN SELECT RAISE(ABORT, '{refused}'); END"""
_POSTGRESQL_FUNCTION: Final = f"""CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '{_REFUSED}'; END $$"""
_POSTGRESQL_TRIGGER: Final = """CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entries
FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()"""


def _on(dialect: str, statement: str) -> None:
    ddl = sa.DDL(statement)  # type: ignore[no-untyped-call]
    event.listen(ENTRIES, "after_create", ddl.execute_if(dialect=dialect))


for _verb in ("UPDATE", "DELETE"):
    _on("sqlite", _SQLITE.format(name=_verb.lower(), verb=_verb, refused=_REFUSED))
_on("postgresql", _POSTGRESQL_FUNCTION)
_on("postgresql", _POSTGRESQL_TRIGGER)
LAST: Final = sa.select(ENTRIES.c.sequence, ENTRIES.c.hash).order_by(ENTRIES.c.sequence.desc()).limit(1)
LOCK: Final = sa.text("SELECT pg_advisory_xact_lock(7205761)")
