"""Who may see where departments disagree, and how much of it.

Staff of governance (administrators) see every discrepancy with both values. A department sees those that it is a party
to, because one of the two sources is its own: always with its own value, since it published that. The other
department's value is shown only where a decision for the stated purpose lets it see that very datum: some view has a
column that shows the other's field, and the decision on that view grants the column unmasked and for every row. Without
such a decision it learns that the two differ, and about which record, which is what it needs to look into its own. Who
is party to none is refused. The audit entry is written before the answer is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bus.access.answers import EVERY_ROW
from bus.access.decision import Allow, Decider
from bus.access.identity import Subject
from bus.audit.entries import Disclosure, Refusal
from bus.audit.log import AuditLog
from bus.core import names
from bus.errors import NotAParty, Refused, Unavailable, UnknownField, UnknownView
from bus.views.catalogue import Shape
from bus.views.derived.disagreement import Pair, pairs
from bus.views.derived.discrepancies import Count, Discrepancies, Discrepancy, State

CHANNEL = "discrepancies"


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a view's discrepancies is asked for. ``field`` None: of all its fields."""

    view: str
    field: str | None = None
    state: State = "open"
    limit: int = 100
    offset: int = 0
    purpose: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """One discrepancy as its reader may see it: the two departments, and their values, None where one is hidden."""

    entry: Discrepancy
    departments: tuple[str, str]
    shown: str | None
    reported: str | None


@dataclass(frozen=True, slots=True)
class Between:
    """The count of one field of a view between two departments: the authoritative one, and the other."""

    count: Count
    departments: tuple[str, str]


@dataclass(slots=True)
class _Leave:
    """What the decisions for one question allow. ``data``: (entity, field) pairs that may be seen."""

    data: set[tuple[str, str]] = field(default_factory=set)
    decisions: list[Allow] = field(default_factory=list)


class Disagreements:
    """The door to discrepancies. ``shapes``: the views as they are declared now."""

    def __init__(
        self, store: Discrepancies, shapes: Callable[[], Mapping[str, Shape]], decider: Decider, audit: AuditLog
    ) -> None:
        self._store, self._shapes, self._decider, self._audit = store, shapes, decider, audit

    async def page(self, subject: Subject, asked: Asked, *, request_id: str = "") -> list[Seen]:
        """The discrepancies that the subject may see, in the order of keys.

        Raises `UnknownView`, `UnknownField`, `NotAParty`, and `Unavailable` where no decision could be had.
        """
        shapes = await asyncio.to_thread(self._shapes)
        shape = shapes.get(asked.view)
        if shape is None:
            raise UnknownView(view=asked.view)
        mine = _own_pairs(shape, subject)
        if not mine and not subject.administrator:
            raise await self._refusal(subject, shape, asked, request_id)
        chosen = _chosen(mine, asked, shape)
        leave = _Leave() if subject.administrator else await self._leave(subject, shapes, shape, chosen, asked.purpose)
        found = await asyncio.to_thread(
            self._store.page,
            asked.view,
            {(pair.field, pair.other) for pair in chosen},
            state=asked.state,
            limit=asked.limit,
            offset=asked.offset,
        )
        by_name = {(pair.field, pair.other): pair for pair in chosen}
        seen = [_seen(entry, by_name[entry.field, entry.other], shape, subject, leave) for entry in found]
        await self._audit.append(await self._entry(subject, asked, seen, leave, request_id))
        return seen

    def counts(self, subject: Subject | None = None) -> list[Between]:
        """How many there are of each field and pair of departments, where the subject is a party; without a subject, or
        for staff, of all listed views. Counts only, so no audit entry. Blocking."""
        shapes, found = self._shapes(), []
        for count in self._store.counts():
            shape = shapes.get(count.view)
            if shape is None or not _declared(shape, count):
                continue
            both = (department_of(shape, count.source), department_of(shape, count.other))
            everything = shape.view.listed if subject is None else subject.administrator
            if everything or (subject is not None and subject.department in both):
                found.append(Between(count, both))
        return found

    async def _leave(
        self, subject: Subject, shapes: Mapping[str, Shape], shape: Shape, chosen: Sequence[Pair], purpose: str | None
    ) -> _Leave:
        """Which of the other parties' data the subject may see for its purpose, by the views that show them."""
        leave = _Leave()
        wanted = {datum for pair in chosen for datum in _data(shape, pair)}
        for candidate in shapes.values() if purpose is not None else ():
            columns = {name: datum for name, datum in _shown(candidate).items() if datum in wanted}
            if not columns:
                continue
            decision = await self._decider.decide(subject, candidate, purpose, "query")
            if isinstance(decision, Allow):
                if decision.filter == EVERY_ROW:
                    open_columns = set(decision.columns) - set(decision.masks)
                    leave.data |= {datum for name, datum in columns.items() if name in open_columns}
                    leave.decisions.append(decision)
            elif isinstance(decision.error, Unavailable):
                raise decision.error
        return leave

    async def _entry(
        self, subject: Subject, asked: Asked, seen: Sequence[Seen], leave: _Leave, request_id: str
    ) -> dict[str, Any]:
        hidden = {one.entry.field for one in seen if one.shown is None or one.reported is None}
        return Disclosure(
            request_id=request_id,
            who=subject.department,
            officer=subject.officer,
            view=asked.view,
            purpose=asked.purpose[:63] if asked.purpose else "",
            channel=CHANNEL,
            decision_id=leave.decisions[0].decision_id if leave.decisions else "",
            policy_revision=await asyncio.to_thread(self._decider.policy_revision),
            columns=sorted({one.entry.field for one in seen}),
            masked=sorted(hidden),
            condition={"state": asked.state, "field": asked.field},
            rows=len(seen),
            grants=sorted({grant for decision in leave.decisions for grant in decision.grant_ids}),
            question={"offset": asked.offset, "limit": asked.limit, "administrator": subject.administrator},
        ).body()

    async def _refusal(self, subject: Subject, shape: Shape, asked: Asked, request_id: str) -> Refused | UnknownView:
        """The refusal, recorded; a view that is not listed is not known to those who are no party to it."""
        error = NotAParty(department=subject.department, view=asked.view, owner=shape.view.owner)
        entry = Refusal(
            request_id=request_id,
            who=subject.department,
            officer=subject.officer,
            view=asked.view,
            purpose=asked.purpose,
            channel=CHANNEL,
            code=error.code,
            policy_revision=await asyncio.to_thread(self._decider.policy_revision),
        )
        await self._audit.append(entry.body())
        return error if shape.view.listed else UnknownView(view=asked.view)


