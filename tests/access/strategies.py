"""Hypothesis strategies: values, rows, conditions and masks of every kind."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

from access_worlds import KINDS
from hypothesis import strategies as st

from bus.core.contracts import Kind
from bus.core.masks import APPLIES, COUNTED, Mask

ALPHABET = "aAbB%_\\ *'\"é中Ａ\U0001f600~\u0301\t\n"
TEXTS = st.text(ALPHABET, max_size=5) | st.sampled_from(["a%", "axb", "A%b", "licence", "Lice", "null", "é", "e\u0301"])
INTEGERS = st.integers(-3, 3) | st.sampled_from([2**53, 2**53 - 1, -(2**53), 10, 10**12])
NUMBERS = (
    st.sampled_from([0.0, -0.0, 0.1, 1.5, -1.5, 1e300, 1e-300, 9007199254740993.0, 2.675])
    | st.floats(-100, 100, allow_nan=False)
    | st.integers(-3, 3).map(float)
)
DECIMALS = st.decimals(Decimal(-1000), Decimal(1000), places=2) | st.sampled_from(
    [Decimal("0.10"), Decimal("12345.67")]
)
DATES = st.dates(dt.date(2020, 1, 1), dt.date(2020, 1, 4)) | st.sampled_from(
    [dt.date(999, 1, 1), dt.date(1969, 12, 31)]
)
TIMES = st.sampled_from(
    [
        dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        dt.datetime(2020, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC),
        dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC),
        dt.datetime(2020, 1, 1, 8, tzinfo=dt.timezone(dt.timedelta(hours=8))),
    ]
) | st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC))
VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.TEXT: TEXTS,
    Kind.INTEGER: INTEGERS,
    Kind.NUMBER: NUMBERS,
    Kind.DECIMAL: DECIMALS,
    Kind.BOOLEAN: st.booleans(),
    Kind.DATE: DATES,
    Kind.TIMESTAMP: TIMES,
}
ROWS = st.fixed_dictionaries({name: st.none() | VALUES[kind] for name, kind in KINDS.items()})


@st.composite
def atoms(draw: st.DrawFn) -> dict[str, Any]:
    """One comparison as people write it."""
    field = draw(st.sampled_from(sorted(KINDS)))
    ops = ["eq", "ne", "lt", "lte", "gt", "gte", "in", "missing"]
    op = draw(st.sampled_from(ops + ["prefix"] * 3 if KINDS[field] is Kind.TEXT else ops))
    if op == "missing":
        return {"field": field, "op": op}
    values = VALUES[KINDS[field]]
    return {"field": field, "op": op, "value": draw(st.lists(values, min_size=1, max_size=4) if op == "in" else values)}


def _combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    return (
        several.map(lambda items: {"all": items})
        | several.map(lambda items: {"any": items})
        | inner.map(lambda item: {"not": item})
    )


CONDITIONS = st.recursive(atoms(), _combined, max_leaves=6)


@st.composite
def masks(draw: st.DrawFn, kind: Kind) -> Mask:
    """A mask that fits the kind."""
    name = draw(st.sampled_from([name for name, kinds in APPLIES.items() if kind in kinds]))
    if name == "constant":
        return Mask(name, draw(st.sampled_from(["", "x'", "***", 0, 1.5, True])))
    if name == "round":
        return Mask(name, draw(st.integers(-4, 4)))
    return Mask(name, draw(st.integers(0, 6)) if name in COUNTED else True)
