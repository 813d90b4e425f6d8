"""A view may not be more open than its sources: which field of which event would leak, whose it is, what to do.

The only way around is a declassification that an officer of that department signed; it lowers one field in one column
(`bus.core.guards.Lowered`) and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable

from bus.core.columns import Column, Influence
from bus.core.guards import is_open, more_open
from bus.core.problems import Problems
from bus.core.views import View


def check_openness(view: View, columns: Iterable[Column], problems: Problems) -> None:
    """Adds each field that the view declares more open than something that decides what it shows.

    ``columns``: as `guarded` gives them, with the declassifications that are in force."""
    declared = {field.name: field.classification for field in view.fields}
    for column in columns:
        wanted = declared.get(column.name)
        if wanted is not None:
            place = f"fields.{column.name}"
            for influence in too_guarded(column, wanted):
                problems.add(place, _leak(influence, wanted), f"{place}.class")


def too_guarded(column: Column, wanted: str) -> list[Influence]:
    """What keeps a column from being of the class ``wanted``."""
    return [
        item
        for item in column.made_of
        if more_open(wanted, item.classification) or (wanted == "open" and item.personal)
    ]


def public_problems(view: str, columns: Iterable[Column], fields: Iterable[str]) -> list[str]:
    """Why everybody may not see these columns of a view, one problem for each field that would leak."""
    known = {column.name: column for column in columns}
    return [
        f"{view}.{name}: {_leak(influence, 'open')}"
        for name in dict.fromkeys(fields)
        if name in known and not is_open(known[name])
        for influence in too_guarded(known[name], "open")
    ]


def _leak(influence: Influence, wanted: str) -> str:
    kind = f"{influence.classification}{' and personal' if influence.personal else ''}"
    how = "" if influence.role == "value" else f" (it decides what shows here, as {influence.role})"
    return (
        f"would be {wanted}, but {influence.source}{how} is {kind}: data of {influence.department} would leak. "
        f"Keep it {influence.classification}, leave it out, or have {influence.department} sign a declassification "
        "(`bus views declassify`)."
    )
