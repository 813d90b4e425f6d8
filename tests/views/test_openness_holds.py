"""What guards say is true of the rows: a field that a column is not made of changes nothing in it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from views_world import BY_RESULT, INSPECTION, INSPECTIONS, LICENCE, VIEW

from bus.core.contracts import parse_contract
from bus.core.declarations import parse_view
from bus.views.oracle.verify import Event, Row, by_key, fold, fold_aggregate
from bus.views.shapes import Shape, ordered, shapes_of

CONTRACTS = {found.id: found for found in map(parse_contract, (LICENCE, INSPECTION))}
BROUGHT = {
    **INSPECTIONS,
    "lookups": {"business_": {"view": "food_business", "by": "business"}},
    "fields": {**INSPECTIONS["fields"], "fee": {"from": "business_.fee"}},  # type: ignore[dict-item]
}
VIEWS = {view.name: view for view in map(parse_view, (VIEW, BROUGHT, BY_RESULT))}
SHAPES = shapes_of(VIEWS, CONTRACTS)
few = st.integers(0, 2)
VALUES: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "market.licence": {
        "term_id": st.sampled_from(["a", "b", "c"]),
        "licence": st.none() | few,
        "starts": st.none() | few.map(lambda n: dt.date(2026, 1, 1 + n)),
        "name": st.none() | st.sampled_from(["x", "y"]),
        "area": st.none() | few.map(float),
        "fee": st.none() | few.map(lambda n: Decimal(n).scaleb(-2)),
    },
    "food.inspection": {
        "inspection": few,
        "business": st.none() | few,
        "revision": st.none() | few,
        "at": st.none() | few.map(lambda n: dt.datetime(2026, 1, 1 + n, tzinfo=dt.UTC)),
        "result": st.none() | st.sampled_from(["Pass", "Fail", "F"]),
        "passed": st.none() | st.booleans(),
    },
}
RECORDS = st.one_of(st.tuples(st.just(entity), st.fixed_dictionaries(fields)) for entity, fields in VALUES.items())
FIELDS = [(entity, field) for entity, fields in VALUES.items() for field in fields]


def rows(records: list[tuple[str, dict[str, Any]]]) -> dict[str, list[Row]]:
    """The rows of every view after these records, each an event of its own."""
    events = [Event(entity, 0, offset, record) for offset, (entity, record) in enumerate(records)]
    found: dict[str, list[Row]] = {}
    for name, view in ordered(VIEWS):
        if view.kind == "aggregate":
            found[name] = fold_aggregate(SHAPES[name], SHAPES, found)
        else:
            known = {other: by_key(VIEWS[other], found[other]) for other in view.reads}
            found[name] = fold(view, CONTRACTS, events, known)
    return found


def made_of(shape: Shape) -> dict[str, set[str]]:
    """By column. A figure also tells how many records there are, so what decides that there is one (the keys of what
    is counted, and of the records that are joined) may change it, though it does not guard it."""
    made = {column.name: {item.source for item in column.made_of} for column in shape.columns}
    if shape.view.kind == "aggregate":
        counted = {
            over.name: keys_of(SHAPES[over.view]) | (record_keys(SHAPES[over.join.view]) if over.join else set())
            for over in shape.view.over
        }
        made |= {measure.name: made[measure.name] | counted[measure.over] for measure in shape.view.measures}
        made |= {name: made[name].union(*counted.values()) for name in shape.view.key}
    return made


def keys_of(shape: Shape) -> set[str]:
    """The fields that decide which rows and records a view has: what its key columns are made of."""
    return {item.source for column in shape.columns if column.name in shape.view.key for item in column.made_of}


def record_keys(shape: Shape) -> set[str]:
    return {f"{found.id}.{name}" for found in shape.contracts for name in found.key}


@settings(max_examples=120)
@given(records=st.lists(RECORDS, min_size=1, max_size=8), field=st.sampled_from(FIELDS), data=st.data())
def test_a_field_changes_only_what_is_made_of_it(
    records: list[tuple[str, dict[str, Any]]], field: tuple[str, str], data: st.DataObject
) -> None:
    """Whatever else is written into one field of all records, other columns keep every value, and the rows are the
    same unless the view's key is made of it."""
    entity, name = field
    source = f"{entity}.{name}"
    other = [
        (which, {**record, name: data.draw(VALUES[entity][name])} if which == entity else record)
        for which, record in records
    ]
    before, after = rows(records), rows(other)
    for view, shape in SHAPES.items():
        made = made_of(shape)
        first, second = by_key(shape.view, before[view]), by_key(shape.view, after[view])
        if not any(source in made[key] for key in shape.view.key):
            assert set(first) == set(second), view
        for key in set(first) & set(second):
            changed = {column for column in made if first[key][column] != second[key][column]}
            told = {column for column in made if source in made[column]}
            assert changed <= told, (view, key)
