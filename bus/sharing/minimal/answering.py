"""The door of minimal answers.

Who may ask a question learns its answer and nothing else: a key that has no row, and one whose row the grant does not
cover, are answered alike, as the view declares it (``unknown``); the answer itself is not written into the audit log.
Guessing keys is bounded by the questions a minute and a day.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bus.access.decision import Allow
from bus.access.identity import Subject
from bus.audit.log import AuditLog
from bus.core.views import Question
from bus.errors import BadFilter, NotFound, QuestionNotGranted
from bus.sharing.answers import Asked
from bus.sharing.budget.spending import Budget, daily
from bus.sharing.filters import Comparison, shape_of
from bus.sharing.minimal.store import held
from bus.sharing.query import QueryDoor
from bus.sharing.question import Query, parse_query
from bus.sharing.readers import Reader
from bus.sharing.recording import under
from bus.sharing.store import Statements
from bus.sharing.values import typed_value
from bus.views.catalogue import Shape

Parameters = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Said:
    """What was answered: yes (True), no (False) or that it is not known (None), at the instant ``at`` (UTC)."""

    view: str
    question: Question
    answer: bool | None
    at: dt.datetime
    freshness: str
    decision: Allow
    explained: bool = False
    stale: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON; an explained question has the decision and no answer."""
        if not self.explained:
            at = self.at.isoformat(timespec="seconds").replace("+00:00", "Z")
            return {"view": self.view, "question": self.question.name, "answer": self.answer, "as_of": at}
        allow = self.decision
        return {
            "allow": True,
            "view": self.view,
            "question": self.question.name,
            "title": dict(self.question.title),
            "unknown": self.question.unknown,
            "purpose": allow.purpose,
            "channel": allow.channel,
            "grants": list(allow.grant_ids),
            "decision": allow.decision_id,
            "policy_revision": allow.policy_revision,
            "limits": {"per_minute": allow.limits.per_minute, "per_day": daily(allow)},
        }


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class MinimalDoor:
    """Answers declared questions. ``door``: whose decisions, limits and refusals count here too."""

    def __init__(
        self,
        door: QueryDoor,
        *,
        reader: Reader,
        audit: AuditLog,
        budget: Budget,
        clock: Callable[[], dt.datetime] = _utc_now,
    ) -> None:
        self._door, self._reader, self._audit, self._budget, self._clock = door, reader, audit, budget, clock

    async def answer(
        self,
        subject: Subject,
        view: str,
        question: str,
        params: Callable[[], Parameters],
        purpose: str | None,
        *,
        request_id: str = "",
    ) -> Said:
        """The answer for one row. ``params``: each key column as ``eq.X``, and perhaps ``explain=true``.

        Raises what interface.md lists for a query, `QuestionNotGranted`, `NotFound`, `BudgetSpent`.
        """

        async def then(asked: Asked, shape: Shape, query: Query, allow: Allow) -> Said:
            return await self._allowed(asked, shape, params, query.question, allow)

        return await self._door.decided(
            Asked(subject, view, purpose, request_id), lambda: Query(question=question), then
        )

    async def _allowed(
        self, asked: Asked, shape: Shape, params: Callable[[], Parameters], name: str, allow: Allow
    ) -> Said:
        question = shape.view.question(name)
        if name not in allow.questions or question is None:
            if question is None:
                raise NotFound(what=f"question '{name[:63]}' of '{asked.view}'")
            granted = ", ".join(allow.questions) or "none"
            raise QuestionNotGranted(question=name, view=asked.view, granted=granted, **self._door.owner(shape))
        query = parse_query(params())
        key = whole_key(query, shape)
        standing = await self._door.let_in(asked, shape, allow)
        said = Said(asked.view, question, None, self._clock(), standing.header, allow, query.explain, standing.stale)
        if not query.explain:
            await self._budget.spend(allow)
            said = replace(said, answer=await self._ask(shape, question, allow, key, said.at))
        await self._audit.append(_recorded(asked, allow, question, query))
        return said

    async def _ask(
        self, shape: Shape, question: Question, allow: Allow, key: Mapping[str, Any], at: dt.datetime
    ) -> bool | None:
        statement = held(shape, question, allow, key, at.astimezone(dt.UTC).date())
        kind = ("question", shape.view.name, question.name, allow.grant_ids)
        rows, _ = await self._reader.read(Statements(statement, statement), kind=kind, rows=1, count=False)
        return bool(rows[0][0]) if rows else question.unknown


def whole_key(query: Query, shape: Shape) -> dict[str, Any]:
    """The key that the question names, whole and nothing else. Raises `BadFilter`."""
    parts = [item for item in query.filters if isinstance(item, Comparison) and item.op == "eq" and not item.negated]
    plain = Query(filters=tuple(parts), explain=query.explain)
    if query != plain or sorted(item.field for item in parts) != sorted(shape.view.key):
        example = "&".join(f"{name}=eq.X" for name in shape.view.key)
        raise BadFilter(why=f"a question is about one row: name its whole key and nothing else, as in {example}.")
    return {item.field: typed_value(item.values[0], shape.kinds[item.field], item.field) for item in parts}


def _recorded(asked: Asked, allow: Allow, question: Question, query: Query) -> dict[str, Any]:
    """The entry: who asked which question under which decision; neither the key nor the answer."""
    told = {"question": question.name, "filter": shape_of(query.filters), "explained": query.explain}
    return under(asked.subject, allow, columns=[], masked=[], rows=0, question=told, request_id=asked.request_id)
