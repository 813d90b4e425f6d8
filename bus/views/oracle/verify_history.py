"""The oracle of histories: folds events to the rows as they were known or held at an instant, in plain Python.

It shares nothing with the tables and their SQL but what an event is.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bus.core.columns import Column
from bus.core.contracts import Contract, Kind
from bus.core.events import Version, version_number
from bus.core.views import View
from bus.views.oracle.verify import Event, Row, dump_rows

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Fact:
    """One event of a history: since when it is known, from when it holds and, if the contract says so, until when."""

    key: tuple[Any, ...]
    version: Version
    known: dt.datetime
    begins: dt.datetime
    ends: dt.datetime | None
    record: Mapping[str, Any] | None


def facts(view: View, contracts: Mapping[str, Contract], events: Iterable[Event]) -> list[Fact]:
    """The events that a history view keeps, each once. ``events``: of each partition in the order of offsets."""
    contract, found, sequenced, last = contracts[view.entities[0]], [], set[int](), dict[int, dt.datetime]()
    for event in events:
        if event.entity != contract.id:
            continue
        if event.sequence is not None:
            sequenced.add(event.partition)
        elif event.partition in sequenced:
            continue  # it would be older than all that came before: quarantine
        appended = _EPOCH + dt.timedelta(milliseconds=event.appended_ms)
        known = last[event.partition] = max(appended, last.get(event.partition, appended))
        found.append(_fact(view, contract, event, known))
    return found


def _fact(view: View, contract: Contract, event: Event, known: dt.datetime) -> Fact:
    record, stated = event.record, event.stated
    key = event.key if record is None else tuple(record[name] for name in contract.key)
    if record is not None and contract.version is not None:
        stated = record.get(contract.version)
    version = Version(
        version_number(stated if contract.version else None),
        version_number(event.sequence),
        event.offset,
        event.partition,
    )
    first, last = (*view.valid, None, None)[:2]
    fields = dict(zip(contract.key, key, strict=True)) if record is None else record
    begins = _instant(fields.get(first)) if first else None
    ends = _instant(fields.get(last)) if last else None
    return Fact(key, version, known, begins or _stated_time(event.time) or known, ends, record)


def _instant(value: dt.date | dt.datetime | None) -> dt.datetime | None:
    """A date means its start, UTC."""
    if value is None or isinstance(value, dt.datetime):
        return value
    return dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)


def _stated_time(text: str | None) -> dt.datetime | None:
    if text is None:
        return None
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else None


def fold_history(
    view: View,
    contracts: Mapping[str, Contract],
    events: Iterable[Event],
    *,
    as_of: dt.datetime | None = None,
    valid_at: dt.datetime | None = None,
) -> list[Row]:
    """The rows of a history view as the bus knew them at ``as_of``, of what then was known to hold at ``valid_at``;
    None: now, and whatever the time that it holds for."""
    newest: dict[tuple[Any, ...], Fact] = {}
    for fact in facts(view, contracts, events):
        if (as_of is not None and fact.known > as_of) or (valid_at is not None and fact.begins > valid_at):
            continue
        if fact.key not in newest or newest[fact.key].version < fact.version:
            newest[fact.key] = fact
    held = (fact for fact in newest.values() if valid_at is None or fact.ends is None or fact.ends > valid_at)
    return [_row(view, fact.key, fact.record) for fact in held if fact.record is not None]


HIDDEN: Final = ("_v1", "_v2", "_v3", "_partition", "_live", "_known", "_valid", "_until")


def fold_versions(view: View, contracts: Mapping[str, Contract], events: Iterable[Event]) -> list[Row]:
    """Every version that a history view keeps, with its hidden columns as integers: since when it is known in
    milliseconds, from when and until when it holds in microseconds."""
    own = [field.name for field in view.fields if field.source == view.sources[0].name]
    found = []
    for fact in facts(view, contracts, events):
        times = (_microseconds(fact.known) // 1_000, _microseconds(fact.begins), fact.ends and _microseconds(fact.ends))
        blank = {**dict.fromkeys(own), **dict(zip(view.key, fact.key, strict=True))}
        row = blank if fact.record is None else _row(view, fact.key, fact.record)
        hidden = (*fact.version, fact.record is not None, *times)
        found.append({**row, **dict(zip(HIDDEN, hidden, strict=True))})
    return found


def dump_versions(view: View, rows: Iterable[Row]) -> set[str]:
    """Versions in one canonical form, a line for each."""
    own = [field.name for field in view.fields if field.source == view.sources[0].name and field.name not in view.key]
    columns = [Column(name, Kind.TEXT, True, {}, "open", False) for name in (*view.key, *own, *HIDDEN)]
    return set(dump_rows(columns, rows).decode().splitlines())


def _microseconds(instant: dt.datetime) -> int:
    return (instant - _EPOCH) // dt.timedelta(microseconds=1)


def _row(view: View, key: tuple[Any, ...], record: Mapping[str, Any]) -> Row:
    own = [field for field in view.fields if field.source == view.sources[0].name]
    return {**{field.name: _plain(record.get(field.field)) for field in own}, **dict(zip(view.key, key, strict=True))}


def _plain(value: Any) -> Any:
    """What is not a number is missing, minus zero is zero, as both databases keep it."""
    if isinstance(value, float):
        return None if math.isnan(value) else value + 0.0
    return value
