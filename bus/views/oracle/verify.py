"""The oracle: folds events into rows in plain Python, one event at a time, sharing nothing with the builder.

Tests and `bus views verify` compare its rows with the tables, byte for byte.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bus.core import conditions
from bus.core.columns import Column
from bus.core.contracts import Contract
from bus.core.events import Version, version_number
from bus.core.views import Measure, Over, Source, View
from bus.views.catalogue import Shape
from bus.views.tables import live_rows, row_table

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it lies in a topic. ``record`` is None for a delete, which has ``key`` and perhaps ``stated``
    (the contract's version field); an upsert's key and version are taken from the record. ``appended_ms``: when it
    reached the topic, by the broker's clock; ``time``: its ``ce_time``."""

    entity: str
    partition: int
    offset: int
    record: Mapping[str, Any] | None
    key: tuple[Any, ...] = ()
    stated: Any = None
    sequence: int | None = None
    appended_ms: int = 1_700_000_000_000
    time: str | None = None


def fold(
    view: View,
    contracts: Mapping[str, Contract],
    events: Iterable[Event],
    looked_up: Mapping[str, Mapping[tuple[Any, ...], Row]] | None = None,
) -> list[Row]:
    """The rows of an entity or history view after these events, in no particular order. ``events``: those of one
    partition in the order of offsets, partitions in any interleaving. ``looked_up``: by view, see `by_key`."""
    return _looked_up(view, _own(view, contracts, events), looked_up or {})


def by_key(view: View, rows: Iterable[Row]) -> dict[tuple[Any, ...], Row]:
    """The rows of a view by its key."""
    return {tuple(row[name] for name in view.key): row for row in rows}


def _looked_up(view: View, rows: list[Row], looked_up: Mapping[str, Mapping[tuple[Any, ...], Row]]) -> list[Row]:
    """A missing value finds nothing, and what is not found brings nulls."""
    for lookup in view.lookups:
        fields = [field for field in view.fields if field.source == lookup.name and field.name not in view.key]
        for row in rows:
            key = tuple(row[name] for name in lookup.by)
            found = {} if None in key else looked_up[lookup.view].get(key, {})
            row.update({field.name: found.get(field.field) for field in fields})
    return rows


def _own(view: View, contracts: Mapping[str, Contract], events: Iterable[Event]) -> list[Row]:
    newest = _newest(contracts, [event for event in events if event.entity in view.entities])
    rows: dict[tuple[Any, ...], Row] = {}
    ranks: dict[tuple[Any, ...], Any] = {}
    for source in view.sources:
        shown = [field for field in view.fields if field.source == source.name and field.name not in view.key]
        contract = contracts[source.entity]
        for (entity, _key), (_, record) in newest.items():
            if entity != source.entity or record is None:
                continue
            group = tuple(_plain(record.get(name)) for name in source.key)
            if None in group:
                continue
            row = rows.setdefault(group, _empty_row(view, group))
            rank = _rank(source, contract, record)
            if (group, source.name) not in ranks or ranks[group, source.name] < rank:
                ranks[group, source.name] = rank
                row.update({field.name: _plain(record.get(field.field)) for field in shown})
    return list(rows.values())


def _newest(
    contracts: Mapping[str, Contract], events: Sequence[Event]
) -> dict[tuple[str, tuple[Any, ...]], tuple[Version, Mapping[str, Any] | None]]:
    sequenced: set[tuple[str, int]] = set()
    newest: dict[tuple[str, tuple[Any, ...]], tuple[Version, Mapping[str, Any] | None]] = {}
    for event in events:
        place = (event.entity, event.partition)
        if event.sequence is not None:
            sequenced.add(place)
        elif place in sequenced:
            continue  # it would be older than all that came before: quarantine
        contract = contracts[event.entity]
        key = event.key if event.record is None else tuple(event.record[name] for name in contract.key)
        version = _version(contract, event)
        known = newest.get((event.entity, key))
        if known is None or known[0] < version:
            newest[event.entity, key] = (version, event.record)
    return newest


def _version(contract: Contract, event: Event) -> Version:
    stated = None
    if contract.version is not None:
        stated = event.stated if event.record is None else event.record.get(contract.version)
    return Version(version_number(stated), version_number(event.sequence), event.offset, event.partition)


