"""The columns of a view as readers see them: kinds and classes as the contracts of its sources state them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bus.core import names
from bus.core.contracts import CLASSES, Contract, FieldContract, Kind
from bus.core.problems import Problems
from bus.core.views import Measure, Over, Source, Titles, View, ViewField


@dataclass(frozen=True, slots=True)
class Influence:
    """A field of an event that decides what a column shows: its value, or by way of a key, rank, condition, group,
    join or look-up (``role``). ``department``: who answers for it, and would leak where it is shown too openly."""

    entity: str
    field: str
    department: str
    classification: str
    personal: bool
    role: str

    @property
    def source(self) -> str:
        """``department.entity.field``."""
        return f"{self.entity}.{self.field}"


@dataclass(frozen=True, slots=True)
class Column:
    """A column as readers see it. ``source``: the department's source name, None for a key of several.
    ``made_of``: everything that its values tell something of; `bus.core.guards` fills it."""

    name: str
    kind: Kind
    nullable: bool
    title: Titles
    classification: str
    personal: bool
    source: str | None = None
    scale: int | None = None
    made_of: tuple[Influence, ...] = ()


Columns = Mapping[str, tuple[Column, ...]]
"""The columns of other views, by view."""


def scale_of(field: FieldContract) -> int | None:
    """Digits after the point of a decimal; None for every other kind."""
    return int(field.avro.get("scale", 0)) if field.kind is Kind.DECIMAL else None


def _field(contracts: Mapping[str, Contract], source: Source, name: str) -> FieldContract | None:
    """A source's field; None where the contract or the field is not there."""
    contract = contracts.get(source.entity)
    return contract.field(name) if contract else None


def _missing_fields(source: Source, contract: Contract, wanted: Mapping[str, str], problems: Problems) -> None:
    """Names each wanted field (by the place that wants it) that the contract lacks."""
    for place, name in wanted.items():
        if contract.field(name) is None:
            hint = names.nearest(name, (field.name for field in contract.fields))
            where = place if place.startswith("fields.") else f"sources.{source.name}"
            problems.add(where, f"{contract.id} has no field '{name}'. {hint}", place)


def _check_sources(view: View, contracts: Mapping[str, Contract], problems: Problems) -> None:
    """Every source has its contract, and that has every field that the view names."""
    for source in view.sources:
        where, contract = f"sources.{source.name}", contracts.get(source.entity)
        if contract is None:
            hint = names.nearest(source.entity, contracts)
            problems.add(where, f"there is no contract '{source.entity}'. {hint}", f"{where}.entity")
            continue
        if contract.retired:
            problems.add(where, f"{contract.id} is retired: no view may be built from it", f"{where}.entity")
        wanted = {f"{where}.key.{name}": name for name in source.key}
        wanted |= {f"{where}.rank.{name}": name for name in source.rank}
        wanted |= {f"fields.{shown.name}.from": shown.field for shown in view.fields if shown.source == source.name}
        wanted |= {
            f"fields.{shown.name}.also_reported_by": field
            for shown in view.fields
            for reporter, field in shown.also
            if reporter == source.name
        }
        wanted |= {f"valid.{name}": name for name in view.valid}
        _missing_fields(source, contract, wanted, problems)


def _source_column(name: str, field: FieldContract, source: str | None, nullable: bool) -> Column:
    return Column(
        name, field.kind, nullable, field.title, field.classification, field.personal, source, scale_of(field)
    )


def _looked_up(view: View, shown: ViewField, columns: Columns, problems: Problems) -> Column | None:
    """A column that is brought over: as the other view shows it, and null where that has no such row."""
    lookup = view.lookup(shown.source)
    if lookup is None or lookup.view not in columns:
        return None
    found = next((column for column in columns[lookup.view] if column.name == shown.field), None)
    if found is None:
        hint = names.nearest(shown.field, (column.name for column in columns[lookup.view]))
        where = f"fields.{shown.name}"
        problems.add(where, f"view '{lookup.view}' has no field '{shown.field}'. {hint}", f"{where}.from")
        return None
    return replace(found, name=shown.name, nullable=True, source=lookup.name)


