"""How guarded a column is: as the most guarded of everything that decides what it shows.

That is more than the field it shows: keys, rank and version, which choose the event, the columns that a look-up goes
by, the condition, group and join of a figure. The key of what is counted does not count: a figure no longer says which
record.
What another source reports of the same datum (`also_reported_by`) is not shown, so it makes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from bus.core.columns import Column, Columns, Influence, over_columns
from bus.core.contracts import CLASSES, Contract
from bus.core.views import Measure, Over, Source, View

Lowered = Mapping[tuple[str, str, str], tuple[str, str]]
"""Declassifications in force: (view, column, ``department.entity.field``) to (from class, to class)."""
NOTHING_LOWERED: Final[Lowered] = {}


def is_open(column: Column) -> bool:
    """Whether everybody may see the column."""
    return column.classification == "open" and not column.personal


def more_open(first: str, second: str) -> bool:
    """Whether the first class is more open than the second."""
    return CLASSES.index(first) < CLASSES.index(second)


def guarded(
    view: View,
    columns: Iterable[Column],
    contracts: Mapping[str, Contract],
    others: Columns,
    lowered: Lowered = NOTHING_LOWERED,
) -> tuple[Column, ...]:
    """The columns with what they are made of, each as guarded as the most guarded of it, and at least as its view
    declares. ``others``: the guarded columns of the views that this one reads."""
    aggregate = view.kind == "aggregate"
    made = _made_by_aggregate(view, others) if aggregate else _made_by_sources(view, contracts, others)
    declared = {field.name: field.classification for field in view.fields}
    return tuple(
        _guard(view, column, made.get(column.name, ()), declared.get(column.name), lowered) for column in columns
    )


def _guard(view: View, column: Column, made: Iterable[Influence], declared: str | None, lowered: Lowered) -> Column:
    found = [_lower(item, lowered.get((view.name, column.name, item.source))) for item in made]
    strictest = max((item.classification for item in found), key=CLASSES.index, default="open")
    if declared is not None and more_open(strictest, declared):
        found.append(Influence(view.name, column.name, view.owner, declared, False, "declared"))
        strictest = declared
    personal = any(item.personal for item in found)
    return replace(column, classification=strictest, personal=personal, made_of=_once(found))


def _lower(influence: Influence, change: tuple[str, str] | None) -> Influence:
    """What is declassified to `open` is no longer taken for personal either: that is what the officer signed."""
    if change is None or influence.classification != change[0]:
        return influence
    personal = influence.personal and change[1] != "open"
    return replace(influence, classification=change[1], personal=personal)


def _once(influences: Iterable[Influence]) -> tuple[Influence, ...]:
    """Each field once, in the first of its roles."""
    found: dict[str, Influence] = {}
    for item in influences:
        found.setdefault(item.source, item)
    return tuple(found.values())


def influences_of(column: Column) -> tuple[Influence, ...]:
    """What a column is made of; a column that does not say stands for itself."""
    own = Influence("", column.name, "", column.classification, column.personal, "value")
    return column.made_of or (own,)


def _fields(contracts: Mapping[str, Contract], source: Source, fields: Sequence[str], role: str) -> list[Influence]:
    contract = contracts.get(source.entity)
    found = [contract.field(name) if contract else None for name in fields]
    return [
        Influence(contract.id, field.name, contract.owner, field.classification, field.personal, role)
        for field in found
        if contract is not None and field is not None
    ]


def _choice(contracts: Mapping[str, Contract], source: Source) -> list[Influence]:
    """What decides which event of which record shows: the rank, the version, the keys of the view and of the record
    (the last in every rank)."""
    contract = contracts.get(source.entity)
    if contract is None:
        return []
    version = [contract.version] if contract.version else []
    chosen = _fields(contracts, source, source.rank, "rank") + _fields(contracts, source, version, "version")
    return chosen + _fields(contracts, source, [*source.key, *contract.key], "key")


def _as(role: str, influences: Iterable[Influence]) -> list[Influence]:
    """The same fields in another role: what was a value here is what decides there."""
    return [replace(item, role=role) if item.role in ("value", "declared") else item for item in influences]


def _made_by_sources(
    view: View, contracts: Mapping[str, Contract], others: Columns
) -> dict[str, tuple[Influence, ...]]:
    made: dict[str, tuple[Influence, ...]] = {}
    for place, name in enumerate(view.key):
        parts = [(source, source.key) for source in view.sources if len(source.key) == len(view.key)]
        values = [item for source, key in parts for item in _fields(contracts, source, [key[place]], "value")]
        rest = [item for source, _ in parts for item in _choice(contracts, source) if item.role != "rank"]
        made[name] = _once([*values, *rest])
    for shown in view.fields:
        source = view.source(shown.source)
        if source is not None and shown.name not in view.key:
            made[shown.name] = _once([*_fields(contracts, source, [shown.field], "value"), *_choice(contracts, source)])
    for shown in view.fields:
        lookup = view.lookup(shown.source)
        if lookup is not None and shown.name not in view.key:
            there = next((column for column in others.get(lookup.view, ()) if column.name == shown.field), None)
            by = [item for name in lookup.by for item in _as("look-up", made.get(name, ()))]
            made[shown.name] = _once([*(influences_of(there) if there else ()), *by])
    return made


def _joined(over: Over, available: Mapping[str, Column], others: Columns) -> list[Influence]:
    """The two sides of a join: they decide which record's columns are brought."""
    if over.join is None:
        return []
    foreign = {column.name: column for column in others.get(over.join.view, ())}.get(over.join.foreign)
    sides = [available.get(over.join.local), foreign]
    return [item for column in sides if column is not None for item in _as("join", influences_of(column))]


def _made_by_aggregate(view: View, others: Columns) -> dict[str, tuple[Influence, ...]]:
    made: dict[str, tuple[Influence, ...]] = {}
    available = {over.name: over_columns(over, others) for over in view.over}
    joined = {over.name: _joined(over, available[over.name], others) for over in view.over}
    for name in view.key:
        offered = [(over, columns[name]) for over, columns in available.items() if name in columns]
        found = [item for over, column in offered for item in (*influences_of(column), *joined[over])]
        made[name] = _once(item for item in found if item.role != "key")
    for measure in view.measures:
        columns = available.get(measure.over, {})
        groups = [item for name in view.key if name in columns for item in _as("group", influences_of(columns[name]))]
        found = [*_measured(measure, columns), *groups, *joined.get(measure.over, [])]
        made[measure.name] = _once(item for item in found if item.role != "key")
    return made


def _measured(measure: Measure, columns: Mapping[str, Column]) -> list[Influence]:
    """What a figure is computed from, and the fields that say which records count."""
    value = columns.get(measure.field or "")
    where = [columns[name] for name in (measure.where.fields if measure.where else ()) if name in columns]
    chosen = [item for column in where for item in _as("where", influences_of(column))]
    return [*(influences_of(value) if value else ()), *chosen]
