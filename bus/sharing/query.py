"""The query door: the only way from a question to rows.

In this order: the view, the grant, the purpose, the channel (all in one decision), the fields, the limits,
the view's state, the rows, the audit entry. The entry is written before anything is handed out.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn, TypeVar

import sqlalchemy as sa

from bus.access.decision import Allow, Decider, Deny
from bus.access.identity import Subject
from bus.audit.log import AuditLog
from bus.core.masks import consumer_key
from bus.errors import BusError, Missing, RangeBeyondEnd, Refused, UnknownView
from bus.sharing.admission import REFUSALS_A_MINUTE, Admission
from bus.sharing.filters import shape_of
from bus.sharing.past import as_texts, refuse_without_history, table_at
from bus.sharing.permitted import Permitted, Shown, permit
from bus.sharing.question import Query, parse_query
from bus.sharing.readers import Reader
from bus.sharing.recording import disclosure, refusal
from bus.sharing.store import Base, Rendering, Statements, base, statements
from bus.sharing.watch import Standing, Watch
from bus.views.catalogue import Shape
from bus.views.derived.history import NOW, Moment
from bus.views.tables import row_table

__all__ = ["Answer", "Asked", "Query", "QueryDoor", "parse_query"]

Contacts = Callable[[str], str]
Answered = TypeVar("Answered")
_OFFSET_KIND: Final = 1_000
_KEPT: Final = 500


@dataclass(frozen=True, slots=True)
class Answer:
    """What the door hands out: rows in the order of ``shown``, and under which decision.

    ``total``: how many rows there are in all within the row filter, where it was asked for.
    ``rows`` is empty for an explained question; ``moment``: what it was to be read as of. ``stale``:
    why the rows are not those of a view that is caught up.
    """

    view: str
    shown: tuple[Shown, ...]
    rows: Sequence[Sequence[Any]]
    offset: int
    total: int | None
    freshness: str
    decision: Allow
    explained: bool = False
    moment: Moment = NOW
    stale: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(shown.name for shown in self.shown)

    @property
    def masked(self) -> tuple[str, ...]:
        """The masked columns of this answer, sorted."""
        return tuple(sorted(shown.name for shown in self.shown if shown.mask is not None))

    @property
    def partial(self) -> bool:
        """Whether the total is known and there are rows beyond these."""
        return self.total is not None and len(self.rows) < self.total

    @property
    def content_range(self) -> str:
        """``0-9/120``; ``*`` where there are no rows, or the total is not known."""
        span = f"{self.offset}-{self.offset + len(self.rows) - 1}" if self.rows else "*"
        return f"{span}/{'*' if self.total is None else self.total}"


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks which view, for which purpose; None: none or several were stated."""

    subject: Subject
    view: str
    purpose: str | None
    request_id: str = ""


