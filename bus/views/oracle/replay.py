"""Recomputes a view from its topics in plain Python and compares it with its table, on a running system.

Rows and positions are read in one snapshot, then the events up to these positions; nothing is stopped, and
what is applied meanwhile does not matter.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import sqlalchemy as sa
from aiokafka import AIOKafkaConsumer, TopicPartition
from sqlalchemy.engine import Connection, Engine

from bus.contracts.codec import Codec
from bus.contracts.registry import SchemaSource
from bus.contracts.wire import unframe
from bus.core.columns import Column
from bus.core.contracts import Contract
from bus.errors import ViewRebuilding
from bus.infra.database import translated_errors
from bus.infra.kafka import KafkaConnection
from bus.views.catalogue import Shape
from bus.views.decoding.keys import parse_key, parse_version
from bus.views.derived.graph import read_nodes, shapes_in
from bus.views.derived.history import read_versions
from bus.views.oracle.verify import Event, Row, by_key, dump_rows, fold, fold_aggregate, read_rows
from bus.views.oracle.verify_disagreement import Open, differing, fold_open, read_open
from bus.views.oracle.verify_history import dump_versions, fold_versions
from bus.views.store import QUARANTINE, read_positions

Place = tuple[str, int]
LookedUp = Mapping[str, Mapping[tuple[Any, ...], Row]]
SHOWN: Final = 10
_WAIT_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Verification:
    """``events``: how many were folded (for an aggregate: rows of the views it reads). ``differences``: the first
    rows that the table has and the fold has not (``+``), or the other way round (``-``)."""

    view: str
    rows: int
    events: int
    differences: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return not self.differences


async def verify_entity(views: Engine, kafka: KafkaConnection, registry: SchemaSource, shape: Shape) -> Verification:
    """Compares an entity or history view, its open discrepancies and its versions with the fold of its events, and of
    the rows it looks up as they were in the same snapshot (these are other views' to verify).

    Raises `ViewRebuilding` where events that the view was built from are no longer in their topic, and while its
    look-ups are filled again.
    """
    positions, quarantined, rows, looked_up, still_open, versions = _snapshot(views, shape)
    contracts = {contract.topic: contract for contract in shape.contracts}
    reading = _events(kafka, registry, contracts, positions, quarantined)
    events = [event async for event in reading]
    by_id = {contract.id: contract for contract in shape.contracts}
    found = _compared(shape, rows, fold(shape.view, by_id, events, looked_up), len(events))
    disagreeing = differing(still_open, fold_open(shape.view, by_id, events))
    forgotten = _versions(shape, versions, fold_versions(shape.view, by_id, events)) if versions is not None else ()
    return replace(found, differences=(*found.differences, *disagreeing, *forgotten)[:SHOWN])


def _versions(shape: Shape, kept: Sequence[Row], folded: Sequence[Row]) -> list[str]:
    """Where a history's versions differ."""
    there, wanted = dump_versions(shape.view, kept), dump_versions(shape.view, folded)
    extra = [f"+ version {line}" for line in sorted(there - wanted)]
    return extra + [f"- version {line}" for line in sorted(wanted - there)]


def verify_aggregate(views: Engine, shape: Shape) -> Verification:
    """Compares an aggregate with the same figures over the rows of the views it reads, in one snapshot. Raises
    `ViewRebuilding` while it is filled again."""
    with translated_errors(), _frozen(views) as connection:
        shapes = _read(connection, shape)
        bases = {name: read_rows(connection, base) for name, base in shapes.items()}
        rows = read_rows(connection, shape)
    folded = fold_aggregate(shape, shapes, bases)
    return _compared(shape, rows, folded, sum(map(len, bases.values())))


def _frozen(views: Engine) -> Any:
    """A transaction that sees one state throughout."""
    if views.dialect.name == "sqlite":
        return views.begin()
    return views.execution_options(isolation_level="REPEATABLE READ").begin()


def _read(connection: Connection, shape: Shape) -> dict[str, Shape]:
    """The shapes of the views that this one is computed from, as their tables are. Raises `ViewRebuilding`."""
    nodes = read_nodes(connection)
    own, shapes = nodes.get(shape.view.name), shapes_in(nodes, shape.view)
    kept = own is not None and own.fingerprint == shape.fingerprint and (own.enrolled or not shape.view.reads)
    if not kept or shapes is None:
        raise ViewRebuilding(view=shape.view.name)
    return shapes


def _snapshot(
    views: Engine, shape: Shape
) -> tuple[dict[Place, int], set[tuple[str, int, int]], list[Row], LookedUp, Open, list[Row] | None]:
    with translated_errors(), _frozen(views) as connection:
        positions = {(at.topic, at.partition): at.next_offset for at in read_positions(connection, shape.view.name)}
        places = sa.select(QUARANTINE.c.topic, QUARANTINE.c.partition, QUARANTINE.c.offset)
        quarantined = set(connection.execute(places).tuples().all())
        others = _read(connection, shape) if shape.view.reads else {}
        looked_up = {name: by_key(other.view, read_rows(connection, other)) for name, other in others.items()}
        still_open = read_open(connection, shape.view.name)
        versions = read_versions(connection, shape) if shape.view.kind == "history" else None
        return positions, quarantined, read_rows(connection, shape), looked_up, still_open, versions


async def _events(
    kafka: KafkaConnection,
    registry: SchemaSource,
    contracts: Mapping[str, Contract],
    positions: Mapping[Place, int],
    quarantined: set[tuple[str, int, int]],
) -> AsyncIterator[Event]:
    consumer = AIOKafkaConsumer(**kafka.aiokafka(), enable_auto_commit=False, auto_offset_reset="none")
    await consumer.start()
    try:
        for (topic, number), end in positions.items():
            decode = _Decoding(contracts[topic], registry)
            async for record in _records(consumer, TopicPartition(topic, number), end):
                if (topic, number, record.offset) not in quarantined:
                    yield decode.event(record)
    finally:
        await consumer.stop()


async def _records(consumer: AIOKafkaConsumer, partition: TopicPartition, end: int) -> AsyncIterator[Any]:
    """The records of one partition from its start up to but not including ``end``."""
    consumer.assign([partition])
    start = (await consumer.beginning_offsets([partition]))[partition]
    if start > 0:
        text = f"{partition.topic}/{partition.partition} starts at offset {start}: what came before it is gone, "
        raise ViewRebuilding(text + "so the view cannot be recomputed from its events.")
    consumer.seek(partition, 0)
    while await consumer.position(partition) < end:
        for records in (await consumer.getmany(partition, timeout_ms=_WAIT_MS)).values():
            for record in records:
                if record.offset < end:
                    yield record


class _Decoding:
    """Reads events one by one with the codec's slow path, apart from the builder's columns."""

    def __init__(self, contract: Contract, registry: SchemaSource) -> None:
        self._contract, self._registry = contract, registry
        self._codecs: dict[int, Codec] = {}

    def event(self, record: Any) -> Event:
        """One event. Its headers matter only where they order it."""
        headers = dict(record.headers)
        sequence = headers.get("ce_sequence")
        number = int(sequence) if sequence is not None else None
        place = (self._contract.id, record.partition, record.offset)
        time = headers.get("ce_time")
        told: dict[str, Any] = {
            "sequence": number,
            "appended_ms": record.timestamp,
            "time": time and str(time, "utf-8", "replace"),
        }
        if record.value is not None:
            return Event(*place, self._record(record.value), **told)
        stated = headers.get("ce_version")
        fields = {field.name: field for field in self._contract.fields}
        key = parse_key(record.key, tuple(fields[name] for name in self._contract.key)) or ()
        version = fields[self._contract.version] if self._contract.version else None
        return Event(*place, None, key, parse_version(stated, version) if stated and version else None, **told)

    def _record(self, value: bytes) -> Mapping[str, Any]:
        schema_id, payload = unframe(value)
        codec = self._codecs.get(schema_id)
        if codec is None:
            codec = self._codecs[schema_id] = Codec(self._registry.schema(schema_id))
        decoded = codec.decode(payload)
        return {**{field.name: None for field in self._contract.fields}, **decoded}


def _compared(shape: Shape, rows: Sequence[Row], folded: Sequence[Row], events: int) -> Verification:
    """The canonical lines of both, compared as sets of lines."""
    there, wanted = _lines(shape.columns, rows), _lines(shape.columns, folded)
    extra, missing = there - wanted, wanted - there
    differences = [f"+ {line}" for line in sorted(extra)] + [f"- {line}" for line in sorted(missing)]
    if not differences and len(rows) != len(folded):
        differences = [f"{len(rows)} rows, the fold has {len(folded)}"]
    return Verification(shape.view.name, len(rows), events, tuple(differences[:SHOWN]))


def _lines(columns: Sequence[Column], rows: Sequence[Row]) -> set[str]:
    return set(dump_rows(columns, rows).decode().split("\n")) if rows else set()
