"""Declarations in the governance database: one change at a time, and only what can be built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from views_world import INSPECTION, INSPECTIONS, LICENCE, MONEY, VIEW, schema

from bus.core.contracts import Contract, Kind, parse_contract
from bus.core.declarations import parse_view
from bus.errors import InvalidDeclaration, UnknownView
from bus.infra.database import open_database
from bus.views.catalogue import Declarations, Shape, shape_of, shapes

CONTRACTS = {found.id: found for found in map(parse_contract, (LICENCE, INSPECTION))}
COUNTS: dict[str, Any] = {
    "view": "counts",
    "owner": "food",
    "kind": "aggregate",
    "over": {"i": {"view": "inspections"}},
    "group_by": ["result"],
    "measures": {"n": {"count": "i"}},
}


def test_changes_at_the_same_time(database_url: str) -> None:
    """Many threads declare and drop the same views: none fails but with a refusal, the revision counts each change,
    and no aggregate is left without the view that it reads."""
    made = [Declarations(open_database(database_url, "governance")) for _ in range(4)]

    def change(number: int) -> int:
        declarations = made[number % 4]
        try:
            match number % 5:
                case 0:
                    declarations.drop("inspections")
                case 1:
                    return declarations.apply(COUNTS, CONTRACTS).changed
                case 2:
                    declarations.drop("counts")
                case 3:
                    return declarations.apply({**VIEW, "title": {"en": str(number)}}, CONTRACTS).changed
                case _:
                    return declarations.apply(INSPECTIONS, CONTRACTS).changed
        except (InvalidDeclaration, UnknownView):
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        changed = sum(pool.map(change, range(100)))
    assert made[0].revision() == changed
    declared = made[0].all()
    assert set(shapes(made[0], CONTRACTS)) == set(declared)


def test_the_declared_order_of_fields_is_kept(database_url: str) -> None:
    """Readers see the columns as their author listed them."""
    declarations = Declarations(open_database(database_url, "governance"))
    declarations.apply(VIEW, CONTRACTS)
    assert [field.name for field in declarations.get("food_business").fields] == list(VIEW["fields"])
    assert not declarations.apply(VIEW, CONTRACTS).changed
    assert declarations.revision() == 1


def test_keys_of_different_scales_are_refused() -> None:
    """1.00 and 1 would be two keys on one database and one on the other."""
    whole = {**MONEY, "scale": 0, "precision": 9}
    contracts = {
        found.id: found
        for found in map(
            parse_contract,
            (schema("market", "A", ["fee"], {"fee": MONEY}), schema("market", "B", ["fee"], {"fee": whole})),
        )
    }
    sources = {"a": {"entity": "market.a"}, "b": {"entity": "market.b"}}
    view = parse_view({"view": "fees", "owner": "market", "key": ["fee"], "sources": sources})
    with pytest.raises(InvalidDeclaration, match="another scale"):
        shape_of(view, contracts, {})


def shape(doc: Mapping[str, Any], contracts: Mapping[str, Contract] = CONTRACTS, **others: Shape) -> Shape:
    return shape_of(parse_view(doc), contracts, others)


def with_field(document: Mapping[str, Any], **field: Any) -> dict[str, Contract]:
    """The contracts after a new version of one."""
    changed = parse_contract({**document, "fields": [*document["fields"], field]})
    return {**CONTRACTS, changed.id: changed}


BROUGHT = {
    **INSPECTIONS,
    "lookups": {"business_": {"view": "food_business", "by": "business"}},
    "fields": {**INSPECTIONS["fields"], "fee": {"from": "business_.fee"}},  # type: ignore[dict-item]
}


@pytest.mark.parametrize(
    "change",
    [
        {"title": {"en": "another", "zh": "别名"}},
        {"owner": "food"},
        {"listed": False},
        {"stale": True},
        {"fields": {**VIEW["fields"], "name": {"from": "licence.name", "class": "restricted"}}},  # type: ignore[dict-item]
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_needs_no_rebuild(change: dict[str, Any]) -> None:
    """Words, classes and answers while behind do not touch the tables."""
    assert shape({**VIEW, **change}).fingerprint == shape(VIEW).fingerprint


def test_a_new_contract_version_that_changes_nothing_used_needs_no_rebuild() -> None:
    """A field that the view does not show may come, be retitled and be made stricter."""
    more = with_field(LICENCE, name="note", type=["null", "string"], default=None)
    assert shape(VIEW, more).fingerprint == shape(VIEW).fingerprint
    fields = [{**field, "bus.title": {"en": "New"}, "bus.class": "restricted"} for field in LICENCE["fields"]]
    titled = parse_contract({**LICENCE, "fields": fields})
    assert shape(VIEW, {**CONTRACTS, titled.id: titled}).fingerprint == shape(VIEW).fingerprint


def test_a_shadow_has_the_fingerprint_of_its_view() -> None:
    """What is built beside a view takes its place, so the same tables are the same thing under both names."""
    live = shape(VIEW)
    for suffix in ("+next", "+old"):
        shadow = replace(live, view=replace(live.view, name=f"food_business{suffix}"))
        assert shadow.fingerprint == live.fingerprint
    assert replace(live, view=replace(live.view, name="another")).fingerprint != live.fingerprint


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("fields", "name", "from"), "inspection.result"),
        (("fields", "name", "also_reported_by"), ["inspection.result"]),
        (("sources", "licence", "rank"), ["name", "starts"]),
        (("sources", "inspection", "key"), ["inspection"]),
        (("fields", "more"), {"from": "inspection.passed"}),
    ],
    ids=lambda place: "/".join(place) if isinstance(place, tuple) else "",
)
def test_what_needs_a_rebuild(place: tuple[str, ...], value: Any) -> None:
    """Each thing that the tables are made of counts."""
    doc = json.loads(json.dumps(VIEW))
    inner = doc
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = value
    assert shape(doc).fingerprint != shape(VIEW).fingerprint


def test_another_version_field_or_scale_needs_a_rebuild() -> None:
    """They decide which event is newest and what is stored."""
    unversioned = {name: value for name, value in INSPECTION.items() if name != "bus.version"}
    coarse = [
        {**field, "type": ["null", {**MONEY, "scale": 1}]} if field["name"] == "fee" else field
        for field in LICENCE["fields"]
    ]
    for document in (unversioned, {**LICENCE, "fields": coarse}):
        changed = parse_contract(document)
        assert shape(VIEW, {**CONTRACTS, changed.id: changed}).fingerprint != shape(VIEW).fingerprint


def test_columns_that_a_look_up_brings() -> None:
    """They have the other view's kind, may be missing, and say which look-up brings them."""
    business = shape(VIEW)
    brought = shape(BROUGHT, food_business=business)
    column = next(column for column in brought.columns if column.name == "fee")
    assert (column.kind, column.scale, column.nullable, column.source) == (Kind.DECIMAL, 2, True, "business_")
    assert brought.view.reads == ("food_business",)