class QueryDoor:
    """Answers questions. ``shapes``: the views as they are now; ``contacts``: the contact of a department;
    ``mask_secret``: what hashes are keyed with, for each consumer its own."""

    def __init__(
        self,
        *,
        decider: Decider,
        reader: Reader,
        audit: AuditLog,
        shapes: Callable[[], Mapping[str, Shape]],
        watch: Watch,
        contacts: Contacts,
        mask_secret: bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._decider, self._reader, self._audit = decider, reader, audit
        self._shapes, self._watch, self._contacts = shapes, watch, contacts
        self._mask_secret = mask_secret
        self._admission = Admission(clock)
        self._bases: OrderedDict[tuple[Any, ...], Base] = OrderedDict()
        self._tables: dict[str, tuple[Shape, sa.Table]] = {}

    async def answer(
        self,
        subject: Subject,
        view: str,
        asked: Callable[[], Query],
        purpose: str | None,
        *,
        request_id: str = "",
    ) -> Answer:
        """The rows that the subject may see. ``asked`` reads the question; what is wrong with its form is
        told only to those who may ask at all.

        Raises what interface.md lists for a query, in the order it gives.
        """
        return await self.decided(Asked(subject, view, purpose, request_id), asked, self._allowed)

    async def decided(
        self, asked: Asked, read: Callable[[], Query], then: Callable[[Asked, Shape, Query, Allow], Awaitable[Answered]]
    ) -> Answered:
        """What ``then`` makes of a question that may be asked; a refusal, its own included, is recorded and raised."""
        with self._admission.under_way(asked.subject.department):
            shape = (await self.current_shapes()).get(asked.view)
            if shape is None:
                raise UnknownView(view=asked.view)
            query, problem = _read(read)
            channel = query.channel(shape.view)
            decision = await self._decider.decide(asked.subject, shape, asked.purpose, channel)
            if isinstance(decision, Deny):
                await self._refuse(decision, asked, channel)
            try:
                if problem is not None:
                    raise problem
                return await then(asked, shape, query, decision)
            except BusError as error:
                if isinstance(error, Refused):
                    await self._refuse(Deny(error, decision.policy_revision), asked, channel)
                error.members.setdefault("policy_revision", decision.policy_revision)
                raise

    async def admit(self, asked: Asked, shape: Shape, query: Query, allow: Allow) -> tuple[Permitted, Standing]:
        """The question as far as the grant and its limits go, of a view that may be shown."""
        permitted = permit(query, shape, allow, lambda: self._owner(shape))
        refuse_without_history(permitted, shape, allow, self._shapes)
        self._admission.count((asked.subject.department, allow.grant_ids), allow.limits.per_minute)
        return permitted, await self._watch.standing(shape)

    async def current_shapes(self) -> Mapping[str, Shape]:
        """The views as they are now. SQLite tells in the loop whether something changed faster than a thread could
        take the question over."""
        return self._shapes() if self._reader.dialect == "sqlite" else await asyncio.to_thread(self._shapes)

    async def close(self) -> None:
        """Gives the database's connections back."""
        await self._reader.close()

    async def _refuse(self, deny: Deny, asked: Asked, channel: str) -> NoReturn:
        """Records the refusal and raises it."""
        error, subject = deny.error, asked.subject
        self._admission.count((subject.department, "refused"), REFUSALS_A_MINUTE)
        if isinstance(error, Refused | Missing):
            entry = refusal(
                subject, asked.view, deny, purpose=asked.purpose, channel=channel, request_id=asked.request_id
            )
            await self._audit.append(entry)
        error.members.setdefault("policy_revision", deny.policy_revision)
        raise error

    async def _allowed(self, asked: Asked, shape: Shape, query: Query, allow: Allow) -> Answer:
        permitted, standing = await self.admit(asked, shape, query, allow)
        answer = Answer(
            shape.view.name, permitted.shown, (), permitted.offset, None, standing.header, allow, True, query.moment
        )
        if not query.explain:
            answer = replace(await self._rows(shape, permitted, allow, standing.header), stale=standing.stale)
        rows, explained = len(answer.rows), query.explain
        await self._audit.append(
            disclosure(asked.subject, allow, permitted, rows=rows, explained=explained, request_id=asked.request_id)
        )
        return answer

    async def _rows(self, shape: Shape, permitted: Permitted, allow: Allow, freshness: str) -> Answer:
        asked = statements(self._base(shape, permitted, allow), permitted)
        kind = (shape.view.name, _kind(permitted), allow.grant_ids)
        rows, total = await self._reader.read(asked, kind=kind, rows=permitted.limit, count=permitted.count)
        if not rows and permitted.offset:
            await self._refuse_beyond_end(asked, permitted, total, kind)
        return Answer(shape.view.name, permitted.shown, rows, permitted.offset, total, freshness, allow)

    async def _refuse_beyond_end(
        self, asked: Statements, permitted: Permitted, total: int | None, kind: tuple[Any, ...]
    ) -> None:
        """A page that starts behind the last row is refused, one that starts right after it is empty:
        so who pages until an empty page ends well."""
        if total is None:
            empty = Statements(asked.page.limit(0), asked.total)
            _, total = await self._reader.read(empty, kind=(*kind, "end"), rows=0, count=True)
        if permitted.offset > (total or 0):
            raise RangeBeyondEnd(offset=permitted.offset)

    def _table(self, shape: Shape) -> sa.Table:
        kept = self._tables.get(shape.view.name)
        if kept is None or kept[0] is not shape:
            kept = (shape, row_table(shape))
            self._tables[shape.view.name] = kept
        return kept[1]

    def _base(self, shape: Shape, permitted: Permitted, allow: Allow) -> Base:
        """What the decision allows, as SQL; kept by everything that goes into it, unless it is of a moment."""
        if permitted.moment:
            return base(table_at(shape, permitted), permitted.shown, allow, self._rendering(allow))
        table = self._table(shape)
        columns = tuple(
            (item.column.name, item.name, item.mask and (item.mask.kind, repr(item.mask.argument)))
            for item in permitted.shown
        )
        key = (table, columns, allow.filter, allow.consumer)
        kept = self._bases.get(key)
        if kept is None:
            kept = self._bases[key] = base(table, permitted.shown, allow, self._rendering(allow))
            if len(self._bases) > _KEPT:
                self._bases.popitem(last=False)
        return kept

    def _rendering(self, allow: Allow) -> Rendering:
        return Rendering(self._reader.dialect, consumer_key(self._mask_secret, allow.consumer))

    def _owner(self, shape: Shape) -> dict[str, str]:
        return {"owner": shape.view.owner, "contact": self._contacts(shape.view.owner)}


def _read(asked: Callable[[], Query]) -> tuple[Query, BusError | None]:
    try:
        return asked(), None
    except BusError as error:
        return Query(), error


def _kind(permitted: Permitted) -> tuple[Any, ...]:
    """Equal for questions that differ in their values only."""
    pages = permitted.offset // _OFFSET_KIND
    return (permitted.shown and tuple(item.name for item in permitted.shown), shape_of(permitted.filters),
            permitted.order, permitted.limit, pages, permitted.count, *as_texts(permitted.moment))  # fmt: skip


def explanation(answer: Answer) -> dict[str, Any]:
    """The decision as a document: what the asker may see and under which grants, no rows and no policy text."""
    allow = answer.decision
    return {
        "allow": True,
        "view": answer.view,
        "purpose": allow.purpose,
        "channel": allow.channel,
        **as_texts(answer.moment),
        "grants": list(allow.grant_ids),
        "decision": allow.decision_id,
        "policy_revision": allow.policy_revision,
        "columns": list(allow.columns),
        "masks": {name: mask.as_fact() for name, mask in sorted(allow.masks.items())},
        "limits": {"per_minute": allow.limits.per_minute, "rows": allow.limits.rows},
    }
