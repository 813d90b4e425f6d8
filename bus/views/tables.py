"""The tables of a view: its rows, and the records of each source that they are made of.

Names are `v_<view>`, `r_<view>__<source>` and, for all versions of a history view, `h_<view>`; hidden columns start
with ``_``. Where a view has one source whose key
is the view's key, the two levels are one table, and a deleted record stays in it with ``_live`` false.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from bus.core.contracts import Contract, FieldContract, Kind
from bus.core.views import Source
from bus.views.catalogue import Shape
from bus.views.groups import key_columns, state_columns
from bus.views.values import sql_type

VERSION: Final = ("_v1", "_v2", "_v3")
LIVE: Final = "_live"
PARTITION: Final = "_partition"  # with the offset (`_v3`) it says which event made the record
KNOWN: Final = "_known"  # a version: milliseconds at which the bus had it, never falling within a partition
VALID: Final = "_valid"  # a version: microseconds from which it holds
UNTIL: Final = "_until"  # a version: microseconds at which it no longer holds, null until another one does
ORDER: Final = (*VERSION, PARTITION)  # which of two events of one record is newer, see `core.events.Version`
_LONGEST: Final = 63


@dataclass(frozen=True, slots=True)
class Cell:
    """A stored column of a record and the contract's field that fills it."""

    column: str
    field: FieldContract
    scale: int | None


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one source. ``key``, ``group`` (the view's key), ``rank`` and ``shown`` name columns of the
    table; ``shown`` by the view's column. In a view of one level the table is the rows table and ``group`` is empty."""

    source: Source
    contract: Contract
    table: sa.Table
    cells: tuple[Cell, ...]
    key: tuple[str, ...]
    group: tuple[str, ...]
    rank: tuple[str, ...]
    shown: tuple[tuple[str, str], ...]

    @property
    def stored(self) -> list[sa.Column[Any]]:
        """The columns that events fill: not those that a look-up brings."""
        filled = {cell.column for cell in self.cells}
        return [column for column in self.table.columns if column.name in filled or column.name.startswith("_")]

    def fields(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """The contract's fields that fill these columns."""
        by_column = {cell.column: cell.field.name for cell in self.cells}
        return tuple(by_column[column] for column in columns)


@dataclass(frozen=True, slots=True)
class History:
    """All versions of a history view's records. ``fields``: the view's columns and the contract's fields that fill
    them; columns that a look-up brings have no versions."""

    table: sa.Table
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """All tables of a view. ``history``: None for views of another kind."""

    shape: Shape
    rows: sa.Table
    records: tuple[Records, ...]
    one_level: bool
    history: History | None = None

    @property
    def tables(self) -> tuple[sa.Table, ...]:
        """Every stored table once."""
        own = () if self.one_level else tuple(records.table for records in self.records)
        return (self.rows, *own, *((self.history.table,) if self.history else ()))


def table_name(*parts: str) -> str:
    """A name of its own for these parts, that PostgreSQL keeps whole: beyond 63 bytes, and where the parts could be cut
    at another place (``a__b`` and ``c``, ``a`` and ``b__c``), its end is a hash of them."""
    name = "__".join(parts)
    clear = len(parts) == 1 or (name.count("__") == len(parts) - 1 and "___" not in name)
    if len(name) <= _LONGEST and clear:
        return name
    return f"{name[:46]}_{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"


def _scale(field: FieldContract) -> int | None:
    return int(field.avro.get("scale", 0)) if field.kind is Kind.DECIMAL else None


def is_one_level(shape: Shape) -> bool:
    """Whether each record of the view's only source is one row of it."""
    view = shape.view
    return len(shape.contracts) == 1 and len(view.sources) == 1 and shape.contracts[0].key == view.sources[0].key


def _bookkeeping() -> list[sa.Column[Any]]:
    versions = [sa.Column(name, sa.BigInteger, nullable=False) for name in VERSION]
    return [
        *versions,
        sa.Column(LIVE, sa.Boolean, nullable=False),
        sa.Column(PARTITION, sa.Integer, nullable=False),
    ]


def row_table(shape: Shape, metadata: sa.MetaData | None = None) -> sa.Table:
    """The table that readers select from, with `live_rows` in their condition."""
    keyed = shape.view.kind != "aggregate"
    columns = [
        sa.Column(
            column.name,
            sql_type(column.kind, column.scale),
            primary_key=keyed and column.name in shape.view.key,
            autoincrement=False,
            nullable=not (keyed and column.name in shape.view.key),
        )
        for column in shape.columns
    ]
    hidden = _bookkeeping() if is_one_level(shape) else []
    if not keyed:
        hidden = [*key_columns(shape, primary=True), *state_columns(shape)]
    table = sa.Table(table_name(f"v_{shape.view.name}"), metadata or sa.MetaData(), *columns, *hidden)
    for lookup in shape.view.lookups:
        sa.Index(table_name("i", table.name, lookup.name), *(table.c[name] for name in lookup.by))
    return table


def live_rows(table: sa.FromClause) -> sa.ColumnElement[bool]:
    """True for the rows that readers may see: not for deleted records kept for their version."""
    return table.c[LIVE].is_(True) if LIVE in table.c else sa.true()


def _field(contract: Contract, name: str) -> FieldContract:
    field = contract.field(name)
    if field is None:  # shape_of has checked it
        raise KeyError(f"{contract.id}.{name}")
    return field


def _own_records(shape: Shape, source: Source, contract: Contract, metadata: sa.MetaData) -> Records:
    """A table of its own for the records of one source: one column for each field that is needed."""
    shown = [(field.name, field.field) for field in shape.view.fields if field.source == source.name]
    shown = [(name, field) for name, field in shown if name not in shape.view.key]
    reported = [also for field in shape.view.fields for other, also in field.also if other == source.name]
    needed = [*contract.key, *source.key, *source.rank, *(field for _, field in shown), *reported]
    columns = {name: f"c{index}" for index, name in enumerate(dict.fromkeys(needed))}
    cells = tuple(
        Cell(column, _field(contract, name), _scale(_field(contract, name))) for name, column in columns.items()
    )
    key = tuple(columns[name] for name in contract.key)
    group = tuple(columns[name] for name in source.key)
    name = table_name(f"r_{shape.view.name}", source.name)
    table = sa.Table(
        name,
        metadata,
        *(
            sa.Column(
                cell.column,
                sql_type(cell.field.kind, cell.scale),
                primary_key=cell.column in key,
                autoincrement=False,
                nullable=cell.column not in key,
            )
            for cell in cells
        ),
        *_bookkeeping(),
    )
    sa.Index(table_name("i", name), *(table.c[column] for column in group))
    rank = tuple(columns[field] for field in source.rank)
    return Records(source, contract, table, cells, key, group, rank, tuple((n, columns[f]) for n, f in shown))


def _row_records(shape: Shape, rows: sa.Table) -> Records:
    """The rows table as the records of the view's only source."""
    source, contract = shape.view.sources[0], shape.contracts[0]
    fields = dict(zip(shape.view.key, source.key, strict=True))
    shown = [field for field in shape.view.fields if field.source == source.name]
    fields |= {field.name: field.field for field in shown if field.name not in shape.view.key}
    cells = tuple(
        Cell(column, _field(contract, name), _scale(_field(contract, name))) for column, name in fields.items()
    )
    return Records(source, contract, rows, cells, shape.view.key, (), (), ())


def _history(shape: Shape, metadata: sa.MetaData) -> History | None:
    """The versions of a history view: its key is its entity's, so a version is one event."""
    if shape.view.kind != "history":
        return None
    view, contract = shape.view, shape.contracts[0]
    fields = dict(zip(view.key, view.sources[0].key, strict=True))
    fields |= {f.name: f.field for f in view.fields if f.source == view.sources[0].name and f.name not in view.key}
    kinds = {name: _field(contract, field) for name, field in fields.items()}
    table = sa.Table(
        table_name(f"h_{view.name}"),
        metadata,
        *(
            sa.Column(name, sql_type(field.kind, _scale(field)), nullable=name not in view.key)
            for name, field in kinds.items()
        ),
        *_bookkeeping(),
        sa.Column(KNOWN, sa.BigInteger, nullable=False),
        sa.Column(VALID, sa.BigInteger, nullable=False),
        sa.Column(UNTIL, sa.BigInteger),
        sa.PrimaryKeyConstraint(*view.key, *ORDER),
    )
    return History(table, tuple(fields.items()))


@lru_cache(maxsize=1_000)
def _layout(shape: _ByFingerprint) -> Layout:
    metadata = sa.MetaData()
    rows = row_table(shape.shape, metadata)
    if is_one_level(shape.shape):
        history = _history(shape.shape, metadata)
        return Layout(shape.shape, rows, (_row_records(shape.shape, rows),), one_level=True, history=history)
    pairs = zip(shape.shape.view.sources, shape.shape.contracts, strict=True)
    records = tuple(_own_records(shape.shape, source, contract, metadata) for source, contract in pairs)
    return Layout(shape.shape, rows, records, one_level=False, history=_history(shape.shape, metadata))


class _ByFingerprint:
    """A shape that is equal to another with the same name and fingerprint, so that layouts can be kept."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._key = (shape.view.name, shape.fingerprint)  # a shadow has its view's fingerprint and tables of its own

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByFingerprint) and other._key == self._key


def layout(shape: Shape) -> Layout:
    """The tables of an entity or history view."""
    return _layout(_ByFingerprint(shape))
