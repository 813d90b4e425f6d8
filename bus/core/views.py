"""A shared view as declared: rows merged by key from several departments, each field from one source.

`bus.core.declarations` reads the YAML document, `bus.core.columns` says what readers see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bus.core.conditions import Condition

KINDS: Final = ("entity", "history", "aggregate")
FUNCTIONS: Final = ("count", "sum", "min", "max", "distinct")
Titles = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Source:
    """An entity that feeds a view. ``key``: its fields that hold the view's key, in the view's order.
    ``rank``: fields that decide which of several records with one view key shows (highest wins)."""

    name: str
    entity: str
    key: tuple[str, ...]
    rank: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ViewField:
    """A column of a view and the one field that it shows, of a source or of a look-up (both by name).

    ``also``: (source, field) pairs that report the same datum; where they disagree this one shows and a discrepancy
    is opened. ``folded``: case and white space do not count there. ``classification``: how open the view declares the
    column to be; None: as its source is. ``search``: rows may be searched by its words."""

    name: str
    source: str
    field: str
    also: tuple[tuple[str, str], ...] = ()
    classification: str | None = None
    folded: bool = False
    search: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """Something that may be asked of a row without seeing it: whether ``where`` holds. ``unknown``: the answer for a
    key that has no row, or none that the asker may know of: no (False), or that it is not known (None)."""

    name: str
    title: Titles
    where: Condition
    unknown: bool | None = False


@dataclass(frozen=True, slots=True)
class Lookup:
    """Another view whose columns are brought over a foreign key: ``by`` names this view's columns that hold the
    other's key, in its order."""

    name: str
    view: str
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Join:
    """A look-up across views: this view's ``local`` equals ``view``.``foreign``; ``bring`` names its columns."""

    local: str
    view: str
    foreign: str
    bring: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Over:
    """A view that an aggregate counts, perhaps with columns brought over from another."""

    name: str
    view: str
    join: Join | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of an aggregate: ``function`` of ``field`` (None for count) over the source ``over``."""

    name: str
    function: str
    over: str
    field: str | None = None
    where: Condition | None = None


@dataclass(frozen=True, slots=True)
class View:
    """A view as declared. Entity and history views have ``sources``, ``lookups`` and ``fields``; aggregates ``over``,
    ``group_by`` and ``measures``. ``valid``: a history's fields that say from when and, if there is a second, until
    when a version holds; none: from the event's time until the next version. ``stale``: whether a view that is not
    caught up shows what it has, marked as such, instead of ``view_rebuilding``."""

    name: str
    title: Titles
    owner: str
    kind: str
    key: tuple[str, ...]
    sources: tuple[Source, ...] = ()
    fields: tuple[ViewField, ...] = ()
    over: tuple[Over, ...] = ()
    measures: tuple[Measure, ...] = ()
    listed: bool = True
    lookups: tuple[Lookup, ...] = ()
    valid: tuple[str, ...] = ()
    stale: bool = False
    document: Mapping[str, Any] | None = None
    questions: tuple[Question, ...] = ()

    @property
    def entities(self) -> tuple[str, ...]:
        """The entities whose events build this view."""
        return tuple(source.entity for source in self.sources)

    @property
    def reads(self) -> tuple[str, ...]:
        """The views that this one is computed from: counted, joined or looked up."""
        joined = (over.join.view for over in self.over if over.join)
        looked_up = (lookup.view for lookup in self.lookups)
        return tuple(dict.fromkeys([*(over.view for over in self.over), *joined, *looked_up]))

    def source(self, name: str) -> Source | None:
        return next((source for source in self.sources if source.name == name), None)

    def lookup(self, name: str) -> Lookup | None:
        return next((lookup for lookup in self.lookups if lookup.name == name), None)

    def question(self, name: str) -> Question | None:
        return next((question for question in self.questions if question.name == name), None)

    @property
    def searchable(self) -> tuple[str, ...]:
        """The columns that rows may be searched by, in the view's order."""
        return tuple(field.name for field in self.fields if field.search)
