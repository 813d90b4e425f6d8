"""Terms, cells and the lease of streams, each by itself."""

from __future__ import annotations

import datetime as dt
import io
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.access.answers import EVERY_ROW, NO_ROW, And, Comparison, Filter, Not, Or
from bus.access.predicates import predicate
from bus.core.columns import Column
from bus.core.contracts import Kind
from bus.core.masks import Mask, apply_mask
from bus.core.shares import share_schema
from bus.infra.database import open_database
from bus.sharing.streams.cells import encoder
from bus.sharing.streams.pages import key_text, sought, steps
from bus.sharing.streams.process import Lease, NotHeld
from bus.sharing.streams.seats import DELIVERED, LEAST, PAGE, Pace
from bus.sharing.streams.states import Fenced, Shown, SubscriptionState
from bus.sharing.streams.store import StreamStore
from bus.sharing.streams.terms import Terms
from bus.views.changelog.reading import Changes

NAMES = ("ward", "name")
numbers = st.integers(1, 4)
atoms = st.one_of(
    st.builds(Comparison, st.just("ward"), st.sampled_from(["eq", "ne", "lt", "lte", "gt", "gte"]), numbers),
    st.builds(Comparison, st.just("ward"), st.just("in"), st.lists(numbers, min_size=1, max_size=3).map(tuple)),
    st.builds(Comparison, st.just("name"), st.just("startswith"), st.sampled_from(["a", "ab", ""])),
    st.builds(Comparison, st.sampled_from(NAMES), st.sampled_from(["eq", "ne"]), st.none()),
    st.builds(Not, st.builds(Comparison, st.just("ward"), st.just("in"), st.lists(numbers, min_size=1).map(tuple))),
)
clauses = st.one_of(atoms, st.lists(atoms, min_size=1, max_size=3).map(lambda items: And(tuple(items))))
filters: st.SearchStrategy[Filter] = st.one_of(
    st.just(EVERY_ROW), st.just(NO_ROW), clauses, st.lists(clauses, min_size=1, max_size=3).map(lambda i: Or(tuple(i)))
)
ROWS = [(ward, name) for ward in (None, 0, 1, 2, 3, 4, 5) for name in (None, "", "a", "ab", "b")]


def terms(rows: Filter, **more: Any) -> Terms:
    given_terms: dict[str, Any] = {"columns": NAMES, "masks": {}, "purpose": "levy", "filter": rows, **more}
    return Terms("tax", "business", **given_terms)


@given(old=filters, new=filters)
def test_terms_that_do_not_narrow_lose_no_row(old: Filter, new: Filter) -> None:
    """What is called wider shows every row that was shown, whatever the conditions are."""
    if not terms(new).narrows(terms(old)):
        was, now = predicate(old, NAMES), predicate(new, NAMES)
        assert all(now(row) for row in ROWS if was(row))


@given(rows=filters)
def test_terms_survive_being_kept(rows: Filter) -> None:
    """Read from their text they are the same, with the same digest; and they do not narrow themselves."""
    kept = terms(rows, masks={"name": Mask("keep_first", 3)})
    assert Terms.read(kept.text) == kept
    assert Terms.read(kept.text).digest == kept.digest
    assert not kept.narrows(kept)


@pytest.mark.parametrize("value", [dt.date(2026, 1, 1), dt.datetime(2026, 1, 1, tzinfo=dt.UTC), Decimal("1.50")])
def test_values_of_conditions_keep_their_type(value: Any) -> None:
    """A date, an instant and a decimal are read as what they were."""
    kept = terms(Comparison("ward", "gte", value))
    assert Terms.read(kept.text) == kept


def test_another_purpose_column_or_mask_narrows() -> None:
    """Each of them alone; a column more and a mask less do not."""
    base = terms(EVERY_ROW, masks={"name": Mask("keep_first", 3)})
    assert terms(EVERY_ROW, masks=base.masks, purpose="other").narrows(base)
    assert terms(EVERY_ROW, masks=base.masks, columns=("name",)).narrows(base)
    assert base.narrows(terms(EVERY_ROW))
    assert terms(EVERY_ROW, masks={"name": Mask("keep_first", 2)}).narrows(base)
    assert not terms(EVERY_ROW).narrows(base)
    assert not terms(EVERY_ROW, masks=base.masks, columns=("ward", "name", "more")).narrows(base)


VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.TEXT: st.text(),
    Kind.INTEGER: st.integers(-(2**63), 2**63 - 1),
    Kind.NUMBER: st.floats(allow_nan=False),
    Kind.BOOLEAN: st.booleans(),
    Kind.DATE: st.dates(),
    Kind.TIMESTAMP: st.datetimes(timezones=st.just(dt.UTC)),
    Kind.BYTES: st.binary(),
    Kind.DECIMAL: st.decimals(-(10**12), 10**12, places=2),
}
MASKS = {
    Kind.TEXT: [Mask("keep_first", 2), Mask("hash", True), Mask("constant", 7)],
    Kind.DATE: [Mask("year", True)],
    Kind.INTEGER: [Mask("round", -2)],
}


