"""Reads a view's YAML document: `parse_view` names every problem at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bus.core import names
from bus.core.conditions import parse_condition
from bus.core.problems import Problems
from bus.core.views import FUNCTIONS, KINDS, Join, Measure, Over, Source, View, ViewField
from bus.errors import BusError


def _mapping(value: Any, where: str, problems: Problems) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    problems.add(where, f"expected a mapping, received {type(value).__name__}")
    return {}


def _list(value: Any, where: str, problems: Problems) -> tuple[str, ...]:
    """A list of different names; a text is not taken for the list of its letters."""
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        problems.add(where, f"expected a list of names, received {type(value).__name__}")
        return ()
    for name in sorted({name for name in value if value.count(name) > 1}):
        problems.add(where, f"names '{name}' more than once")
    return tuple(value)


def _id(name: Any, where: str, problems: Problems) -> str:
    """A name that becomes part of a table's or column's name, or of a header."""
    if not names.is_id(name):
        problems.add(where, f"'{name}' is not an id")
    return str(name)


def _sources(doc: Mapping[str, Any], key: tuple[str, ...], problems: Problems) -> tuple[Source, ...]:
    found = []
    for name, value in _mapping(doc.get("sources", {}), "sources", problems).items():
        source = _mapping(value, f"sources.{name}", problems)
        problems.unknown_members(f"sources.{name}", source, ("entity", "key", "rank"))
        own_key = _list(source["key"], f"sources.{name}.key", problems) if "key" in source else key
        if len(own_key) != len(key):
            problems.add(f"sources.{name}.key", f"names {len(own_key)} fields, the view's key has {len(key)}")
        entity = names.entity_id(str(source.get("entity", "")))
        rank = _list(source.get("rank", ()), f"sources.{name}.rank", problems)
        found.append(Source(_id(name, f"sources.{name}", problems), entity, own_key, rank))
    if not found:
        problems.add("sources", "at least one source is needed")
    return tuple(found)


def _fields(
    doc: Mapping[str, Any], key: tuple[str, ...], sources: tuple[Source, ...], problems: Problems
) -> tuple[ViewField, ...]:
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
        if name in key and any(
            own.name == source and source_field != part
            for own in sources
            for part in [dict(zip(key, own.key, strict=False)).get(name)]
        ):
            problems.add(where, f"is a key column and '{source}.{source_field}' is not its key. Give it another name.")
        found.append(ViewField(_id(name, where, problems), source, source_field))
    return tuple(found)


def _join(doc: Mapping[str, Any], where: str, problems: Problems) -> Join | None:
    if "join" not in doc:
        return None
    pairs = _mapping(doc["join"], f"{where}.join", problems)
    if len(pairs) != 1:
        problems.add(f"{where}.join", "needs one pair `field: view.field`")
        return None
    ((local, target),) = pairs.items()
    view, _, foreign = str(target).partition(".")
    return Join(str(local), view, foreign, _list(doc.get("bring", ()), f"{where}.bring", problems))


def _over(doc: Mapping[str, Any], problems: Problems) -> tuple[Over, ...]:
    found = []
    for name, value in _mapping(doc.get("over", {}), "over", problems).items():
        where = f"over.{name}"
        source = _mapping(value, where, problems)
        problems.unknown_members(where, source, ("view", "join", "bring"))
        over = _id(name, where, problems)
        found.append(Over(over, str(source.get("view", "")), _join(source, where, problems)))
    if not found:
        problems.add("over", "an aggregate needs at least one view")
    return tuple(found)


def _measure(name: str, doc: Mapping[str, Any], known: set[str], problems: Problems) -> Measure | None:
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


def _measures(
    doc: Mapping[str, Any], key: tuple[str, ...], over: tuple[Over, ...], problems: Problems
) -> tuple[Measure, ...]:
    known = {source.name for source in over}
    found = []
    for name, value in _mapping(doc.get("measures", {}), "measures", problems).items():
        if _id(name, f"measures.{name}", problems) in key:
            problems.add(f"measures.{name}", "has the name of a group_by field")
        found.append(_measure(str(name), _mapping(value, f"measures.{name}", problems), known, problems))
    if not found:
        problems.add("measures", "an aggregate needs at least one measure")
    return tuple(measure for measure in found if measure is not None)


_ENTITY_MEMBERS = ("view", "title", "owner", "kind", "key", "sources", "fields", "listed")
_AGGREGATE_MEMBERS = ("view", "title", "owner", "kind", "over", "group_by", "measures", "listed")


def parse_view(doc: Mapping[str, Any]) -> View:
    """The view that a YAML document declares. Raises `InvalidDeclaration` naming every problem."""
    problems = Problems(f"view '{doc.get('view', '?')}'" if isinstance(doc, Mapping) else "the file")
    doc = _mapping(doc, "view", problems)
    kind = str(doc.get("kind", "entity"))
    aggregate = kind == "aggregate"
    problems.unknown_members("view", doc, _AGGREGATE_MEMBERS if aggregate else _ENTITY_MEMBERS)
    if kind not in KINDS:
        problems.add("kind", f"'{kind}' is not one of {', '.join(KINDS)}")
    name, owner = str(doc.get("view", "")), str(doc.get("owner", ""))
    _id(name, "view", problems)
    _id(owner, "owner", problems)
    where = "group_by" if aggregate else "key"
    key = _list(doc.get(where, ()), where, problems)
    if not key:
        problems.add(where, "at least one field is needed")
    for part in key:
        _id(part, where, problems)
    sources = () if aggregate else _sources(doc, key, problems)
    fields = () if aggregate else _fields(doc, key, sources, problems)
    over = _over(doc, problems) if aggregate else ()
    measures = _measures(doc, key, over, problems) if aggregate else ()
    title = dict(_mapping(doc.get("title") or {"zh": name, "en": name}, "title", problems))
    problems.raise_if_any()
    listed = bool(doc.get("listed", True))
    return View(name, title, owner, kind, key, sources, fields, over, measures, listed, document=doc)
