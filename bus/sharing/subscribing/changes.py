"""What a record of a share topic says: a row as it is now, a row that is gone, or a notice about the stream itself."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import fastavro
import orjson

from bus.contracts.wire import unframe
from bus.core.contracts import Json
from bus.errors import ContractViolation
from bus.sharing.formats import document

NOTICE_TYPE: Final = b"bus.notice"
BEGINS: Final = "snapshot_begins"
ENDS: Final = "snapshot_ends"
ENDED: Final = "ended"


@dataclass(frozen=True, slots=True)
class Upsert:
    """A row as it is now. ``row``: Python values by column, as `bus.core.contracts.Kind` says."""

    key: str
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Delete:
    """A row that is gone, or that left what the consumer may see."""

    key: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What happened to the stream itself: ``kind`` and further members, see interface.md.

    Between ``snapshot_begins`` and ``snapshot_ends`` comes every row there is: a row kept from before that does not
    come in between is gone. ``narrowed``, ``widened`` and ``ended`` say what became of the grant.
    """

    document: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.document.get("kind", ""))


Change = Upsert | Delete | Notice


class Record(NamedTuple):
    """A record as Kafka has it."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Iterable[tuple[str, bytes]]


class Decoder:
    """Reads records. ``schema``: gives the schema of an id, and is asked once for each."""

    def __init__(self, schema: Callable[[int], Json]) -> None:
        self._schema = schema
        self._readers: dict[int, tuple[Any, tuple[str, ...]]] = {}

    def change(self, record: Record) -> Change:
        """What the record says. Raises `ContractViolation` for what the bus never writes, and what ``schema`` does."""
        notice = _notice(record.headers)
        if notice is not None:
            return Notice(notice)
        key = (record.key or b"").decode("utf-8", "replace")
        return Delete(key) if record.value is None else Upsert(key, self._row(record.value))

    def _row(self, value: bytes) -> dict[str, Any]:
        schema_id, data = unframe(value)
        parsed, nested = self._reader(schema_id)
        try:
            row: Any = fastavro.schemaless_reader(io.BytesIO(data), parsed, None)
        except Exception as error:  # whatever a library makes of bytes that are no Avro
            raise ContractViolation(
                entity="a stream", field="(value)", expected="Avro of its schema", received=type(error).__name__
            ) from error
        for name in nested:
            if row[name] is not None:
                row[name] = orjson.loads(row[name])
        return dict(row)

    def _reader(self, schema_id: int) -> tuple[Any, tuple[str, ...]]:
        known = self._readers.get(schema_id)
        if known is None:
            schema = self._schema(schema_id)
            nested = tuple(field["name"] for field in schema["fields"] if field.get("bus.json"))
            known = self._readers[schema_id] = (fastavro.parse_schema(dict(schema)), nested)
        return known


def _notice(headers: Iterable[tuple[str, bytes]]) -> Mapping[str, Any] | None:
    """The notice of a record that carries one."""
    stated = dict(headers)
    if stated.get("ce_type") != NOTICE_TYPE:
        return None
    notice = json.loads(stated.get("bus_notice", b"{}"))
    return notice if isinstance(notice, dict) else {}


def event_of(change: Change) -> tuple[str, dict[str, Any]]:
    """The change as the name of an event and its JSON members."""
    match change:
        case Upsert(key, row):
            return "upsert", {"key": key, "row": row}
        case Delete(key):
            return "delete", {"key": key}
        case Notice(members):
            return "notice", dict(members)


def event_lines(change: Change) -> bytes:
    """The change as lines of a Server-Sent Event, without its id and the empty line at its end. Values are written
    as in the rows of the query door; JSON has no raw line ends, so one ``data`` line holds it."""
    name, members = event_of(change)
    return b"event: " + name.encode() + b"\ndata: " + document(members) + b"\n"
