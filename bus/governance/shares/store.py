"""Alarms that somebody changed ACLs, in the governance database until Kafka has acknowledged them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from bus.infra.database import create_tables, translated_errors, write

METADATA: Final = sa.MetaData()
ALARM: Final = sa.Table(
    "broker_alarm",
    METADATA,
    sa.Column("event_id", sa.Text, primary_key=True),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sa.Column("sent", sa.Boolean, nullable=False),
)


@dataclass(frozen=True, slots=True)
class DriftAlarm:
    """ACLs that somebody else added or removed and that were put right. ``event_id``: of the CloudEvent, the same
    whenever it is sent again; ``data``: the ACLs, in words."""

    event_id: str
    at_ms: int
    data: Mapping[str, Any]


class DriftStore:
    """The alarms. Blocking; every method raises `DatabaseUnavailable`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        create_tables(engine, METADATA)

    def add(self, alarm: DriftAlarm) -> None:
        """Keeps an alarm to be sent."""
        values = {"event_id": alarm.event_id, "at_ms": alarm.at_ms, "data": json.dumps(alarm.data), "sent": False}
        with translated_errors(), write(self._engine) as connection:
            connection.execute(sa.insert(ALARM).values(**values))

    def unsent(self) -> list[DriftAlarm]:
        """The alarms that wait, oldest first."""
        query = sa.select(ALARM).where(ALARM.c.sent.is_(False)).order_by(ALARM.c.at_ms, ALARM.c.event_id)
        with translated_errors(), self._engine.connect() as connection:
            return [DriftAlarm(row.event_id, row.at_ms, json.loads(row.data)) for row in connection.execute(query)]

    def newest(self) -> DriftAlarm | None:
        """The last one, sent or not."""
        with translated_errors(), self._engine.connect() as connection:
            row = connection.execute(sa.select(ALARM).order_by(ALARM.c.at_ms.desc()).limit(1)).first()
        return DriftAlarm(row.event_id, row.at_ms, json.loads(row.data)) if row else None

    def sent(self, alarm: DriftAlarm) -> None:
        """Kafka has acknowledged it."""
        with translated_errors(), write(self._engine) as connection:
            connection.execute(sa.update(ALARM).where(ALARM.c.event_id == alarm.event_id).values(sent=True))