def department_of(shape: Shape, source: str) -> str:
    """The department whose entity a source is."""
    return _entity(shape, source).partition(".")[0]


def _entity(shape: Shape, source: str) -> str:
    found = shape.view.source(source)
    return found.entity if found else ""


def _own_pairs(shape: Shape, subject: Subject) -> list[Pair]:
    """The pairs that the subject is a party to; all of them for staff."""
    return [
        pair
        for pair in pairs(shape.view)
        if subject.administrator
        or subject.department in (department_of(shape, pair.source), department_of(shape, pair.other))
    ]


def _chosen(mine: Sequence[Pair], asked: Asked, shape: Shape) -> list[Pair]:
    chosen = [pair for pair in mine if asked.field in (None, pair.field)]
    if asked.field is not None and not chosen:
        hint = names.nearest(asked.field, [pair.field for pair in mine])
        raise UnknownField(field=asked.field, view=shape.view.name, hint=hint)
    return chosen


def _declared(shape: Shape, count: Count) -> bool:
    return any(
        (pair.field, pair.source, pair.other) == (count.field, count.source, count.other) for pair in pairs(shape.view)
    )


def _data(shape: Shape, pair: Pair) -> tuple[tuple[str, str], tuple[str, str]]:
    """What the two values are, as (entity, field): the one that shows, and the other's."""
    return (_entity(shape, pair.source), pair.own), (_entity(shape, pair.other), pair.reported)


def _shown(shape: Shape) -> dict[str, tuple[str, str]]:
    """Of each column of a view that a source fills, the (entity, field) that it shows."""
    fields = shape.view.fields
    return {item.name: (_entity(shape, item.source), item.field) for item in fields if shape.view.source(item.source)}


def _seen(entry: Discrepancy, pair: Pair, shape: Shape, subject: Subject, leave: _Leave) -> Seen:
    departments = (department_of(shape, pair.source), department_of(shape, pair.other))
    values = [
        text if subject.administrator or department == subject.department or datum in leave.data else None
        for text, department, datum in zip((entry.shown, entry.reported), departments, _data(shape, pair), strict=True)
    ]
    return Seen(entry, departments, *values)
