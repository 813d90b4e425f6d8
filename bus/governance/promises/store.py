"""The tables of promises and alarms in the governance database, and every statement on them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from bus.contracts.store import insert_new
from bus.governance.alarms_store import AlarmStore
from bus.infra.database import translated_errors, write

Kind = Literal["broken", "kept"]
METADATA: Final = sa.MetaData()
PROMISE: Final = sa.Table(
    "freshness_promise",
    METADATA,
    sa.Column("entity", sa.Text, primary_key=True),
    sa.Column("department", sa.Text, nullable=False),
    sa.Column("promise", sa.Text, nullable=False),
    sa.Column("since_ms", sa.BigInteger, nullable=False),
    sa.Column("newest_ms", sa.BigInteger),
    sa.Column("broken", sa.Boolean, nullable=False),
    sa.Column("changed_ms", sa.BigInteger),
)
ALARM: Final = sa.Table(
    "freshness_alarm",
    METADATA,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("event_id", sa.Text, nullable=False, unique=True),
    sa.Column("entity", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sa.Column("sent", sa.Boolean, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Promise:
    """An entity's promise as it stands. ``since_ms``: when it was first watched, which counts while there is no event;
    ``newest_ms``: when the newest event reached its topic; ``changed_ms``: when it was last broken or kept again."""

    entity: str
    department: str
    promise: str
    since_ms: int
    newest_ms: int | None
    broken: bool
    changed_ms: int | None


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm event. ``event_id``: of the CloudEvent, the same whenever it is sent again; ``data``: its content."""

    event_id: str
    entity: str
    kind: Kind
    at_ms: int
    data: Mapping[str, Any]


class PromiseStore(AlarmStore[Alarm]):
    """Promises and their alarms. Blocking; every method raises `DatabaseUnavailable`."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, ALARM, (ALARM.c.id,), _alarm)

    def all(self) -> dict[str, Promise]:
        """Every promise that is watched, by entity."""
        with translated_errors(), self._engine.connect() as connection:
            rows = connection.execute(sa.select(PROMISE).order_by(PROMISE.c.entity)).mappings()
            return {row["entity"]: Promise(**row) for row in rows}

    def begin(self, promise: Promise) -> None:
        """Watches a promise; where the entity is known, only what it promises is another now."""
        values = {column.name: getattr(promise, column.name) for column in PROMISE.columns}
        with translated_errors(), write(self._engine) as connection:
            insert = insert_new(connection, PROMISE).values(**values)
            connection.execute(
                insert.on_conflict_do_update(index_elements=["entity"], set_={"promise": promise.promise})
            )

    def drop(self, entities: Collection[str]) -> None:
        """Watches these no more: their contracts were taken back. Alarms stay."""
        with translated_errors(), write(self._engine) as connection:
            connection.execute(sa.delete(PROMISE).where(PROMISE.c.entity.in_(entities)))

    def note(self, newest: Mapping[str, int]) -> None:
        """Keeps when the newest event of each of these entities reached its topic, in ms."""
        rows = [{"of": entity, "at": at_ms} for entity, at_ms in newest.items()]
        statement = sa.update(PROMISE).where(PROMISE.c.entity == sa.bindparam("of"))
        if rows:
            with translated_errors(), write(self._engine) as connection:
                connection.execute(statement.values(newest_ms=sa.bindparam("at")), rows)

    def turn(self, alarm: Alarm) -> bool:
        """The promise is broken, or kept again, and its alarm waits to be sent: both or neither. False where that is
        known already: another process was faster."""
        broken = alarm.kind == "broken"
        turned = sa.update(PROMISE).where(PROMISE.c.entity == alarm.entity, PROMISE.c.broken.is_(not broken))
        with translated_errors(), write(self._engine) as connection:
            if connection.execute(turned.values(broken=broken, changed_ms=alarm.at_ms)).rowcount == 0:
                return False
            connection.execute(sa.insert(ALARM).values(**_row(alarm)))
        return True


def _row(alarm: Alarm) -> dict[str, Any]:
    data = json.dumps(alarm.data, ensure_ascii=False)
    return {"event_id": alarm.event_id, "entity": alarm.entity, "kind": alarm.kind, "at_ms": alarm.at_ms, "data": data,
            "sent": False}  # fmt: skip


def _alarm(row: sa.RowMapping) -> Alarm:
    return Alarm(row["event_id"], row["entity"], row["kind"], row["at_ms"], json.loads(row["data"]))
