"""The query door: the only way from a question to rows.

In this order: the view, the grant, the purpose, the channel (all in one decision), the fields, the limits,
the view's state, the rows, the audit entry. The entry is written before anything is handed out.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

import sqlalchemy as sa

from bus.access.decision import Allow, Decider, Deny
from bus.access.identity import Subject
from bus.audit.log import AuditLog
from bus.core.masks import consumer_key
from bus.errors import BusError, Missing, RangeBeyondEnd, Refused, UnknownView
from bus.sharing.admission import PUBLIC_A_MINUTE, REFUSALS_A_MINUTE, Admission
from bus.sharing.aggregates.few import NONE, few
from bus.sharing.aggregates.store import grouped
from bus.sharing.aggregates.withholding import few_counted, finished
from bus.sharing.answers import Answer, Asked, explanation
from bus.sharing.budget.spending import Budget
from bus.sharing.cursors.pages import Pages, Paging, hidden_key
from bus.sharing.cursors.store import Page, turned, untold
from bus.sharing.embedding.answering import Embedder, widened
from bus.sharing.open_data.small import PURPOSE as OPEN_DATA
from bus.sharing.open_data.small import Guards, guards_of, withheld
from bus.sharing.open_data.store import guarded_table
from bus.sharing.past import refuse_without_history, table_at
from bus.sharing.permitted import Permitted, permit
from bus.sharing.plans import Plan, Plans, Reading, kind_of
from bus.sharing.question import Query, parse_query
from bus.sharing.readers import Reader
from bus.sharing.recording import disclosure, figures_recorded, refusal
from bus.sharing.store import Base, Rendering, Statements, base, statements
from bus.sharing.watch import Standing, Watch
from bus.views.catalogue import Shape
from bus.views.tables import row_table

__all__ = ["Answer", "Asked", "Query", "QueryDoor", "explanation", "parse_query"]

Contacts = Callable[[str], str]
Answered = TypeVar("Answered")
_KEPT: Final = 500


class _Found(NamedTuple):
    """What was read, as `Answer` has it."""

    rows: Sequence[Sequence[Any]] = ()
    total: int | None = None
    next_cursor: str | None = None
    paged: bool = False
    withheld: int | None = None


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
        budget: Budget,
        contacts: Contacts,
        mask_secret: bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._decider, self._reader, self._audit = decider, reader, audit
        self._shapes, self._watch, self._contacts = shapes, watch, contacts
        self._mask_secret, self._budget = mask_secret, budget
        self._admission, self._pages, self._plans = Admission(clock), Pages(mask_secret), Plans()
        self._bases: OrderedDict[tuple[Any, ...], Base] = OrderedDict()
        self._tables: dict[tuple[str, Guards], tuple[Shape, sa.FromClause]] = {}
        self._embedder = Embedder(self, decider=decider, reader=reader, audit=audit, budget=budget)

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
        return await self.ask(Asked(subject, view, purpose, request_id), asked)

    async def ask(self, asked: Asked, read: Callable[[], Query]) -> Answer:
        """The same for an asker who says more of itself."""
        return await self.decided(asked, read, self._allowed)

    async def decided(
        self, asked: Asked, read: Callable[[], Query], then: Callable[[Asked, Shape, Query, Allow], Awaitable[Answered]]
    ) -> Answered:
        """What ``then`` makes of a question that may be asked; a refusal, its own included, is recorded and raised."""
        if asked.address:
            self._admission.count(asked.who, PUBLIC_A_MINUTE)
        with self._admission.under_way(asked.subject.department, asked.address):
            shape = (await self.current_shapes()).get(asked.view)
            if shape is None:
                raise UnknownView(view=asked.view)
            query, problem = _read(asked, read)
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
                    of = replace(asked, view=str(error.members.get("view", asked.view)))  # perhaps an embedded one
                    await self._refuse(Deny(error, decision.policy_revision), of, channel)
                error.members.setdefault("policy_revision", decision.policy_revision)
                raise

    async def admit(self, asked: Asked, shape: Shape, query: Query, allow: Allow) -> tuple[Permitted, Standing]:
        """The question as far as the grant and its limits go, of a view that may be shown."""
        guarded = few(shape, allow, await self.current_shapes()) if allow.open_to_all else NONE
        permitted = permit(query, shape, allow, lambda: self.owner(shape), guarded)
        refuse_without_history(permitted, shape, allow, self._shapes)
        return permitted, await self.let_in(asked, shape, allow)

    async def let_in(self, asked: Asked, shape: Shape, allow: Allow) -> Standing:
        """Counts one of the grant's questions a minute. Raises `RateLimited`, and `ViewRebuilding` for a view that may
        not be shown."""
        self._admission.count((asked.who, allow.grant_ids), allow.limits.per_minute)
        return await self._watch.standing(shape)

    async def current_shapes(self) -> Mapping[str, Shape]:
        """The views as they are now. SQLite tells in the loop whether something changed faster than a thread could
        take the question over."""
        return self._shapes() if self._reader.dialect == "sqlite" else await asyncio.to_thread(self._shapes)

    def allowed_rows(self, shape: Shape, permitted: Permitted, allow: Allow) -> Base:
        """What the decision allows of a view, as SQL: for doors that read it in another way."""
        return self._base(shape, permitted, allow)

    def untold(self, asked: Statements, allowed: Base, shape: Shape, allow: Allow) -> Statements:
        """The same rows in an order that says nothing of a key that is hidden from the asker."""
        hidden = hidden_key(shape, allow)
        page = untold(asked.page, allowed.table, hidden, self._rendering(allow)) if hidden else asked.page
        return replace(asked, page=page)

    async def close(self) -> None:
        """Gives the database's connections back."""
        await self._reader.close()

    async def _refuse(self, deny: Deny, asked: Asked, channel: str) -> NoReturn:
        """Records the refusal and raises it."""
        error, subject = deny.error, asked.subject
        self._admission.count((asked.who, "refused"), REFUSALS_A_MINUTE)
        if isinstance(error, Refused | Missing):
            entry = refusal(
                subject, asked.view, deny, purpose=asked.purpose, channel=channel, request_id=asked.request_id
            )
            await self._audit.append(entry)
        error.members.setdefault("policy_revision", deny.policy_revision)
        raise error

    async def _allowed(self, asked: Asked, shape: Shape, query: Query, allow: Allow) -> Answer:
        guarded = few(shape, allow, await self.current_shapes()) if allow.open_to_all else NONE
        plan = self._plans.of(query, allow, lambda: self._plan(shape, query, allow, guarded))
        permitted, reading = plan.permitted, plan.reading
        standing = await self.let_in(asked, shape, allow)
        parts = await self._embedder.admit(asked, shape, query, allow)
        near, tag, found = 0, "", _Found()
        if not query.explain:
            near = await self._budget.spend(allow, permitted if permitted.figures else None)
            tag = self._pages.tag(plan.paging, query, permitted, standing, asked.variant)
        if parts:
            wide = widened(permitted, (column for part in parts for column in part.by))
            reading = self._reading(shape, wide, plan.paging, allow)
        unchanged = tag != "" and tag in asked.known
        if reading is not None and not (query.explain or unchanged):
            found = await self._rows(permitted, plan.paging, reading)
        answer = Answer(
            shape.view.name, (*permitted.answered, *(part.shown for part in parts)), found.rows, permitted.offset,
            found.total, standing.header, allow, query.explain, query.moment, standing.stale, found.next_cursor,
            found.paged, tag, unchanged, found.withheld, tuple(part.inside for part in parts),
        )  # fmt: skip
        if parts and not query.explain:
            answer = await self._embedder.fill(answer, parts, asked)
        if answer.withheld is None and (guards := self._guards(shape, allow)):
            answer = replace(answer, withheld=withheld(answer.shown, answer.rows, guards))
        more = figures_recorded(permitted, answer.withheld, near)
        await self._audit.append(disclosure(
            asked.subject, allow, permitted, rows=len(answer.rows), explained=query.explain, unchanged=answer.unchanged,
            request_id=asked.request_id, more=more,
        ))  # fmt: skip
        return answer

    def _plan(self, shape: Shape, query: Query, allow: Allow, guarded: Mapping[str, str]) -> Plan:
        permitted = permit(query, shape, allow, lambda: self.owner(shape), guarded)
        refuse_without_history(permitted, shape, allow, self._shapes)
        paging = self._pages.paging(shape, query, permitted, allow)
        none = query.explain or query.embedded  # no rows; or more columns than were asked for
        return Plan(permitted, paging, None if none else self._reading(shape, permitted, paging, allow))

    def _reading(self, shape: Shape, permitted: Permitted, paging: Paging, allow: Allow) -> Reading:
        """The statements of the rows; for a page with one row more than shown, which tells whether others follow."""
        allowed = self._base(shape, permitted, allow)
        asked = (statements if not permitted.figures else grouped)(allowed, permitted)
        kind = (shape.view.name, kind_of(permitted), allow.grant_ids)
        if not paging.turns:
            asked = asked if permitted.figures else self.untold(asked, allowed, shape, allow)
            return Reading(asked, kind)
        rendering = self._rendering(allow)
        page = turned(allowed, asked.page, permitted, hidden=paging.hidden, after=paging.after, rendering=rendering)
        return Reading(replace(asked, page=page.select), (*kind, paging.after is not None), page)

    async def _rows(self, permitted: Permitted, paging: Paging, reading: Reading) -> _Found:
        rows, total = await self._reader.read(
            reading.statements, kind=reading.kind, rows=permitted.limit, count=permitted.count
        )
        if reading.page is not None:
            return self._page(permitted, paging, reading.page, rows, total)
        if not rows and permitted.offset:
            await self._refuse_beyond_end(reading, permitted, total)
        shown, withheld = finished(rows, permitted)
        return _Found(shown, total, withheld=few_counted(permitted.shown, shown) if withheld is None else withheld)

    def _page(
        self, permitted: Permitted, paging: Paging, page: Page, rows: Sequence[Sequence[Any]], total: int | None
    ) -> _Found:
        """The rows with the cursor of those that follow."""
        shown = rows[: permitted.limit]
        cursor = self._pages.next(paging, shown[-1], page.places) if len(rows) > len(shown) else None
        if page.wider:
            shown = [row[: page.width] for row in shown]
        return _Found(shown, total, cursor, paging.after is not None, few_counted(permitted.shown, shown))

    async def _refuse_beyond_end(self, reading: Reading, permitted: Permitted, total: int | None) -> None:
        """A page that starts behind the last row is refused, one that starts right after it is empty:
        so who pages until an empty page ends well."""
        if total is None:
            empty = Statements(reading.statements.page.limit(0), reading.statements.total)
            _, total = await self._reader.read(empty, kind=(reading.kind, "end"), rows=0, count=True)
        if permitted.offset > (total or 0):
            raise RangeBeyondEnd(offset=permitted.offset)

    def _guards(self, shape: Shape, allow: Allow) -> Guards:
        """What is withheld from everybody."""
        return guards_of(shape, self._shapes) if allow.purpose == OPEN_DATA else ()

    def _table(self, shape: Shape, guards: Guards) -> sa.FromClause:
        kept = self._tables.get((shape.view.name, guards))
        if kept is None or kept[0] is not shape:
            table = row_table(shape)
            kept = (shape, guarded_table(table, guards) if guards else table)
            self._tables[shape.view.name, guards] = kept
        return kept[1]

    def _base(self, shape: Shape, permitted: Permitted, allow: Allow) -> Base:
        """What the decision allows, as SQL; kept by everything that goes into it, unless it is of a moment."""
        if permitted.moment:
            return base(table_at(shape, permitted), permitted.shown, allow, self._rendering(allow))
        table = self._table(shape, self._guards(shape, allow))
        columns = tuple(
            (item.column.name, item.name, item.mask and (item.mask.kind, repr(item.mask.argument)), item.counted)
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

    def owner(self, shape: Shape) -> dict[str, str]:
        """Whom to ask about a view."""
        return {"owner": shape.view.owner, "contact": self._contacts(shape.view.owner)}


def _read(asked: Asked, read: Callable[[], Query]) -> tuple[Query, BusError | None]:
    try:
        return read(), None
    except BusError as error:
        return Query(export=asked.export), error
