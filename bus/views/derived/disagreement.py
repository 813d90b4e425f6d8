"""Where a second department's record says something else than what a view shows: opened, changed and closed in the
transaction that applies the events.

The authoritative value is the one that the row shows; the other one is of its own source's best record of that key. A
discrepancy is open while both are there and differ in any byte; with ``compare: folded``, in more than upper and lower
case and white space. What is open, and with which values, follows from the events alone, in whatever order sources were
read and however their events were cut into batches.

``opened_ms`` and the place beside it are those of an event: of the two records that disagree the one that came last, if
it is of this transaction; otherwise (a record above it was deleted or moved away) the transaction's last event.
``closed_ms`` is when the last event of the closing transaction reached its topic. A disagreement that begins and ends
within one transaction leaves no trace, so a rebuild, which makes the discrepancies anew, may have fewer closed ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bus.core.events import key_part, record_key
from bus.core.views import View
from bus.views.catalogue import Shape
from bus.views.decoding.batches import Batch
from bus.views.staging import load
from bus.views.statements import Insert, best_records, insert_into, on_group, temporary
from bus.views.store import DISCREPANCY
from bus.views.tables import PARTITION, VERSION, Cell, Records, is_one_level, layout, table_name

_STAGED: Final = ("key", "field", "source", "other", "shown", "reported", "topic", "partition", "offset", "opened_ms")
_ARROW: Final = {"partition": pa.int32(), "offset": pa.int64(), "opened_ms": pa.int64()}
Event = tuple[int, str, int, int]  # append time in ms, topic, partition, offset: of several the last is the greatest


def value_text(value: Any) -> str:
    """A value as it is compared and kept: ISO 8601 for dates and instants, all digits of a decimal, hexadecimal bytes,
    JSON for what is nested."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return key_part(value)


@dataclass(frozen=True, slots=True)
class Pair:
    """A column of a view with the source that it shows, and another source's field that reports the same datum."""

    field: str
    source: str
    own: str
    other: str
    reported: str
    folded: bool = False

    def agree(self, shown: str, reported: str) -> bool:
        """Whether two values, as texts, are the same datum."""
        return shown == reported or (self.folded and _folded(shown) == _folded(reported))


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def pairs(view: View) -> list[Pair]:
    """Every pair that the view compares, in the order of its fields."""
    return [
        Pair(field.name, field.source, field.field, other, reported, field.folded)
        for field in view.fields
        if field.name not in view.key
        for other, reported in field.also
    ]


def disagreement(shape: Shape, touched: sa.Table, dialect: str) -> list[Disagreement]:
    """The follower that keeps a view's discrepancies; none where its declaration compares nothing."""
    return [Disagreement(shape, touched, dialect)] if pairs(shape.view) and not is_one_level(shape) else []


class Disagreement:
    """Keeps the discrepancies of one view with two levels, at a cost that grows with the touched keys."""

    def __init__(self, shape: Shape, touched: sa.Table, dialect: str) -> None:
        self._view, self._pairs = shape.view.name, pairs(shape.view)
        self._staged = _temporary(f"d_{self._view}", _STAGED, shape, dialect)
        self._keys = _temporary(f"k_{self._view}", ("key",), shape, dialect)
        self._topics = {records.source.name: records.contract.topic for records in layout(shape).records}
        self._every_key = sa.select(*touched.columns)
        self._sources, self._differing = _differing(shape, self._pairs, touched)
        self._open, self._close = _open(self._view, self._staged, dialect), _close(self._view, self._keys, self._staged)
        self._transaction: Any = None
        self._events: dict[tuple[str, int], dict[int, int]] = {}

    @property
    def wants_rows(self) -> bool:
        return True

    def events(self, connection: Connection, records: Records, batch: Batch) -> None:
        """Notes when the events of this transaction reached their topics."""
        if connection.get_transaction() is not self._transaction:  # what an undone one noted is forgotten
            self._transaction = connection.get_transaction()
            self._events.clear()
        times = zip(batch.offsets.tolist(), batch.appended_ms.tolist(), strict=True)
        self._events.setdefault((batch.topic, batch.partition), {}).update(times)

    def rows(self, connection: Connection, touched: sa.Table) -> None:
        """Opens, changes and closes what the touched keys' rows call for."""
        if connection.get_transaction() is not self._transaction:
            return  # no event, so no row is another
        last = max(
            (at_ms, topic, partition, offset)
            for (topic, partition), times in self._events.items()
            for offset, at_ms in times.items()
        )
        keys = [record_key(row) for row in connection.execute(self._every_key)]
        if not keys:
            return
        found = [entry for row in connection.execute(self._differing) for entry in self._entries(row, last)]
        for table, entries in ((self._keys, [(key,) for key in keys]), (self._staged, found)):
            _fill(connection, table, entries)
        connection.execute(self._close, {"at": last[0]})
        if found:
            connection.execute(self._open)

    def _entries(self, row: Sequence[Any], last: Event) -> list[tuple[Any, ...]]:
        """What is open of one key: a tuple in the order of the staged columns for each pair that differs."""
        size = len(row) - 2 * len(self._sources) - 2 * len(self._pairs)
        key, places = record_key(row[:size]), dict(zip(self._sources, _by_two(row[size:]), strict=False))
        values = _by_two(row[size + 2 * len(self._sources) :])
        found = []
        for pair, (shown, reported) in zip(self._pairs, values, strict=True):
            if shown is None or reported is None:
                continue
            texts = (value_text(shown), value_text(reported))
            if not pair.agree(*texts):
                at_ms, *place = self._opening(pair, places) or last
                found.append((key, pair.field, pair.source, pair.other, *texts, *place, at_ms))
        return found

    def _opening(self, pair: Pair, places: dict[str, tuple[Any, Any]]) -> Event | None:
        """The later of the two records' events, of those that are in this transaction."""
        mine = []
        for source in (pair.source, pair.other):
            topic, (partition, offset) = self._topics[source], places[source]
            at_ms = self._events.get((topic, partition), {}).get(offset)
            if at_ms is not None:
                mine.append((at_ms, topic, partition, offset))
        return max(mine, default=None)


