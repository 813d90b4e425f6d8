"""Declarations of views: what they mean, and every problem of one at once."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ruamel.yaml
from hypothesis import given
from hypothesis import strategies as st

from bus.core.columns import Column, columns_of, find_columns
from bus.core.contracts import Contract, Kind, parse_contract
from bus.core.declarations import parse_view, read_view
from bus.core.guards import guarded
from bus.core.openness import check_openness
from bus.core.problems import Problems, line_of, numbered
from bus.core.soundness import check_reads, check_view
from bus.errors import InvalidDeclaration, InvalidSchema

ROOT = Path(__file__).parents[2]
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
Doc = dict[str, Any]


def contract(department: str, name: str, key: list[str], fields: dict[str, Any]) -> Contract:
    attributes = {"owner": department, "contact": "a@b", "freshness": "P1D", "retention": "P1Y", "legal_basis": "x"}
    documents = [
        {"name": field, "type": avro, "bus.title": {"en": field.title()}, **({"bus.class": "conditional"} if i else {})}
        for i, (field, avro) in enumerate(fields.items())
    ]
    return parse_contract(
        {
            "type": "record",
            "name": name,
            "namespace": department,
            "bus.key": key,
            "fields": documents,
            **{f"bus.{attribute}": value for attribute, value in attributes.items()},
        }
    )


LICENCE = contract("market", "Licence", ["term"], {"term": "long", "licence": "long", "name": "string", "fee": MONEY})
INSPECTION = contract(
    "food", "Inspection", ["id"], {"id": "long", "licence": "long", "ward": "int", "result": "string"}
)
CONTRACTS = {found.id: found for found in (LICENCE, INSPECTION)}
ENTITY: Doc = {
    "view": "business",
    "owner": "market",
    "key": ["licence"],
    "sources": {
        "licence": {"entity": "market.Licence", "rank": ["name", "term"]},
        "inspection": {"entity": "food.inspection", "key": ["licence"]},
    },
    "fields": {
        "zz": {"from": "licence.name"},
        "fee": {"from": "licence.fee"},
        "aa": {"from": "inspection.result"},
        "ward": {"from": "inspection.ward"},
    },
}
VISITS: Doc = {
    "view": "visits",
    "owner": "food",
    "kind": "history",
    "key": ["id"],
    "sources": {"visit": {"entity": "food.inspection"}},
    "fields": {name: {"from": f"visit.{name}"} for name in ("licence", "ward", "result")},
}
FIGURES: Doc = {
    "view": "figures",
    "owner": "food",
    "kind": "aggregate",
    "over": {
        "b": {"view": "business"},
        "v": {"view": "visits", "join": {"licence": "business.licence"}, "bring": ["fee"]},
    },
    "group_by": ["ward"],
    "measures": {
        "visits": {"count": "v", "where": {"field": "result", "op": "eq", "value": "Pass"}},
        "fees": {"sum": "v.fee"},
        "results": {"distinct": "v.result"},
    },
}


def changed(doc: Doc, change: Callable[[Doc], Any]) -> Doc:
    found = copy.deepcopy(doc)
    change(found)
    return found


def known_columns() -> dict[str, tuple[Column, ...]]:
    return {doc["view"]: columns_of(parse_view(doc), CONTRACTS) for doc in (ENTITY, VISITS)}


def test_an_entity_view() -> None:
    """Columns are the key, then the fields in the declared order, with the kinds and classes of their contracts."""
    view = parse_view(ENTITY)
    assert view.entities == ("market.licence", "food.inspection")
    assert view.source("licence").rank == ("name", "term")  # type: ignore[union-attr]
    columns = columns_of(view, CONTRACTS)
    assert [column.name for column in columns] == ["licence", "zz", "fee", "aa", "ward"]
    by_name = {column.name: column for column in columns}
    assert (by_name["licence"].nullable, by_name["licence"].source) == (False, None)
    assert (by_name["fee"].kind, by_name["fee"].scale, by_name["fee"].source) == (Kind.DECIMAL, 2, "licence")
    assert (by_name["aa"].title, by_name["aa"].classification, by_name["aa"].nullable) == (
        {"en": "Result"},
        "conditional",
        True,
    )


def test_an_aggregate() -> None:
    """It reads the views it counts and those it joins; figures have the kind of what they are computed from."""
    view = parse_view(FIGURES)
    assert view.reads == ("business", "visits")
    columns = {column.name: column for column in columns_of(view, CONTRACTS, known_columns())}
    assert list(columns) == ["ward", "visits", "fees", "results"]
    assert (columns["ward"].kind, columns["ward"].nullable) == (Kind.INTEGER, True)
    assert (columns["fees"].kind, columns["fees"].scale, columns["fees"].nullable) == (Kind.DECIMAL, 2, True)
    assert (columns["visits"].kind, columns["visits"].nullable) == (Kind.INTEGER, False)


def test_a_group_of_decimals_keeps_its_scale() -> None:
    """Grouped by a decimal, the group is that decimal, not a hundred times as much."""
    doc = changed(FIGURES, lambda d: d.update(group_by=["fee"], measures={"n": {"count": "b"}}))
    assert columns_of(parse_view(doc), CONTRACTS, known_columns())[0].scale == 2


def test_a_group_is_as_guarded_as_its_most_guarded_source() -> None:
    """The values of a group come from all sources, so the strictest class and personal count."""
    known = known_columns()
    ward = {"name": "ward", "kind": Kind.INTEGER, "nullable": True, "title": {}}
    known["business"] = (Column(**ward, classification="open", personal=False),)
    known["visits"] = (
        Column(**ward, classification="restricted", personal=True),
        Column("licence", Kind.INTEGER, True, {}, "open", False),
    )
    doc = changed(FIGURES, lambda d: d.update(measures={"n": {"count": "b"}}))
    doc["over"]["v"] = {"view": "visits"}
    column = columns_of(parse_view(doc), CONTRACTS, known)[0]
    assert (column.classification, column.personal) == ("restricted", True)


def test_all_problems_at_once() -> None:
    """An author sees everything that is wrong with a file, with the nearest name for each misspelling."""
    doc = {
        "view": "Business",
        "owner": "",
        "kind": "entity",
        "keys": ["licence"],
        "key": [],
        "sources": {"licence": {"entity": "market.licence", "ranks": []}},
        "fields": {"name": {"from": "licenc.name"}, "Fee": {"from": "fee"}, "x": 1, "y": {"form": "licence.name"}},
    }
    with pytest.raises(InvalidDeclaration) as refused:
        parse_view(doc)
    problems = refused.value.members["problems"]
    for start in (
        "view: 'Business' is not an id",
        "owner: '' is not an id",
        "view: 'keys' is not known here. Did you mean 'key'?",
        "key: at least one field",
        "sources.licence: 'ranks' is not known here. Did you mean 'rank'?",
        "fields.name: there is no source 'licenc'. Did you mean 'licence'?",
        "fields.Fee: needs `from: source.field`",
        "fields.Fee: 'Fee' is not an id",
        "fields.x: expected a mapping, received int",
        "fields.y: 'form' is not known here. Did you mean 'from'?",
    ):
        assert any(problem.startswith(start) for problem in problems), (start, problems)
    assert str(len(problems)) in refused.value.detail


def _set(*path: Any) -> Callable[[Doc], None]:
    *places, value = path

    def change(doc: Doc) -> None:
        for place in places[:-1]:
            doc = doc[place]
        doc[places[-1]] = value

    return change


@pytest.mark.parametrize(
    ("doc", "change", "problem"),
    [
        (ENTITY, _set("key", "licence"), "key: expected a list of names, received str"),
        (ENTITY, _set("key", 5), "key: expected a list of names, received int"),
        (ENTITY, _set("key", [["licence"]]), "key: expected a list of names"),
        (ENTITY, _set("key", ["licence", "licence"]), "key: names 'licence' more than once"),
        (ENTITY, _set("key", ["_live"]), "key: '_live' is not an id"),
        (ENTITY, _set("sources", "licence", "rank", "name"), "sources.licence.rank: expected a list of names"),
        (ENTITY, _set("sources", "inspection", "key", ["a", "b"]), "sources.inspection.key: names 2 fields"),
        (ENTITY, _set("sources", 'a"; drop', {"entity": "food.inspection"}), "'a\"; drop' is not an id"),
        (ENTITY, _set("sources", {}), "sources: at least one source"),
        (ENTITY, _set("sources", None), "sources: expected a mapping, received NoneType"),
        (ENTITY, _set("fields", "licence", {"from": "licence.name"}), "fields.licence: is a key column"),
        (ENTITY, _set("title", "Business"), "title: expected a mapping, received str"),
        (ENTITY, _set("kind", "table"), "kind: 'table' is not one of"),
        (ENTITY, _set("stale", "no"), "stale: expected true or false, received 'no'"),
        (ENTITY, _set("listed", 0), "listed: expected true or false"),
        (ENTITY, _set("fields", "zz", "class", "opne"), "'opne' is not one of open, conditional, restricted. Did you"),
        (
            ENTITY,
            _set("fields", "zz", "also_reported_by", "inspection.x"),
            "also_reported_by: expected a list of names",
        ),
        (ENTITY, _set("fields", "zz", "also_reported_by", ["inspection"]), "'inspection' is not `source.field`"),
        (ENTITY, _set("fields", "zz", "also_reported_by", ["licence.fee"]), "the source that the field shows itself"),
        (ENTITY, _set("fields", "zz", "also_reported_by", ["inspecton.x"]), "Did you mean 'inspection'?"),
        (ENTITY, _set("fields", "licence", {"from": "licence.licence", "also_reported_by": []}), "not its key"),
        (ENTITY, _set("lookups", {"licence": {"view": "v", "by": "ward"}}), "has the name of a source"),
        (ENTITY, _set("lookups", {"v": {"view": "visits"}}), "lookups.v: needs `by`"),
        (ENTITY, _set("lookups", {"v": {"view": 5, "by": ["a", "a"]}}), "lookups.v.view: '5' is not an id"),
        (ENTITY, _set("lookups", {"v": {"view": "v", "by": ["a", "a"]}}), "lookups.v.by: names 'a' more than once"),
        (ENTITY, _set("lookups", []), "lookups: expected a mapping"),
        (ENTITY, _set("valid", {"from": "term"}), "valid: is for history views, this one is of kind entity"),
        (VISITS, _set("valid", {"to": "ward"}), "valid: needs `from`"),
        (VISITS, _set("valid", {"from": "ward", "til": "x"}), "valid: 'til' is not known here"),
        (FIGURES, _set("lookups", {"v": {"view": "visits", "by": "ward"}}), "view: 'lookups' is not known here"),
        (FIGURES, _set("over", "b", "bring", ["fee"]), "over.b.bring: needs `join`"),
        (FIGURES, _set("measures", "_live", {"count": "v"}), "measures._live: '_live' is not an id"),
        (FIGURES, _set("measures", "ward", {"count": "v"}), "measures.ward: has the name of a group_by field"),
        (FIGURES, _set("measures", "visits", {"count": "w"}), "measures.visits: there is no 'w' under `over`"),
        (FIGURES, _set("measures", "visits", {"sum": "v"}), "measures.visits: sum needs `source.field`"),
        (FIGURES, _set("measures", "visits", {"sum": "v.a", "max": "v.a"}), "measures.visits: needs exactly one of"),
        (FIGURES, _set("measures", "visits", {"count": "v", "where": {"op": "eq"}}), "measures.visits.where:"),
        (FIGURES, _set("measures", {}), "measures: an aggregate needs at least one"),
        (FIGURES, _set("over", {}), "over: an aggregate needs at least one"),
        (FIGURES, _set("over", "v", "join", {}), "over.v.join: needs one pair"),
        (FIGURES, _set("over", "v", "bring", "fee"), "over.v.bring: expected a list of names"),
    ],
)
def test_what_is_refused(doc: Doc, change: Callable[[Doc], None], problem: str) -> None:
    """Each mistake is named with its place; none is a crash or taken for something else."""
    with pytest.raises(InvalidDeclaration) as refused:
        parse_view(changed(doc, change))
    assert any(problem in found for found in refused.value.members["problems"]), refused.value.members["problems"]


@pytest.mark.parametrize(
    ("doc", "change", "problem"),
    [
        (ENTITY, _set("sources", "licence", "entity", "market.licens"), "Did you mean 'market.licence'?"),
        (ENTITY, _set("fields", "zz", {"from": "licence.nam"}), "Did you mean 'name'?"),
        (ENTITY, _set("sources", "licence", "rank", ["nam"]), "sources.licence: market.licence has no field 'nam'"),
        (ENTITY, _set("sources", "inspection", "key", ["wrad"]), "food.inspection has no field 'wrad'"),
        (FIGURES, _set("over", "b", {"view": "busines"}), "there is no view 'busines'. Did you mean 'business'?"),
        (FIGURES, _set("group_by", ["zz"]), "over.v: does not offer 'zz' of group_by"),
        (FIGURES, _set("measures", "fees", {"sum": "v.fees"}), "has no field 'fees'. Did you mean 'fee'?"),
        (
            FIGURES,
            _set("measures", "visits", {"count": "v", "where": {"field": "reslt", "op": "eq", "value": "a"}}),
            "has no field 'reslt'. Did you mean 'result'?",
        ),
    ],
)
def test_what_has_no_columns(doc: Doc, change: Callable[[Doc], None], problem: str) -> None:
    """A source, field or view that is not there is named with the nearest that is."""
    view = parse_view(changed(doc, change))
    with pytest.raises(InvalidDeclaration) as refused:
        columns_of(view, CONTRACTS, known_columns())
    assert problem in refused.value.detail


def test_a_group_of_two_kinds_is_refused() -> None:
    """The same group cannot be a number in one source and text in another."""
    known = known_columns()
    known["visits"] = tuple(
        Column(c.name, Kind.TEXT, True, {}, "open", False) if c.name == "ward" else c for c in known["visits"]
    )
    with pytest.raises(InvalidDeclaration, match="not of one kind"):
        columns_of(parse_view(FIGURES), CONTRACTS, known)


def test_a_key_that_names_a_field_twice() -> None:
    """It would be one column that is two."""
    with pytest.raises(InvalidSchema, match="more than once"):
        contract("market", "Twice", ["a", "a"], {"a": "long"})


NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
BROUGHT: Doc = {
    **VISITS,
    "lookups": {"b": {"view": "business", "by": "licence"}},
    "fields": {**VISITS["fields"], "name": {"from": "b.zz"}},
}
EVERYTHING: Doc = {
    **BROUGHT,
    "valid": {"from": "term", "to": "term"},
    "fields": {**VISITS["fields"], "name": {"from": "b.zz", "class": "open", "also_reported_by": ["visit.result"]}},
}


@given(doc=st.sampled_from([ENTITY, VISITS, FIGURES, EVERYTHING]), data=st.data())
def test_nonsense_is_refused_not_a_crash(doc: Doc, data: st.DataObject) -> None:
    """Whatever stands anywhere in a declaration, it is a view or a refusal that names problems and their places; and
    what can be understood of it is checked against contracts and views all the same."""
    found = copy.deepcopy(doc)
    place: Any = found
    for _ in range(data.draw(st.integers(0, 3))):
        inner = [name for name, value in place.items() if isinstance(value, dict)]
        if not inner:
            break
        place = place[data.draw(st.sampled_from(inner))]
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(NONSENSE)
    problems = Problems("the view")
    view = read_view(found, problems)
    named: list[str] = []
    try:
        parse_view(found)
    except InvalidDeclaration as refused:
        named = refused.members["problems"]
    assert named == problems.found
    known = known_columns()
    columns = find_columns(view, CONTRACTS, known, problems)
    check_view(view, columns, CONTRACTS, known, problems)
    others = {parse_view(doc).name: parse_view(doc) for doc in (ENTITY, VISITS)}
    check_reads(view, others, {column.name: column for column in columns}, known, problems)
    check_openness(view, guarded(view, columns, CONTRACTS, known), problems)
    assert len(problems.places) == len(problems.found)


@pytest.mark.parametrize(
    ("doc", "change", "problem"),
    [
        (
            VISITS,
            _set("key", ["licence"]),
            "key: a history view keeps the versions of each food.inspection, so its key",
        ),
        (VISITS, _set("valid", {"from": "ward"}), "valid: 'ward' is integer. Name a date or timestamp"),
        (VISITS, _set("valid", {"from": "wrad"}), "food.inspection has no field 'wrad'. Did you mean 'ward'?"),
        (
            VISITS,
            _set("lookups", {"f": {"view": "figures", "by": "ward"}}),
            "'figures' is an aggregate. Look up an entity",
        ),
        (VISITS, _set("lookups", {"f": {"view": "busines", "by": "ward"}}), "Did you mean 'business'?"),
        (
            VISITS,
            _set("lookups", {"b": {"view": "business", "by": "result"}}),
            "'result' is text, 'business.licence' is",
        ),
        (VISITS, _set("lookups", {"b": {"view": "business", "by": ["ward", "id"]}}), "names 2 column(s), the key of"),
        (VISITS, _set("lookups", {"b": {"view": "business", "by": "wrad"}}), "no field 'wrad'. Did you mean 'ward'?"),
        (BROUGHT, _set("fields", "name", "from", "b.z"), "view 'business' has no field 'z'"),
        (ENTITY, _set("fields", "fee", "also_reported_by", ["inspection.ward"]), "'ward' is integer, 'fee' is decimal"),
        (
            ENTITY,
            _set("fields", "fee", "also_reported_by", ["inspection.wrad"]),
            "no field 'wrad'. Did you mean 'ward'?",
        ),
        (FIGURES, _set("over", "b", {"view": "figures_"}), "'figures_' is an aggregate. Count an entity or history"),
        (FIGURES, _set("over", "v", "bring", ["fe"]), "'business' has no field 'fe'. Did you mean 'fee'?"),
        (FIGURES, _set("over", "v", "join", {"result": "business.licence"}), "'result' is text, 'business.licence' is"),
        (FIGURES, _set("over", "v", "join", {"licence": "business.ward"}), "'ward' is not the key of 'business'"),
        (FIGURES, _set("measures", "fees", {"sum": "v.result"}), "'result' is text, which has no sum"),
        (
            FIGURES,
            _set("measures", "visits", {"count": "v", "where": {"field": "ward", "op": "eq", "value": "a"}}),
            "measures.visits.where:",
        ),
    ],
)
def test_what_does_not_fit(doc: Doc, change: Callable[[Doc], None], problem: str) -> None:
    """Kinds, keys and kinds of views must fit; the refusal says what to do."""
    view = parse_view(changed(doc, change))
    columns = known_columns()
    columns["figures"] = columns["figures_"] = columns_of(parse_view(FIGURES), CONTRACTS, columns)
    others = {name: replace(parse_view(FIGURES), name=name) for name in ("figures", "figures_")}
    others |= {parse_view(doc).name: parse_view(doc) for doc in (ENTITY, VISITS)}
    problems = Problems("x")
    found = find_columns(view, CONTRACTS, columns, problems)
    check_view(view, found, CONTRACTS, columns, problems)
    check_reads(view, others, {column.name: column for column in found}, columns, problems)
    assert any(problem in text for text in problems.found), problems.found


def test_a_look_up_goes_by_the_views_own_columns() -> None:
    """What is brought over cannot be looked up by: each side would wait for the other."""
    doc = changed(BROUGHT, lambda d: d["lookups"].update(c={"view": "business", "by": "name"}))
    view, known, problems = parse_view(doc), known_columns(), Problems("x")
    found = find_columns(view, CONTRACTS, known, problems)
    check_view(view, found, CONTRACTS, known, problems)
    assert any("'name' comes from a look-up itself" in text for text in problems.found)


def test_lines_of_problems() -> None:
    """A problem stands at its member, or at the nearest member around it that the file has."""
    lines = {"view": 1, "fields": 4, "fields.ward": 5, "fields.ward.from": 6}
    assert [line_of(place, lines) for place in ("fields.ward.from", "fields.ward.class", "fields.x.y", "key")] == [
        6,
        5,
        4,
        1,
    ]
    found = numbered(["b: 2", "a: 1"], ["fields.ward", "view"], lines, "f.yaml")
    assert found == ["f.yaml:1: a: 1", "f.yaml:5: b: 2"]


@pytest.mark.parametrize("path", sorted((ROOT / "schemas" / "views").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_demos_views(path: Path) -> None:
    """They are read, and every column of theirs has a contract behind it."""
    avsc = (json.loads(found.read_text()) for found in (ROOT / "schemas").glob("*/*.avsc"))
    contracts = {found.id: found for found in map(parse_contract, avsc)}
    yaml = ruamel.yaml.YAML(typ="safe")
    documents = [yaml.load(found) for found in sorted((ROOT / "schemas" / "views").glob("*.yaml"))]
    views = sorted((parse_view(doc) for doc in documents), key=lambda view: view.kind == "aggregate")
    columns: dict[str, tuple[Column, ...]] = {}
    for view in views:
        columns[view.name] = columns_of(view, contracts, columns)
    assert columns[path.stem]
