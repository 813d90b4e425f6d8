"""A shared view's declaration: rows merged by key from several departments, each field from one source.

`parse_view` reads the YAML document and names every problem at once; `columns_of` gives the view's
columns with their kinds and classes, as the contracts of its sources state them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bus.core import names
from bus.core.conditions import Condition, parse_condition
from bus.core.contracts import Contract, Kind
from bus.errors import BusError, InvalidDeclaration

KINDS: Final = ("entity", "history", "aggregate")
FUNCTIONS: Final = ("count", "sum", "min", "max", "distinct")
Titles = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Source:
    """An entity that feeds a view. ``key``: its fields that hold the view's key, in the view's order.
    ``rank``: fields that decide which of several records with one view key shows (highest wins)."""

    name: str
    entity: str
    key: tuple[str, ...]
    rank: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ViewField:
    """A column of a view and the one source field that it shows."""

    name: str
    source: str
    field: str


@dataclass(frozen=True, slots=True)
class Join:
    """A look-up across views: this view's ``local`` equals ``view``.``foreign``; ``bring`` names its columns."""

    local: str
    view: str
    foreign: str
    bring: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Over:
    """A view that an aggregate counts, perhaps with columns brought over from another."""

    name: str
    view: str
    join: Join | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of an aggregate: ``function`` of ``field`` (None for count) over the source ``over``."""

    name: str
    function: str
    over: str
    field: str | None = None
    where: Condition | None = None


@dataclass(frozen=True, slots=True)
class View:
    """A view as declared. Entity and history views have ``sources`` and ``fields``; aggregates ``over``,
    ``group_by`` and ``measures``."""

    name: str
    title: Titles
    owner: str
    kind: str
    key: tuple[str, ...]
    sources: tuple[Source, ...] = ()
    fields: tuple[ViewField, ...] = ()
    over: tuple[Over, ...] = ()
    measures: tuple[Measure, ...] = ()
    listed: bool = True
    document: Mapping[str, Any] | None = None

    @property
    def entities(self) -> tuple[str, ...]:
        """The entities whose events build this view."""
        return tuple(source.entity for source in self.sources)

    @property
    def reads(self) -> tuple[str, ...]:
        """The views that an aggregate is computed from, those it joins included."""
        joined = (over.join.view for over in self.over if over.join)
        return tuple(dict.fromkeys([*(over.view for over in self.over), *joined]))

    def source(self, name: str) -> Source | None:
        return next((source for source in self.sources if source.name == name), None)


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


class _Problems:
    """Collects what is wrong, so that an author sees all of it at once."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.found: list[str] = []

    def add(self, where: str, text: str) -> None:
        self.found.append(f"{where}: {text}")

    def unknown_members(self, where: str, doc: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
        for member in doc:
            if member not in allowed:
                self.add(where, f"'{member}' is not known here. {names.nearest(str(member), allowed)}")

    def raise_if_any(self) -> None:
        if self.found:
            raise InvalidDeclaration(
                f"{self._what} has {len(self.found)} problem(s): " + "; ".join(self.found), problems=self.found
            )


def _mapping(value: Any, where: str, problems: _Problems) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    problems.add(where, f"expected a mapping, received {type(value).__name__}")
    return {}


def _sources(doc: Mapping[str, Any], key: tuple[str, ...], problems: _Problems) -> tuple[Source, ...]:
    found = []
    for name, value in _mapping(doc.get("sources", {}), "sources", problems).items():
        source = _mapping(value, f"sources.{name}", problems)
        problems.unknown_members(f"sources.{name}", source, ("entity", "key", "rank"))
        own_key = tuple(source.get("key", key))
        if len(own_key) != len(key):
            problems.add(f"sources.{name}.key", f"names {len(own_key)} fields, the view's key has {len(key)}")
        entity = names.entity_id(str(source.get("entity", "")))
        found.append(Source(str(name), entity, own_key, tuple(source.get("rank", ()))))
    if not found:
        problems.add("sources", "at least one source is needed")
    return tuple(found)


def _fields(doc: Mapping[str, Any], sources: tuple[Source, ...], problems: _Problems) -> tuple[ViewField, ...]:
    found, known = [], {source.name for source in sources}
    for name, value in _mapping(doc.get("fields", {}), "fields", problems).items():
        where = f"fields.{name}"
        field = _mapping(value, where, problems)
        problems.unknown_members(where, field, ("from",))
        source, dot, source_field = str(field.get("from", "")).partition(".")
        if not dot:
            problems.add(where, "needs `from: source.field`")
        elif source not in known:
            problems.add(where, f"there is no source '{source}'. {names.nearest(source, known)}")
        if not names.is_id(name):
            problems.add(where, f"'{name}' is not an id")
        found.append(ViewField(str(name), source, source_field))
    return tuple(found)


def _join(doc: Mapping[str, Any], where: str, problems: _Problems) -> Join | None:
    if "join" not in doc:
        return None
    pairs = _mapping(doc["join"], f"{where}.join", problems)
    if len(pairs) != 1:
        problems.add(f"{where}.join", "needs one pair `field: view.field`")
        return None
    ((local, target),) = pairs.items()
    view, _, foreign = str(target).partition(".")
    return Join(str(local), view, foreign, tuple(doc.get("bring", ())))


def _over(doc: Mapping[str, Any], problems: _Problems) -> tuple[Over, ...]:
    found = []
    for name, value in _mapping(doc.get("over", {}), "over", problems).items():
        where = f"over.{name}"
        source = _mapping(value, where, problems)
        problems.unknown_members(where, source, ("view", "join", "bring"))
        found.append(Over(str(name), str(source.get("view", "")), _join(source, where, problems)))
    if not found:
        problems.add("over", "an aggregate needs at least one view")
    return tuple(found)


def _measure(name: str, doc: Mapping[str, Any], known: set[str], problems: _Problems) -> Measure | None:
    where = f"measures.{name}"
    problems.unknown_members(where, doc, (*FUNCTIONS, "where"))
    functions = [function for function in FUNCTIONS if function in doc]
    if len(functions) != 1:
        problems.add(where, f"needs exactly one of {', '.join(FUNCTIONS)}")
        return None
    over, _, field = str(doc[functions[0]]).partition(".")
    if over not in known:
        problems.add(where, f"there is no '{over}' under `over`. {names.nearest(over, known)}")
    if functions[0] != "count" and not field:
        problems.add(where, f"{functions[0]} needs `source.field`")
    condition = None
    if "where" in doc:
        try:
            condition = parse_condition(doc["where"])
        except BusError as error:
            problems.add(f"{where}.where", error.detail)
    return Measure(name, functions[0], over, field or None, condition)


def _measures(doc: Mapping[str, Any], over: tuple[Over, ...], problems: _Problems) -> tuple[Measure, ...]:
    known = {source.name for source in over}
    found = []
    for name, value in _mapping(doc.get("measures", {}), "measures", problems).items():
        found.append(_measure(str(name), _mapping(value, f"measures.{name}", problems), known, problems))
    if not found:
        problems.add("measures", "an aggregate needs at least one measure")
    return tuple(measure for measure in found if measure is not None)


_ENTITY_MEMBERS = ("view", "title", "owner", "kind", "key", "sources", "fields", "listed")
_AGGREGATE_MEMBERS = ("view", "title", "owner", "kind", "over", "group_by", "measures", "listed")


def parse_view(doc: Mapping[str, Any]) -> View:
    """The view that a YAML document declares. Raises `InvalidDeclaration` naming every problem."""
    problems = _Problems(f"view '{doc.get('view', '?')}'" if isinstance(doc, Mapping) else "the file")
    doc = _mapping(doc, "view", problems)
    kind = str(doc.get("kind", "entity"))
    aggregate = kind == "aggregate"
    problems.unknown_members("view", doc, _AGGREGATE_MEMBERS if aggregate else _ENTITY_MEMBERS)
    if kind not in KINDS:
        problems.add("kind", f"'{kind}' is not one of {', '.join(KINDS)}")
    name, owner = str(doc.get("view", "")), str(doc.get("owner", ""))
    for where, value in (("view", name), ("owner", owner)):
        if not names.is_id(value):
            problems.add(where, f"'{value}' is not an id")
    key = tuple(doc.get("group_by" if aggregate else "key", ()))
    if not key:
        problems.add("group_by" if aggregate else "key", "at least one field is needed")
    sources = () if aggregate else _sources(doc, key, problems)
    fields = () if aggregate else _fields(doc, sources, problems)
    over = _over(doc, problems) if aggregate else ()
    measures = _measures(doc, over, problems) if aggregate else ()
    problems.raise_if_any()
    title = dict(doc.get("title") or {"zh": name, "en": name})
    listed = bool(doc.get("listed", True))
    return View(name, title, owner, kind, key, sources, fields, over, measures, listed, doc)


def _contract_column(name: str, contract: Contract, field_name: str, source: str | None, nullable: bool) -> Column:
    field = contract.field(field_name)
    if field is None:
        known = (item.name for item in contract.fields)
        raise InvalidDeclaration(
            f"{contract.id} has no field '{field_name}'. {names.nearest(field_name, known)}", problems=[field_name]
        )
    scale = field.avro.get("scale", 0) if isinstance(field.avro, Mapping) and field.kind is Kind.DECIMAL else None
    return Column(name, field.kind, nullable, field.title, field.classification, field.personal, source, scale)


def _entity_columns(view: View, contracts: Mapping[str, Contract]) -> tuple[Column, ...]:
    problems = _Problems(f"view '{view.name}'")
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


def _aggregate_columns(view: View, columns: Mapping[str, tuple[Column, ...]]) -> tuple[Column, ...]:
    problems = _Problems(f"view '{view.name}'")
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
    first = available[view.over[0].name]
    groups = [
        Column(name, first[name].kind, True, first[name].title, first[name].classification, first[name].personal)
        for name in view.key
    ]
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