def _by_two(values: Sequence[Any]) -> list[tuple[Any, Any]]:
    return list(zip(values[::2], values[1::2], strict=True))


def _temporary(name: str, columns: Iterable[str], shape: Shape, dialect: str) -> sa.Table:
    kept = [sa.Column(column, DISCREPANCY.c[column].type) for column in columns]
    return temporary(table_name(name, shape.fingerprint[:8]), kept, dialect)


def _fill(connection: Connection, table: sa.Table, entries: Sequence[tuple[Any, ...]]) -> None:
    """The temporary table, made where the pool gave another connection, with exactly these entries."""
    connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
    if connection.dialect.name != "postgresql":
        connection.execute(sa.delete(table))
    if entries:
        columns = zip(table.columns, zip(*entries, strict=True), strict=True)
        load(connection, table, {c.name: pa.array(values, _ARROW.get(c.name, pa.string())) for c, values in columns})


def _differing(shape: Shape, compared: Sequence[Pair], touched: sa.Table) -> tuple[list[str], sa.Select[Any]]:
    """The sources that are compared, and: of the touched keys where some pair may differ, the key, partition and offset
    of each of these sources' best record, and both values of each pair."""
    known = {records.source.name: records for records in layout(shape).records}
    names = [name for name in known if any(name in (pair.source, pair.other) for pair in compared)]
    best = {name: best_records(_showing(known[name], compared), touched) for name in names}
    key = [column.name for column in touched.columns]
    source: sa.FromClause = touched
    for subquery in best.values():
        source = source.outerjoin(subquery, on_group(touched, subquery, key))
    places = [best[name].c[column] for name in names for column in ("partition", "offset")]
    values = [
        (best[pair.source].c[f"own{number}"], best[pair.other].c[f"reported{number}"])
        for number, pair in enumerate(compared)
    ]
    kinds = [(_cell(known[pair.source], pair.own), _cell(known[pair.other], pair.reported)) for pair in compared]
    differ = [_may_differ(*both, *cells) for both, cells in zip(values, kinds, strict=True)]
    selected = sa.select(*touched.columns, *places, *(value for both in values for value in both))
    return names, selected.select_from(source).where(sa.or_(*differ))


def _showing(records: Records, compared: Sequence[Pair]) -> Records:
    """The records as something that shows what is compared, and where each came from."""
    shown = [("partition", PARTITION), ("offset", VERSION[2])]
    for number, pair in enumerate(compared):
        if pair.source == records.source.name:
            shown.append((f"own{number}", _cell(records, pair.own).column))
        if pair.other == records.source.name:
            shown.append((f"reported{number}", _cell(records, pair.reported).column))
    return replace(records, shown=tuple(shown))


def _cell(records: Records, field: str) -> Cell:
    return next(cell for cell in records.cells if cell.field.name == field)


def _may_differ(
    shown: sa.ColumnElement[Any], reported: sa.ColumnElement[Any], own: Cell, other: Cell
) -> sa.ColumnElement[bool]:
    """Both are there, and as far as the database can tell they differ: values of two kinds are compared as text."""
    if (own.field.kind, own.scale) == (other.field.kind, other.scale):
        return shown != reported
    return sa.and_(shown.is_not(None), reported.is_not(None))


def _open(view: str, staged: sa.Table, dialect: str) -> Insert:
    """What is found becomes open, or another pair of values where it is open already."""
    found = sa.select(sa.literal(view), *staged.columns).where(sa.true()).order_by(staged.c.key, staged.c.field)
    insert = insert_into(DISCREPANCY, dialect).from_select(["view", *_STAGED], found)
    changed = {name: insert.excluded[name] for name in ("shown", "reported")}
    return insert.on_conflict_do_update(
        index_elements=[DISCREPANCY.c[name] for name in ("view", "key", "field", "other")],
        index_where=DISCREPANCY.c.closed_ms.is_(None),
        set_=changed,
        where=sa.or_(*(DISCREPANCY.c[name] != value for name, value in changed.items())),
    )


def _close(view: str, keys: sa.Table, staged: sa.Table) -> sa.Update:
    """What is open of the touched keys and was not found again is closed."""
    found = sa.exists().where(*(staged.c[name] == DISCREPANCY.c[name] for name in ("key", "field", "other")))
    mine = (DISCREPANCY.c.view == view, DISCREPANCY.c.closed_ms.is_(None), DISCREPANCY.c.key.in_(sa.select(keys.c.key)))
    return sa.update(DISCREPANCY).where(*mine, ~found).values(closed_ms=sa.bindparam("at"))