def _empty_row(view: View, group: tuple[Any, ...]) -> Row:
    return {**{field.name: None for field in view.fields}, **dict(zip(view.key, group, strict=True))}


def _plain(value: Any) -> Any:
    """A value as both databases keep it: what is not a number is missing, minus zero is zero."""
    if isinstance(value, float):
        return None if math.isnan(value) else value + 0.0
    return value


def _ordered(value: Any) -> tuple[int, Any]:
    """Null first; text by UTF-8 bytes."""
    value = _plain(value)
    return (0, 0) if value is None else (1, value.encode() if isinstance(value, str) else value)


def _rank(source: Source, contract: Contract, record: Mapping[str, Any]) -> list[tuple[int, Any]]:
    return [_ordered(record.get(name)) for name in (*source.rank, *contract.key)]


def fold_aggregate(shape: Shape, shapes: Mapping[str, Shape], rows: Mapping[str, Sequence[Row]]) -> list[Row]:
    """The rows of an aggregate over the rows of the views it reads (by name)."""
    view, groups = shape.view, dict[tuple[Any, ...], dict[str, list[Any]]]()
    for over in view.over:
        for row in _brought(over, rows):
            found = groups.setdefault(tuple(row.get(name) for name in view.key), {})
            for measure in view.measures:
                if measure.over == over.name and _counts(measure, over, row, shapes):
                    found.setdefault(measure.name, []).append(row.get(measure.field) if measure.field else True)
    return [
        {
            **dict(zip(view.key, group, strict=True)),
            **{m.name: _figure(m, found.get(m.name, [])) for m in view.measures},
        }
        for group, found in groups.items()
    ]


def _brought(over: Over, rows: Mapping[str, Sequence[Row]]) -> Iterable[Row]:
    if over.join is None:
        return rows[over.view]
    others = {row[over.join.foreign]: row for row in rows[over.join.view]}
    others.pop(None, None)  # a missing value finds nothing
    joined = ((row, others.get(row.get(over.join.local), {})) for row in rows[over.view])
    return [{**row, **{name: other.get(name) for name in over.join.bring}} for row, other in joined]


def _counts(measure: Measure, over: Over, row: Row, shapes: Mapping[str, Shape]) -> bool:
    if measure.where is None:
        return True
    kinds = dict(shapes[over.view].kinds)
    if over.join is not None:
        kinds |= {name: shapes[over.join.view].kinds[name] for name in over.join.bring}
    return conditions.matches(conditions.check(measure.where, kinds).clauses, row)


def _figure(measure: Measure, values: Sequence[Any]) -> Any:
    present = [value for value in values if value is not None]
    match measure.function:
        case "count":
            return len(present)
        case "distinct":
            return len(set(present))
        case "sum":
            return _sum(present) if present else None
        case "min":
            return min(present, key=_ordered, default=None)
        case _:
            return max(present, key=_ordered, default=None)


def _sum(values: Sequence[Any]) -> Any:
    """Numbers are added exactly and rounded once, so that their order does not matter."""
    if not isinstance(values[0], float):
        return sum(values)
    infinite = {value for value in values if math.isinf(value)}
    if infinite:
        return infinite.pop() if len(infinite) == 1 else None
    return float(sum(map(Fraction, values)))


def _text(value: Any) -> Any:
    match value:
        case dt.datetime():
            return value.astimezone(dt.UTC).isoformat()
        case dt.date():
            return value.isoformat()
        case Decimal():
            return f"{value:f}"
        case bytes():
            return value.hex()
        case _:
            return value


def dump_rows(columns: Sequence[Column], rows: Iterable[Row]) -> bytes:
    """Rows in one canonical form: a JSON array for each, columns in order, lines sorted."""
    lines = (
        json.dumps([_text(row[column.name]) for column in columns], ensure_ascii=False, sort_keys=True) for row in rows
    )
    return "\n".join(sorted(lines)).encode()


def read_rows(connection: Connection, shape: Shape) -> list[Row]:
    """What readers of the view can see, whole."""
    table = row_table(shape)
    shown = [table.c[column.name] for column in shape.columns]
    return [dict(row) for row in connection.execute(sa.select(*shown).where(live_rows(table))).mappings()]


def dump(connection: Connection, shape: Shape) -> bytes:
    """The view's table in the form of `dump_rows`."""
    return dump_rows(shape.columns, read_rows(connection, shape))
