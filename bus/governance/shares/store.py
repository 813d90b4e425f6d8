"""Alarms that somebody changed ACLs, in the governance database until Kafka has acknowledged them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from bus.governance.alarms_store import AlarmStore
from bus.infra.database import translated_errors, write

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


class DriftStore(AlarmStore[DriftAlarm]):
    """The alarms. Blocking; every method raises `DatabaseUnavailable`."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, ALARM, (ALARM.c.at_ms, ALARM.c.event_id), _alarm)

    def add(self, alarm: DriftAlarm) -> None:
        """Keeps an alarm to be sent."""
        values = {"event_id": alarm.event_id, "at_ms": alarm.at_ms, "data": json.dumps(alarm.data), "sent": False}
        with translated_errors(), write(self._engine) as connection:
            connection.execute(sa.insert(ALARM).values(**values))


def _alarm(row: sa.RowMapping) -> DriftAlarm:
    return DriftAlarm(row["event_id"], row["at_ms"], json.loads(row["data"]))
