"""Which views are related, what `select` may name, and what questions of a day are compared by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.core.views import Join, Lookup, Over, View
from bus.errors import BadFilter, BusError
from bus.sharing.budget.spending import differ_in_one
from bus.sharing.embedding.relations import Relation, declared, relation
from bus.sharing.question import Embedded, Query, parse_query
from bus.sharing.selecting import Chosen, Figure, parse_select
from bus.views.shapes import Shape

BUSINESS = View("business", {}, "o", "entity", ("number",))
HIDDEN = View("hidden", {}, "o", "entity", ("number",), lookups=(Lookup("b", "business", ("number",)),), listed=False)
VISIT = View("visit", {}, "o", "history", ("id",), lookups=(Lookup("business", "business", ("licence",)),))
REPORT = View("report", {}, "o", "entity", ("id",))
COUNTS = View(
    "counts", {}, "o", "aggregate", ("ward",), over=(Over("r", "report", Join("about", "visit", "id", ("ward",))),)
)
VIEWS = {view.name: view for view in (BUSINESS, HIDDEN, VISIT, REPORT, COUNTS)}
SHAPES = {name: Shape(view, ()) for name, view in VIEWS.items()}


def test_relations_are_those_declared_from_both_sides() -> None:
    """Look-ups lead to one row and back to many; so does the join of an aggregate, between the views that it joins."""
    assert Relation("visit", ("licence",), "business", ("number",), many=False) in declared(VIEWS)
    assert Relation("business", ("number",), "visit", ("licence",), many=True) in declared(VIEWS)
    assert Relation("report", ("about",), "visit", ("id",), many=False) in declared(VIEWS)
    assert all("counts" not in (item.view, item.other) for item in declared(VIEWS))


def test_a_relation_is_found_or_refused() -> None:
    """A column may say which of several; views that are not listed are never named."""
    assert relation(BUSINESS, Embedded("v", "visit", "licence", Query()), SHAPES).many
    for view, by in (("report", None), ("visit", "nosuch"), ("nowhere", None)):
        with pytest.raises(BadFilter, match="related are visit") as caught:
            relation(BUSINESS, Embedded("v", view, by, Query()), SHAPES)
        assert "hidden" not in caught.value.detail


def test_ambiguous_relations_need_a_word() -> None:
    """Where two look-ups lead to one view, the column decides."""
    two = View(
        "two", {}, "o", "entity", ("id",), lookups=(Lookup("a", "business", ("x",)), Lookup("b", "business", ("y",)))
    )
    shapes = {**SHAPES, "two": Shape(two, ())}
    with pytest.raises(BadFilter, match="business!x, business!y"):
        relation(two, Embedded("b", "business", None, Query()), shapes)
    assert relation(two, Embedded("b", "business", "y", Query()), shapes).by == ("y",)


def test_select_names_columns_figures_and_views() -> None:
    """Each in its place, with the parameters of an embedded view taken from the rest."""
    selected = parse_select("a,b:c,n:count(),d.sum()", 10)
    assert selected.chosen == (Chosen("a", "a"), Chosen("c", "b"))
    assert selected.figures == (Figure("count", "", "n"), Figure("sum", "d", "sum"))
    query = parse_query(
        [("select", "*,v:visit!licence(id,r:result)"), ("v.order", "id.desc"), ("v.id", "gt.1"), ("b", "eq.2")]
    )
    (inner,) = query.embedded
    assert (query.select, len(query.filters), inner.name, inner.view, inner.by) == (None, 1, "v", "visit", "licence")
    assert inner.query.select == (Chosen("id", "id"), Chosen("result", "r"))
    assert (len(inner.query.filters), len(inner.query.order)) == (1, 1)


@given(st.text(st.sampled_from("ab.:,()!*\"' count sum"), max_size=40))
def test_no_select_breaks_the_reader(text: str) -> None:
    """Whatever stands in `select` is read or refused."""
    assert _status(text) in (200, 422)


def _status(text: str) -> int:
    try:
        parse_query([("select", text)])
    except BusError as error:
        return error.status
    return 200


SETS = st.frozensets(st.sampled_from("abcde"))


@given(SETS, SETS)
def test_differing_in_one_filter(first: frozenset[str], second: frozenset[str]) -> None:
    """One is there or not, or stands for another; the same from both sides, and never of a question and itself."""
    assert differ_in_one(first, second) == differ_in_one(second, first)
    assert not differ_in_one(first, first)
    assert differ_in_one(first, first | {"x"})
    assert differ_in_one(first | {"x"}, first | {"y"})
    assert not differ_in_one(first, first | {"x", "y"})
