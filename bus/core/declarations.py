"""Reads a view's YAML document: `parse_view` names every problem at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bus.core import names
from bus.core.conditions import parse_condition
from bus.core.contracts import CLASSES
from bus.core.problems import Problems
from bus.core.questions import read_questions
from bus.core.views import FUNCTIONS, KINDS, Join, Lookup, Measure, Over, Source, View, ViewField
from bus.errors import BusError


@dataclass(frozen=True, slots=True)
class _Known:
    """What fields may name: the view's key, its sources, its look-ups by name."""

    key: tuple[str, ...]
    sources: tuple[Source, ...]
    lookups: tuple[str, ...]


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


def _flag(doc: Mapping[str, Any], member: str, default: bool, problems: Problems, where: str = "") -> bool:
    value = doc.get(member, default)
    if not isinstance(value, bool):
        problems.add(where or member, f"expected true or false, received {value!r}")
        return default
    return value


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


def _lookups(doc: Mapping[str, Any], sources: tuple[Source, ...], problems: Problems) -> tuple[Lookup, ...]:
    found, taken = [], {source.name for source in sources}
    for name, value in _mapping(doc.get("lookups", {}), "lookups", problems).items():
        where = f"lookups.{name}"
        lookup = _mapping(value, where, problems)
        problems.unknown_members(where, lookup, ("view", "by"))
        by = lookup.get("by", ())
        columns = (by,) if isinstance(by, str) else _list(by, f"{where}.by", problems)
        if not columns:
            problems.add(where, "needs `by`: this view's columns that hold the other's key")
        if name in taken:
            problems.add(where, "has the name of a source. Give it another.")
        view = _id(lookup.get("view"), f"{where}.view", problems)
        found.append(Lookup(_id(name, where, problems), view, columns))
    return tuple(found)


def _also(
    value: Any, source: str, where: str, others: Iterable[str], problems: Problems
) -> tuple[tuple[str, str], ...]:
    """The fields of this view's other sources that report the same datum."""
    found, others = [], [name for name in others if name != source]
    for text in _list(value, where, problems):
        other, dot, field = text.partition(".")
        if not dot or not field:
            problems.add(where, f"'{text}' is not `source.field`")
        elif other == source:
            problems.add(where, f"'{text}' is of the source that the field shows itself. Name another department's.")
        elif other not in others:
            hint = names.nearest(other, others) or "The view has no other source."
            problems.add(where, f"there is no source '{other}'. {hint}")
        found.append((other, field))
    return tuple(found)


def _from(name: str, text: str, own: Mapping[str, Source], known: _Known, problems: Problems) -> tuple[str, str]:
    """What a field shows, as (source or look-up, field)."""
    where = f"fields.{name}"
    source, dot, field = text.partition(".")
    if not dot or not field:
        problems.add(where, "needs `from: source.field`", f"{where}.from")
    elif source not in own and source not in known.lookups:
        hint = names.nearest(source, {*own, *known.lookups})
        problems.add(where, f"there is no source '{source}'. {hint}", f"{where}.from")
    elif name in known.key and source not in own:
        problems.add(where, "is a key column, which no look-up can fill. Give it another name.")
    elif name in known.key and dict(zip(known.key, own[source].key, strict=False)).get(name) != field:
        problems.add(where, f"is a key column and '{source}.{field}' is not its key. Give it another name.")
    return source, field


def _fields(doc: Mapping[str, Any], known: _Known, problems: Problems) -> tuple[ViewField, ...]:
    found, own = [], {source.name: source for source in known.sources}
    for name, value in _mapping(doc.get("fields", {}), "fields", problems).items():
        where = f"fields.{name}"
        field = _mapping(value, where, problems)
        problems.unknown_members(where, field, ("from", "also_reported_by", "compare", "class", "search"))
        source, source_field = _from(str(name), str(field.get("from", "")), own, known, problems)
        also: tuple[tuple[str, str], ...] = ()
        if "also_reported_by" in field:
            place = f"{where}.also_reported_by"
            also = _also(field["also_reported_by"], source, place, own, problems)
            if source not in own or name in known.key:
                problems.add(place, "is for fields of the view's own sources that are not its key")
        compare = field.get("compare", "exact")
        if compare not in ("exact", "folded") or ("compare" in field and not also):
            problems.add(f"{where}.compare", "is exact, or folded (case and white space aside), of also_reported_by")
        declared = field.get("class")
        if declared is not None and declared not in CLASSES:
            hint = names.nearest(str(declared), CLASSES)
            problems.add(f"{where}.class", f"'{declared}' is not one of {', '.join(CLASSES)}. {hint}")
        classification = str(declared) if declared in CLASSES else None
        found.append(
            ViewField(
                _id(name, where, problems),
                source,
                source_field,
                also,
                classification,
                compare == "folded",
                _flag(field, "search", False, problems, f"{where}.search"),
            )
        )
    return tuple(found)


