"""The columns of a view as readers see them: kinds and classes as the contracts of its sources state them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bus.core import names
from bus.core.contracts import CLASSES, Contract, FieldContract, Kind
from bus.core.problems import Problems
from bus.core.views import Measure, Over, Source, Titles, View
from bus.errors import InvalidDeclaration


@dataclass(frozen=True, slots=True)
class Column:
    """A column as readers see it. ``source``: the department's source name, None for a key of several."""

    name: str
    kind: Kind
    nullable: bool
    title: Titles
    classification: str
    personal: bool
    source: str | None = None
    scale: int | None = None


def scale_of(field: FieldContract) -> int | None:
    """Digits after the point of a decimal; None for every other kind."""
    return int(field.avro.get("scale", 0)) if field.kind is Kind.DECIMAL else None


def _contract_column(name: str, contract: Contract, field_name: str, source: str | None, nullable: bool) -> Column:
    field = contract.field(field_name)
    if field is None:
        known = (item.name for item in contract.fields)
        raise InvalidDeclaration(
            f"{contract.id} has no field '{field_name}'. {names.nearest(field_name, known)}", problems=[field_name]
        )
    scale = scale_of(field)
    return Column(name, field.kind, nullable, field.title, field.classification, field.personal, source, scale)


def _entity_columns(view: View, contracts: Mapping[str, Contract]) -> tuple[Column, ...]:
    problems = Problems(f"view '{view.name}'")
    columns: list[Column] = []

    def add(name: str, source: Source, field: str, shown_source: str | None, nullable: bool) -> None:
        contract = contracts.get(source.entity)
        if contract is None:
            problems.add(
                f"sources.{source.name}",
                f"there is no contract '{source.entity}'. {names.nearest(source.entity, contracts)}",
            )
            return
        try:
            columns.append(_contract_column(name, contract, field, shown_source, nullable))
        except InvalidDeclaration as error:
            problems.add(f"fields.{name}", error.detail)

    first = view.sources[0]
    for name, field in zip(view.key, first.key, strict=True):
        add(name, first, field, None, False)
    for shown in view.fields:
        source = view.source(shown.source)
        if source is not None and shown.name not in view.key:
            add(shown.name, source, shown.field, source.name, True)
    for source in view.sources:
        for field in (*source.rank, *source.key):
            contract = contracts.get(source.entity)
            if contract is not None and contract.field(field) is None:
                problems.add(f"sources.{source.name}", f"{source.entity} has no field '{field}'")
    problems.found = list(dict.fromkeys(problems.found))
    problems.raise_if_any()
    return tuple(columns)


def _over_columns(over: Over, columns: Mapping[str, tuple[Column, ...]]) -> dict[str, Column]:
    """The columns that an aggregate can use of one source: its view's own, and those brought over."""
    known = {column.name: column for column in columns.get(over.view, ())}
    if over.join is not None:
        brought = {column.name: column for column in columns.get(over.join.view, ())}
        known |= {name: brought[name] for name in over.join.bring if name in brought}
    return known


def _measure_column(measure: Measure, available: Mapping[str, Column]) -> Column:
    title = {"zh": measure.name, "en": measure.name}
    if measure.function in ("count", "distinct"):
        return Column(measure.name, Kind.INTEGER, False, title, "open", False)
    base = available[measure.field or ""]
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


def _aggregate_columns(view: View, columns: Mapping[str, tuple[Column, ...]]) -> tuple[Column, ...]:
    problems = Problems(f"view '{view.name}'")
    available = {over.name: _over_columns(over, columns) for over in view.over}
    for over in view.over:
        for needed in (over.view, *((over.join.view,) if over.join else ())):
            if needed not in columns:
                problems.add(f"over.{over.name}", f"there is no view '{needed}'. {names.nearest(needed, columns)}")
        for name in view.key:
            if name not in available[over.name]:
                problems.add(f"over.{over.name}", f"does not offer '{name}' of group_by")
    for measure in view.measures:
        used = set(measure.where.fields if measure.where else ()) | ({measure.field} if measure.field else set())
        for name in sorted(used - set(available.get(measure.over, {}))):
            problems.add(
                f"measures.{measure.name}",
                f"has no field '{name}'. {names.nearest(name, available.get(measure.over, {}))}",
            )
    problems.raise_if_any()
    groups = [_group_column(name, [available[over.name][name] for over in view.over], problems) for name in view.key]
    problems.raise_if_any()
    return (*groups, *(_measure_column(measure, available[measure.over]) for measure in view.measures))


def columns_of(
    view: View, contracts: Mapping[str, Contract], columns: Mapping[str, tuple[Column, ...]] | None = None
) -> tuple[Column, ...]:
    """The view's columns, key first. ``contracts`` by entity id; ``columns`` of the views an aggregate reads.

    Raises `InvalidDeclaration` for a source, field or view that is not there.
    """
    if view.kind == "aggregate":
        return _aggregate_columns(view, columns or {})
    return _entity_columns(view, contracts)