@given(data=st.data(), kind=st.sampled_from(sorted(VALUES)))
def test_cells_are_the_fields_of_the_registered_schema(data: st.DataObject, kind: Kind) -> None:
    """A reader of the share schema gets the masked value back, null included."""
    value = data.draw(st.none() | VALUES[kind])
    mask = data.draw(st.sampled_from([None, *MASKS.get(kind, [])]))
    column = Column("field", kind, True, {}, "open", False, scale=2 if kind is Kind.DECIMAL else None)
    schema = share_schema("tax", "business", [column], {"field": mask} if mask else {})
    written = io.BytesIO(encoder(column, mask, b"key")(value))
    found = fastavro.schemaless_reader(written, fastavro.parse_schema(schema), None)
    assert found == {"field": apply_mask(value, mask, b"key")}


def test_keys_with_a_missing_part_are_told_from_any_text() -> None:
    """An aggregate's group may be null; no written value looks so."""
    assert key_text((None, "a|b")) == "\\N|a\\|b"
    assert key_text(("\\N",)) == "\\\\N"


def test_a_key_that_changes_again_is_in_a_page_of_its_own() -> None:
    """So that a row that may have been sent is sent again before its tombstone; pages are bounded."""
    rows: list[Any] = [(5, ("a",), ("a",)), (5, ("b",), ("b",)), (6, ("a",), None), (7, ("c",), None)]
    found = Changes(9, rows)
    assert list(steps(found, 4, 10, one_by_one=True)) == [(4, rows[:2]), (9, rows[2:])]
    assert list(steps(found, 4, 10, one_by_one=False)) == [(9, rows)]
    assert [len(page) for _, page in steps(found, 4, 3, one_by_one=False)] == [3, 1]


@given(rows=filters)
def test_rows_that_pass_have_a_value_that_is_sought(rows: Filter) -> None:
    """Whoever looks only at the rows with these values misses none."""
    found, passes = sought(rows, NAMES), predicate(rows, NAMES)
    assert found is None or all(row[found[0]] in found[1] for row in ROWS if passes(row))


def test_one_value_is_looked_up_and_not_tested_for() -> None:
    """Alone, with other conditions, among several; not where another column would do as well."""
    ward, name = Comparison("ward", "eq", 3), Comparison("name", "startswith", "a")
    assert sought(And((name, ward)), NAMES) == (0, {3})
    assert sought(Or((ward, And((Comparison("ward", "in", (1, 2)), name)))), NAMES) == (0, {1, 2, 3})
    assert sought(Or((ward, name)), NAMES) is None


def test_pages_grow_while_little_is_delivered() -> None:
    """Step by step up to a limit; one that comes to too much, or takes too long, is followed by a smaller one; one that
    was not full says nothing."""
    pace = Pace()
    first = pace.limit(50)
    pace.went(first // 4, 0, 60.0)
    assert pace.limit(50) == first
    for _ in range(10):
        pace.went(pace.limit(50), pace.limit(50), 0.01)
    assert pace.limit(50) == PAGE
    pace.went(PAGE, 50 * PAGE, 0.01)
    assert pace.limit(50) == DELIVERED // 50
    pace.went(DELIVERED // 50, DELIVERED, 60.0)
    assert LEAST < pace.limit(50) < DELIVERED // 50


def test_a_lease_is_taken_over_when_it_is_not_renewed(database_url: str) -> None:
    """The one before cannot write any more, whatever it had begun."""
    first, second = (StreamStore(open_database(database_url, "streams")) for _ in range(2))
    assert first.acquire(None) is None
    state = first.save(SubscriptionState("tax", "business"))
    seen = second.acquire(None)
    first.beat()
    renewed = second.acquire(seen)
    assert renewed != seen
    assert second.acquire(renewed) is None
    with pytest.raises(Fenced):
        first.beat()
    with pytest.raises(Fenced):
        first.advance([Shown(state, {"1": 5})])
    second.advance([Shown(state, {"1": 5, "2": 6}, same=["2"])])
    assert second.members("business", ["1", "2", "3"]) == {state.id: {"1": 5, "2": 6}}


def test_a_lease_that_was_not_renewed_in_time_holds_nothing(sqlite_url: str) -> None:
    """Before another may have it, this process sends nothing more."""
    now = 100.0
    lease = Lease(StreamStore(open_database(sqlite_url, "streams")), 5.0, clock=lambda: now)
    lease._renewed = now
    lease.check()
    now += 4.5
    with pytest.raises(NotHeld):
        lease.check()
