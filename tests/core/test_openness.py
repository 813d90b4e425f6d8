"""How guarded a column is, and that no view is more open than what makes it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_views import CONTRACTS, ENTITY, FIGURES, VISITS, Doc, changed

from bus.core.columns import Column, columns_of
from bus.core.contracts import CLASSES, Contract, parse_contract
from bus.core.declarations import parse_view
from bus.core.guards import Lowered, guarded, is_open
from bus.core.openness import check_openness, public_problems
from bus.core.problems import Problems

Guards = dict[tuple[str, str], tuple[str, bool]]


def contracts(guards: Guards) -> dict[str, Contract]:
    """The contracts with everything open but what is said; by (entity, field) to (class, personal)."""
    found = {}
    for name, known in CONTRACTS.items():
        schema = copy.deepcopy(dict(known.schema))
        for field in schema["fields"]:
            classification, personal = guards.get((name, field["name"]), ("open", False))
            field |= {"bus.class": classification, "bus.personal": personal}
        found[name] = parse_contract(schema)
    return found


def columns(guards: Guards, *docs: Doc, lowered: Lowered | None = None) -> dict[str, dict[str, Column]]:
    """The guarded columns of views, each after what it reads, by view and name."""
    known: dict[str, tuple[Column, ...]] = {}
    states = contracts(guards)
    for doc in docs:
        view = parse_view(doc)
        known[view.name] = guarded(view, columns_of(view, states, known), states, known, lowered or {})
    return {name: {column.name: column for column in found} for name, found in known.items()}


def problems(doc: Doc, found: dict[str, dict[str, Column]]) -> dict[str, str]:
    """What is too open in a view, by place."""
    view = parse_view(doc)
    collected = Problems("x")
    check_openness(view, found[view.name].values(), collected)
    return dict(zip(collected.places, collected.found, strict=True))


LICENCE, INSPECTION = "market.licence", "food.inspection"


@pytest.mark.parametrize(
    ("field", "guarded_columns"),
    [
        ((LICENCE, "name"), {"zz", "fee"}),  # the rank decides which fee shows
        ((LICENCE, "fee"), {"fee"}),
        ((LICENCE, "licence"), {"licence", "zz", "fee"}),
        ((INSPECTION, "licence"), {"licence", "aa", "ward"}),
        ((INSPECTION, "result"), {"aa"}),
        ((LICENCE, "term"), {"licence", "zz", "fee"}),  # the record's own key
        ((INSPECTION, "id"), {"licence", "aa", "ward"}),
    ],
    ids=lambda value: ".".join(sorted(value) if isinstance(value, set) else value),
)
def test_what_one_guarded_field_guards(field: tuple[str, str], guarded_columns: set[str]) -> None:
    """Its own column, and by key and rank those whose record it chooses; nothing of another source."""
    found = columns({field: ("restricted", False)}, ENTITY)["business"]
    assert {name for name, column in found.items() if not is_open(column)} == guarded_columns


def test_a_second_reporter_makes_nothing() -> None:
    """What the other source says is not shown, so it guards nothing."""
    doc = changed(ENTITY, lambda d: d["fields"]["zz"].update(also_reported_by=["inspection.result"]))
    found = columns({(INSPECTION, "result"): ("restricted", True)}, doc)["business"]
    assert is_open(found["zz"])


def test_figures() -> None:
    """A count is as guarded as its condition, its groups and its join; a sum as what it adds up as well."""

    def closed(guards: Guards) -> set[str]:
        found = columns(guards, ENTITY, VISITS, FIGURES)["figures"]
        return {name for name, column in found.items() if not is_open(column)}

    assert closed({}) == set()
    assert closed({(INSPECTION, "result"): ("conditional", False)}) == {"visits", "results"}
    assert closed({(LICENCE, "fee"): ("conditional", False)}) == {"fees"}
    assert closed({(INSPECTION, "ward"): ("open", True)}) == {"ward", "visits", "fees", "results"}
    assert "visits" in closed({(INSPECTION, "licence"): ("restricted", False)})  # joined by it


def test_a_figure_no_longer_says_which_record() -> None:
    """The key of what is counted guards no count, unless it is grouped, chosen or joined by."""
    doc = changed(FIGURES, lambda d: d["over"].update(v={"view": "visits"}))
    doc["measures"] = {"visits": doc["measures"]["visits"], "ids": {"distinct": "v.id"}}
    found = columns({(INSPECTION, "id"): ("conditional", True)}, ENTITY, VISITS, doc)
    assert not is_open(found["visits"]["result"])
    assert is_open(found["figures"]["visits"])
    assert not is_open(found["figures"]["ids"])


BROUGHT: Doc = {
    **VISITS,
    "lookups": {"business": {"view": "business", "by": "licence"}},
    "fields": {**VISITS["fields"], "name": {"from": "business.zz"}},
}


def test_a_column_that_is_brought() -> None:
    """It is as guarded as it is there, and as the column that it is looked up by."""
    assert is_open(columns({}, ENTITY, BROUGHT)["visits"]["name"])
    for guard in ((LICENCE, "name"), (INSPECTION, "licence")):
        found = columns({guard: ("restricted", False)}, ENTITY, BROUGHT)["visits"]["name"]
        assert found.classification == "restricted"
    stricter = changed(ENTITY, lambda d: d["fields"]["zz"].update({"class": "restricted"}))
    assert columns({}, stricter, BROUGHT)["visits"]["name"].classification == "restricted"


def test_a_refusal_names_what_would_leak() -> None:
    """The view's field, the event's field, the department, the place, and what to do."""
    doc = changed(ENTITY, lambda d: d["fields"]["zz"].update({"class": "open"}))
    guards: Guards = {(LICENCE, "name"): ("conditional", True)}
    found = problems(doc, columns(guards, doc))
    assert set(found) == {"fields.zz.class"}
    text = found["fields.zz.class"]
    for part in ("fields.zz:", "market.licence.name", "conditional and personal", "data of market", "declassif"):
        assert part in text, part
    assert public_problems("business", columns(guards, doc)["business"].values(), ["zz", "licence"]) == [
        text.replace("fields.zz", "business.zz")
    ]


def test_a_declassification_lowers_one_field_in_one_column() -> None:
    """From the class that it names to the other, in that view and what is made of it; nowhere else."""
    guards: Guards = {(LICENCE, "name"): ("conditional", True)}
    doc = changed(ENTITY, lambda d: d["fields"]["zz"].update({"class": "open"}))
    source = "market.licence.name"
    lowered = {("business", "zz", source): ("conditional", "open")}
    found = columns(guards, doc, BROUGHT, lowered=lowered)
    assert problems(doc, found) == {}
    assert is_open(found["business"]["zz"])
    assert is_open(found["visits"]["name"])
    assert not is_open(found["business"]["fee"])
    for foreign in (
        {("business", "zz", source): ("restricted", "open")},
        {("business", "fee", source): ("conditional", "open")},
        {("other", "zz", source): ("conditional", "open")},
        {("business", "zz", "food.inspection.result"): ("conditional", "open")},
    ):
        assert set(problems(doc, columns(guards, doc, lowered=foreign))) == {"fields.zz.class"}


FIELDS = [(name, field.name) for name, contract in CONTRACTS.items() for field in contract.fields]


@given(
    guards=st.dictionaries(st.sampled_from(FIELDS), st.tuples(st.sampled_from(CLASSES), st.booleans())),
    raised=st.sampled_from(FIELDS),
)
def test_more_guarded_sources_never_open_a_column(guards: Guards, raised: tuple[str, str]) -> None:
    """Whatever else is said, raising one field's guard lowers no column's, and no column is below its own field."""
    docs = (ENTITY, VISITS, FIGURES)
    before, after = columns(guards, *docs), columns({**guards, raised: ("restricted", True)}, *docs)
    for view, found in before.items():
        for name, column in found.items():
            then = after[view][name]
            assert CLASSES.index(then.classification) >= CLASSES.index(column.classification)
            assert then.personal or not column.personal
    shown: Any = guards.get((LICENCE, "fee"), ("open", False))
    assert CLASSES.index(before["business"]["fee"].classification) >= CLASSES.index(shown[0])


@given(
    guards=st.dictionaries(st.sampled_from(FIELDS), st.tuples(st.sampled_from(CLASSES), st.booleans())),
    declared=st.sampled_from(CLASSES),
)
def test_a_declared_class_holds_or_is_refused(guards: Guards, declared: str) -> None:
    """Either the column is at least as guarded as declared, or somebody's data would leak and it is said whose."""
    doc = changed(ENTITY, lambda d: d["fields"]["fee"].update({"class": declared}))
    found = columns(guards, doc)
    column = found["business"]["fee"]
    assert CLASSES.index(column.classification) >= CLASSES.index(declared)
    refused = problems(doc, found)
    lax = CLASSES.index(column.classification) > CLASSES.index(declared) or (declared == "open" and column.personal)
    assert bool(refused) is lax