def test_a_view_that_others_look_up(database_url: str) -> None:
    """It is neither dropped nor changed so that they break, and no view may read itself through others."""
    declarations = Declarations(open_database(database_url, "governance"))
    with pytest.raises(InvalidDeclaration, match="there is no view 'food_business'"):
        declarations.apply(BROUGHT, CONTRACTS)
    declarations.apply(VIEW, CONTRACTS)
    declarations.apply(BROUGHT, CONTRACTS)
    assert list(shapes(declarations, CONTRACTS)) == ["food_business", "inspections"]
    with pytest.raises(InvalidDeclaration, match="is read by inspections"):
        declarations.drop("food_business")
    without = {name: field for name, field in VIEW["fields"].items() if name != "fee"}  # type: ignore[attr-defined]
    with pytest.raises(InvalidDeclaration, match=r"'inspections' reads it and would break: .*no field 'fee'"):
        declarations.apply({**VIEW, "fields": without}, CONTRACTS)
    back = {"last": {"view": "inspections", "by": "licence"}}
    with pytest.raises(InvalidDeclaration, match="food_business -> inspections -> food_business"):
        declarations.apply({**VIEW, "lookups": back}, CONTRACTS)
    declarations.drop("inspections")
    declarations.drop("food_business")


def test_everything_wrong_at_once(database_url: str) -> None:
    """What the document says wrongly and what its contracts lack are told together, each with its place."""
    declarations = Declarations(open_database(database_url, "governance"))
    doc = json.loads(json.dumps(VIEW))
    doc["fields"]["name"] = {"form": "licence.name"}
    doc["fields"]["area"]["from"] = "licence.aera"
    doc["sources"]["licence"]["rank"] = ["start"]
    with pytest.raises(InvalidDeclaration) as refused:
        declarations.apply(doc, CONTRACTS)
    members = refused.value.members
    found = dict(zip(members["places"], members["problems"], strict=True))
    assert "Did you mean 'from'?" in found["fields.name.form"]
    assert "Did you mean 'area'?" in found["fields.area.from"]
    assert "Did you mean 'starts'?" in found["sources.licence.rank.start"]


def test_shapes_are_computed_again_when_something_changed(database_url: str) -> None:
    """The same objects while nothing did; new ones with another view, contract or declassification."""
    declarations = Declarations(open_database(database_url, "governance"))
    declarations.apply(VIEW, CONTRACTS)
    first = shapes(declarations, CONTRACTS)
    assert shapes(declarations, CONTRACTS)["food_business"] is first["food_business"]
    stricter = [{**field, "bus.class": "restricted"} for field in LICENCE["fields"]]
    changed = parse_contract({**LICENCE, "fields": stricter})
    closed = shapes(declarations, {**CONTRACTS, changed.id: changed})["food_business"]
    assert {column.name for column in closed.columns if column.classification == "restricted"} >= {"name", "fee"}
    lowered = {
        ("food_business", "fee", f"market.licence.{field}"): ("restricted", "open") for field in changed_fields()
    }
    opened = shapes(declarations, {**CONTRACTS, changed.id: changed}, lowered)["food_business"]
    assert {column.name: column.classification for column in opened.columns}["fee"] == "open"
    declarations.apply(INSPECTIONS, CONTRACTS)
    assert set(shapes(declarations, CONTRACTS)) == {"food_business", "inspections"}
    declarations.drop("food_business")
    assert set(shapes(declarations, CONTRACTS)) == {"inspections"}


def changed_fields() -> list[str]:
    """What decides which fee shows: the field, its rank, the keys."""
    return ["fee", "licence", "starts", "name", "term_id"]
