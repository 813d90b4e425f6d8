"""What a publisher hands over and gets back, and the headers of an event."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bus.contracts.quarantine import Quarantined
from bus.contracts.validation import Violation
from bus.core.contracts import Contract
from bus.core.events import record_key

_KEPT_BYTES: Final = 1_048_576


@dataclass(frozen=True, slots=True)
class Ack:
    """Kafka has the event, on all replicas in sync: where, and its ``ce_id``."""

    topic: str
    partition: int
    offset: int
    id: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Among the records of `publish_many`: this record is gone. ``version``: the contract's version field's value."""

    key: Mapping[str, Any]
    version: Any = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that the contract refused: its line (from 1, files with a header from 2), and why."""

    line: int
    reasons: tuple[Violation, ...]


@dataclass(slots=True)
class Report:
    """What became of many records: how many Kafka acknowledged, and which were refused."""

    acknowledged: int = 0
    refused: list[Refused] = field(default_factory=list)


class EventIds:
    """Event ids: a random id of this run and a count. Unique without asking the system for each, in every thread."""

    def __init__(self) -> None:
        self._run = uuid.uuid4().hex
        self._count = 0
        self._lock = threading.Lock()

    def next(self) -> str:
        """One more id."""
        return self.take(1)[0].decode()

    def take(self, number: int) -> list[bytes]:
        """Many more ids, as bytes."""
        with self._lock:
            start = self._count
            self._count += number
        return [f"{self._run}-{count:x}".encode() for count in range(start, start + number)]


def quarantined(contract: Contract, record: Any, refused: Refused) -> Quarantined:
    """The entry that a refused record gets in quarantine; the payload is the record as JSON."""
    shown = {"delete": dict(record.key), "version": record.version} if isinstance(record, Delete) else record
    text = json.dumps(shown, ensure_ascii=False, default=str)
    return Quarantined(
        origin="publish",
        entity=contract.id,
        reasons=[violation.as_reason() for violation in refused.reasons],
        line=refused.line,
        key=_key(contract.key, record.key if isinstance(record, Delete) else record),
        payload=text.encode(errors="backslashreplace")[:_KEPT_BYTES],
    )


def _key(names: Sequence[str], record: Any) -> str | None:
    if not isinstance(record, Mapping) or any(record.get(name) is None for name in names):
        return None
    return record_key(record[name] for name in names).encode(errors="backslashreplace").decode()
