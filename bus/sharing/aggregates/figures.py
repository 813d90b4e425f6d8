"""Which figures may be asked for, and what kind of value each of them is.

Who may fetch the rows gets exact figures. Who may not (``least_group``) gets those of at least so many rows: rounded
counts, averages in three digits, sums made of these two, and no smallest or largest value of a personal or key column,
since that is one person's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bus.core.columns import Column
from bus.core.contracts import Kind
from bus.errors import BadFilter, Suppressed

ROUNDED_TO: Final = 5
DIGITS: Final = 3
_NUMBERS: Final = (Kind.INTEGER, Kind.NUMBER, Kind.DECIMAL)
_ORDERED: Final = (*_NUMBERS, Kind.TEXT, Kind.DATE, Kind.TIMESTAMP)
_TAKES: Final[Mapping[str, tuple[Kind, ...]]] = {
    "count": tuple(Kind),
    "sum": _NUMBERS,
    "avg": _NUMBERS,
    "min": _ORDERED,
    "max": _ORDERED,
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure that may be shown: ``function`` of ``column`` (None: of the rows), its ``name`` in the answer."""

    function: str
    column: Column | None
    name: str

    @property
    def shown(self) -> Column:
        """The figure as a column of the answer."""
        title = {"zh": self.name, "en": self.name}
        kind, scale = Kind.INTEGER, None
        if self.column is not None and self.function != "count":
            kind, scale = self.column.kind, self.column.scale
        if self.function == "avg":
            kind, scale = Kind.NUMBER, None
        return Column(self.name, kind, True, title, "open", False, scale=scale)


def measured(function: str, column: Column | None, name: str, *, key: tuple[str, ...], exact: bool) -> Measured:
    """The figure, if it may be shown. ``key``: the view's; ``exact``: whether the rows may be fetched.

    Raises `BadFilter` where the column is of another kind, `Suppressed` for what would be one person's own value.
    """
    if column is not None and column.kind not in _TAKES[function]:
        raise BadFilter(why=f"{function}() does not apply to '{column.name}', which is {column.kind}.", field=name)
    if not exact and column is not None and function in ("min", "max") and _is_ones_own(column, key):
        raise Suppressed(minimum=ROUNDED_TO, field=column.name)
    return Measured(function, column, name)


def _is_ones_own(column: Column, key: tuple[str, ...]) -> bool:
    return column.personal or column.name in key or column.kind is Kind.TEXT
