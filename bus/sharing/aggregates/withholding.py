"""The last step of figures that are not exact: averages in three digits, sums made of them, hidden columns cut off.

Groups of few rows are not shown. In their place stands one row of nulls at the end, whether there were any or not:
which groups are missing, how many they are, and even that there are some would tell of single rows to who knows the
others.

A sum of few rows less the sum of one row fewer is that row's value. So a sum is the rounded count times the average in
three digits: what one row adds is lost in that, mostly; what remains is told in the user's guide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus.sharing.aggregates.figures import DIGITS, Measured
from bus.sharing.permitted import Permitted, Shown

Rows = Sequence[Sequence[Any]]


def finished(rows: Rows, permitted: Permitted) -> tuple[Rows, int | None]:
    """The rows as they are shown, and in how many of them something is withheld; None where figures are exact.

    ``rows``: as the statement of `aggregates.store.grouped` gives them."""
    if permitted.least_group is None:
        return rows, None
    groups, width = len(permitted.shown), len(permitted.shown) + len(permitted.figures)
    shown = [
        (*row[:groups], *_rounded(permitted.figures, row[groups:width], list(row[width:-1])))
        for row in map(tuple, rows)
    ]
    withheld = sum(row[-1] for row in rows)
    if len(shown) < (permitted.limit if groups else 1):
        shown, withheld = [*shown, (None,) * width], withheld + 1
    return shown, withheld


def few_counted(shown: Sequence[Shown], rows: Rows) -> int | None:
    """How many figures of few persons are withheld in these rows; None where none could be."""
    places = [place for place, item in enumerate(shown) if item.counted is not None]
    return sum(row[place] is None for row in rows for place in places) if places else None


def _rounded(figures: Sequence[Measured], values: Sequence[Any], counts: list[int | None]) -> list[Any]:
    """``counts``: of how many values each sum is, rounded, in the order of the sums."""
    shown = []
    for item, value in zip(figures, values, strict=True):
        count = counts.pop(0) if item.function == "sum" else None
        if value is None or item.function not in ("sum", "avg"):
            shown.append(value)
        else:
            average = in_digits(value)
            shown.append(average if count is None else in_digits(average * count))
    return shown


def in_digits(value: float) -> float:
    """The number in three significant digits."""
    return float(f"{value:.{DIGITS}g}")
