"""An audit log on a database of its own, and somebody who may change what it keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from bus.audit.log import AuditLog
from bus.infra.database import open_database


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = open_database(database_url, "governance")
    yield engine
    engine.dispose()


@pytest.fixture
def log(engine: sa.Engine) -> Iterator[AuditLog]:
    made = AuditLog(engine)
    yield made
    made.close()


@pytest.fixture
def unguarded(engine: sa.Engine) -> Callable[..., None]:
    """Changes the table as somebody would who may drop its triggers: the statements, in one transaction."""

    def change(*statements: str) -> None:
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(sa.text("ALTER TABLE audit_entries DISABLE TRIGGER audit_append_only"))
            else:
                for verb in ("update", "delete"):
                    connection.execute(sa.text(f"DROP TRIGGER audit_no_{verb}"))
            for statement in statements:
                connection.exec_driver_sql(statement)

    return change