def _entity_columns(view: View, contracts: Mapping[str, Contract], others: Columns, problems: Problems) -> list[Column]:
    _check_sources(view, contracts, problems)
    for lookup in view.lookups:
        if lookup.view not in others:
            where = f"lookups.{lookup.name}"
            problems.add(
                where, f"there is no view '{lookup.view}'. {names.nearest(lookup.view, others)}", f"{where}.view"
            )
    found: list[Column] = []
    for source in view.sources[:1]:
        fields = [(name, _field(contracts, source, own)) for name, own in zip(view.key, source.key, strict=False)]
        found += [_source_column(name, field, None, False) for name, field in fields if field]
    for shown in view.fields:
        own = view.source(shown.source)
        field = _field(contracts, own, shown.field) if own else None
        column = _looked_up(view, shown, others, problems)
        if shown.name in view.key:
            continue
        if own and field:
            column = _source_column(shown.name, field, own.name, True)
        if column is not None:
            found.append(column)
    return found


def over_columns(over: Over, columns: Columns) -> dict[str, Column]:
    """The columns that an aggregate can use of one source: its view's own, and those brought over."""
    known = {column.name: column for column in columns.get(over.view, ())}
    if over.join is not None:
        brought = {column.name: column for column in columns.get(over.join.view, ())}
        known |= {name: brought[name] for name in over.join.bring if name in brought}
    return known


def _measure_column(measure: Measure, available: Mapping[str, Column]) -> Column | None:
    title = {"zh": measure.name, "en": measure.name}
    if measure.function in ("count", "distinct"):
        return Column(measure.name, Kind.INTEGER, False, title, "open", False)
    base = available.get(measure.field or "")
    if base is None:
        return None
    return Column(measure.name, base.kind, True, title, base.classification, base.personal, scale=base.scale)


def _group_column(name: str, found: Sequence[Column], problems: Problems) -> Column:
    """A group_by column: its values come from every source, so it is as guarded as the most guarded of them."""
    first = found[0]
    if len({(column.kind, column.scale) for column in found}) > 1:
        kinds = ", ".join(str(column.kind) for column in found)
        problems.add("group_by", f"'{name}' is not of one kind in all sources: {kinds}")
    classification = max((column.classification for column in found), key=CLASSES.index)
    personal = any(column.personal for column in found)
    return Column(name, first.kind, True, first.title, classification, personal, scale=first.scale)


def _check_over(view: View, over: Over, columns: Columns, problems: Problems) -> None:
    """The views that are counted are there, and offer every group."""
    where = f"over.{over.name}"
    if over.view not in columns:
        problems.add(where, f"there is no view '{over.view}'. {names.nearest(over.view, columns)}", f"{where}.view")
    if over.join and over.join.view not in columns:
        hint = names.nearest(over.join.view, columns)
        problems.add(where, f"there is no view '{over.join.view}'. {hint}", f"{where}.join")
    if over.view not in columns or (over.join and over.join.view not in columns):
        return
    offered = over_columns(over, columns)
    for name in view.key:
        if name not in offered:
            hint = names.nearest(name, offered)
            problems.add(where, f"does not offer '{name}' of group_by. {hint}", "group_by")


def _check_measure(measure: Measure, available: Mapping[str, Column], problems: Problems) -> None:
    where = f"measures.{measure.name}"
    used = [(measure.field, f"{where}.{measure.function}")] if measure.field else []
    used += [(name, f"{where}.where") for name in (measure.where.fields if measure.where else ())]
    for name, place in sorted(set(used)):
        if name not in available:
            problems.add(where, f"has no field '{name}'. {names.nearest(name, available)}", place)


def _aggregate_columns(view: View, columns: Columns, problems: Problems) -> list[Column]:
    for over in view.over:
        _check_over(view, over, columns, problems)
    available = {over.name: over_columns(over, columns) for over in view.over if over.view in columns}
    found: list[Column] = []
    for name in view.key:
        offered = [columns_[name] for columns_ in available.values() if name in columns_]
        found += [_group_column(name, offered, problems)] if offered else []
    for measure in view.measures:
        if measure.over in available:
            _check_measure(measure, available[measure.over], problems)
            column = _measure_column(measure, available[measure.over])
            found += [column] if column else []
    return found


def find_columns(
    view: View, contracts: Mapping[str, Contract], columns: Columns, problems: Problems
) -> tuple[Column, ...]:
    """The columns as far as they can be found; what is missing or does not fit goes to ``problems``."""
    if view.kind == "aggregate":
        return tuple(_aggregate_columns(view, columns, problems))
    return tuple(_entity_columns(view, contracts, columns, problems))


def columns_of(view: View, contracts: Mapping[str, Contract], columns: Columns | None = None) -> tuple[Column, ...]:
    """The view's columns, key first. ``contracts`` by entity id; ``columns`` of the views that this one reads.

    Raises `InvalidDeclaration` for a source, field or view that is not there.
    """
    problems = Problems(f"view '{view.name}'")
    found = find_columns(view, contracts, columns or {}, problems)
    problems.raise_if_any()
    return found