def _valid(doc: Mapping[str, Any], kind: str, problems: Problems) -> tuple[str, ...]:
    """The source's fields that say from when and until when a version holds."""
    if "valid" not in doc:
        return ()
    valid = _mapping(doc["valid"], "valid", problems)
    problems.unknown_members("valid", valid, ("from", "to"))
    if kind != "history":
        problems.add("valid", f"is for history views, this one is of kind {kind}. Leave it out or say `kind: history`.")
    if "from" not in valid:
        problems.add("valid", "needs `from`: the field that says from when a version holds")
        return ()
    return tuple(str(valid[member]) for member in ("from", "to") if member in valid)


def _join(doc: Mapping[str, Any], where: str, problems: Problems) -> Join | None:
    if "join" not in doc:
        if "bring" in doc:
            problems.add(f"{where}.bring", "needs `join`, which says from which view")
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


_COMMON = ("view", "title", "owner", "kind", "listed", "stale", "questions")
_ENTITY_MEMBERS = (*_COMMON, "key", "sources", "lookups", "fields", "valid")
_AGGREGATE_MEMBERS = (*_COMMON, "over", "group_by", "measures")


def _kind(doc: Mapping[str, Any], problems: Problems) -> str:
    kind = str(doc.get("kind", "entity"))
    if kind not in KINDS:
        problems.add("kind", f"'{kind}' is not one of {', '.join(KINDS)}. {names.nearest(kind, KINDS)}")
    return kind


def read_view(doc: Any, problems: Problems) -> View:
    """The view as far as the document can be understood; what is wrong with it goes to ``problems``."""
    doc = _mapping(doc, "view", problems)
    kind = _kind(doc, problems)
    aggregate = kind == "aggregate"
    problems.unknown_members("view", doc, _AGGREGATE_MEMBERS if aggregate else _ENTITY_MEMBERS)
    name, owner = _id(doc.get("view", ""), "view", problems), _id(doc.get("owner", ""), "owner", problems)
    where = "group_by" if aggregate else "key"
    key = _list(doc.get(where, ()), where, problems)
    if not key:
        problems.add(where, "at least one field is needed")
    for part in key:
        _id(part, where, problems)
    sources = () if aggregate else _sources(doc, key, problems)
    lookups = () if aggregate else _lookups(doc, sources, problems)
    known = _Known(key, sources, tuple(lookup.name for lookup in lookups))
    over = _over(doc, problems) if aggregate else ()
    return View(
        name,
        dict(_mapping(doc.get("title") or {"zh": name, "en": name}, "title", problems)),
        owner,
        kind,
        key,
        sources,
        () if aggregate else _fields(doc, known, problems),
        over,
        _measures(doc, key, over, problems) if aggregate else (),
        _flag(doc, "listed", True, problems),
        lookups,
        () if aggregate else _valid(doc, kind, problems),
        _flag(doc, "stale", False, problems),
        document=doc,
        questions=read_questions(doc.get("questions", {}), problems),
    )


def problems_of(doc: Any) -> Problems:
    """An empty list of problems that is headed by the name of the declared view."""
    return Problems(f"view '{doc.get('view', '?')}'" if isinstance(doc, Mapping) else "the file")


def parse_view(doc: Mapping[str, Any]) -> View:
    """The view that a YAML document declares. Raises `InvalidDeclaration` naming every problem."""
    problems = problems_of(doc)
    view = read_view(doc, problems)
    problems.raise_if_any()
    return view
