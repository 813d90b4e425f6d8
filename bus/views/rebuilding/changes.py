"""What a changed declaration asks of a view's tables: nothing but a note, columns changed in place, or building anew.

In place is only what is provably the same as building anew: which records there are, which of them a row shows and
every value kept stay as they are; columns go, get another name, or are filled from columns that are there already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from bus.core.columns import Column, scale_of
from bus.core.contracts import Contract
from bus.core.views import Source, ViewField
from bus.views.catalogue import Shape
from bus.views.tables import Records, is_one_level, layout


@dataclass(frozen=True, slots=True)
class TableChange:
    """One table. ``origins``: for each of its columns the column that has its values now; what is not named goes."""

    old: sa.Table
    new: sa.Table
    origins: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class InPlace:
    """The tables that change, and whether all rows are to be computed again from the records."""

    tables: tuple[TableChange, ...]
    recompute: bool


def plan(old: Shape, new: Shape) -> InPlace | str:
    """How to come from tables of the shape ``old`` to those of ``new``: in place, or the reason why they must be built
    anew from the topics."""
    reason = _reason(old, new)
    if reason:
        return reason
    fields = _own_fields(new)
    before, after = layout(old), layout(new)
    stored = [_by_field(records) for records in before.records]
    changes, recompute = [], False
    if after.one_level:
        changes.append(_from_records(before.records[0], after.records[0], stored[0]))
    else:
        for was, now, known in zip(before.records, after.records, stored, strict=True):
            changes.append(_from_records(was, now, known))
        same_source = {(field.source, field.field): field.name for field in _own_fields(old)}
        origins = {name: name for name in (*new.view.key, *_looked_up(new))}
        for field in fields:
            origin = same_source.get((field.source, field.field))
            recompute = recompute or origin is None
            if origin is not None:
                origins[field.name] = origin
        both = set(before.rows.columns.keys()) & set(after.rows.columns.keys())
        origins |= {name: name for name in both if name.startswith("_")}
        changes.append(TableChange(before.rows, after.rows, origins))
    if before.history is not None and after.history is not None:
        kept = {field: column for column, field in before.history.fields}
        own = {column: kept[field] for column, field in after.history.fields}
        changes.append(TableChange(before.history.table, after.history.table, own | _hidden(after.history.table, own)))
    changed = [change for change in changes if _differs(change)]
    return InPlace(tuple(changed), recompute)


def comparable(old: Shape, new: Shape) -> list[str] | None:
    """The columns that must be equal in both at the same positions; None: all, and all records; none where other
    records make the rows."""
    if old.fingerprint == new.fingerprint:
        return None
    if old.view.key != new.view.key or not _same_sources(old, new):
        return []
    was = {(field.name, field.source, field.field) for field in _own_fields(old)}
    kinds = {column.name: (column.kind, column.scale) for column in old.columns}
    return [
        field.name
        for field in _own_fields(new)
        if (field.name, field.source, field.field) in was and kinds[field.name] == _kind(new, field.name)
    ]


def _kind(shape: Shape, name: str) -> tuple[object, int | None]:
    column: Column = next(column for column in shape.columns if column.name == name)
    return column.kind, column.scale


def _reason(old: Shape, new: Shape) -> str:
    """Why the change cannot be made in place; empty where it can."""
    if new.view.kind == "aggregate":
        return "its figures are counted anew"
    same = {
        "it is another kind of view": old.view.kind == new.view.kind,
        "its key is another": old.view.key == new.view.key,
        "its look-ups are others": old.view.lookups == new.view.lookups and _brought(old) == _brought(new),
        "its validity is another": old.view.valid == new.view.valid,
        "what other sources also report is another": _reporting(old) == _reporting(new),
    }
    for reason, holds in same.items():
        if not holds:
            return reason
    if not _same_sources(old, new):
        return "its sources, their keys or their ranks are others"
    return _not_stored(old, new)


def _same_sources(old: Shape, new: Shape) -> bool:
    """The same records, grouped and ranked the same; also where contracts came to say more since."""

    def known(shape: Shape) -> list[tuple[Source, tuple[str, ...], str | None, list[object]]]:
        pairs = zip(shape.view.sources, shape.contracts, strict=True)
        return [(s, c.key, c.version, _kinds(c, (*c.key, *s.key, *s.rank))) for s, c in pairs]

    return known(old) == known(new) and is_one_level(old) == is_one_level(new)


def _kinds(contract: Contract, names: Sequence[str]) -> list[object]:
    return [(field.kind, scale_of(field)) for name in names if (field := contract.field(name))]


def _not_stored(old: Shape, new: Shape) -> str:
    """A field whose values the tables do not have, or have as another kind."""
    before = layout(old)
    for records in before.records:
        cells = {cell.field.name: cell for cell in records.cells}
        contract = next(
            c for s, c in zip(new.view.sources, new.contracts, strict=True) if s.name == records.source.name
        )
        for field in _own_fields(new):
            if field.source != records.source.name:
                continue
            cell, now = cells.get(field.field), contract.field(field.field)
            if cell is None or now is None:
                return f"field '{field.name}' shows what the view did not keep so far"
            if (cell.field.kind, cell.scale) != (now.kind, scale_of(now)):
                return f"field '{field.name}' is of another kind now"
    return ""


def _own_fields(shape: Shape) -> list[ViewField]:
    """The fields that show a source, without the key."""
    sources = {source.name for source in shape.view.sources}
    return [f for f in shape.view.fields if f.source in sources and f.name not in shape.view.key]


def _looked_up(shape: Shape) -> list[str]:
    own = {field.name for field in _own_fields(shape)} | set(shape.view.key)
    return [column.name for column in shape.columns if column.name not in own]


def _brought(shape: Shape) -> Sequence[object]:
    found = {column.name: column for column in shape.columns}
    return sorted(
        (name, str(found[name].kind), found[name].scale or 0, _field_of(shape, name)) for name in _looked_up(shape)
    )


def _field_of(shape: Shape, name: str) -> tuple[str, str]:
    return next(((f.source, f.field) for f in shape.view.fields if f.name == name), ("", ""))


def _reporting(shape: Shape) -> Sequence[object]:
    return sorted((f.name, f.source, f.field, f.also, f.folded) for f in shape.view.fields if f.also)


def _by_field(records: Records) -> dict[str, str]:
    """The column that has each of the contract's fields; of several the first."""
    found: dict[str, str] = {}
    for cell in records.cells:
        found.setdefault(cell.field.name, cell.column)
    return found


def _from_records(was: Records, now: Records, known: Mapping[str, str]) -> TableChange:
    same = {cell.column: cell.field.name for cell in was.cells}
    origins = {
        cell.column: cell.column if same.get(cell.column) == cell.field.name else known[cell.field.name]
        for cell in now.cells
    }
    return TableChange(was.table, now.table, origins | _hidden(now.table, origins))


def _hidden(table: sa.Table, origins: Mapping[str, str]) -> dict[str, str]:
    """Columns that no declaration changes: versions, and what look-ups bring."""
    return {column.name: column.name for column in table.columns if column.name not in origins}


def _differs(change: TableChange) -> bool:
    there = {column.name for column in change.old.columns}
    return any(new != old for new, old in change.origins.items()) or there != set(change.new.columns.keys())
