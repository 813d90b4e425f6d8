"""The rows of related views beside each row of an answer.

Each view that is embedded has its own decision (for the same purpose, over the channel `query`), its own row filter,
masks and limits, and its own entry in the audit log. Rows are joined by columns that the asker may see as they are, on
either side; else joining would tell what a mask hides (A10).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from bus.access.decision import Allow, Decider, Deny
from bus.audit.log import AuditLog
from bus.core.columns import Column
from bus.core.contracts import Kind
from bus.errors import BadFilter, NotAcceptable, UnknownView
from bus.sharing.answers import Answer, Asked, Inside
from bus.sharing.budget.spending import Budget
from bus.sharing.embedding.relations import Relation, relation, unrelated
from bus.sharing.embedding.store import related
from bus.sharing.formats import Format
from bus.sharing.permitted import Permitted, Shown, joinable, permit
from bus.sharing.question import Embedded, Query
from bus.sharing.readers import Reader
from bus.sharing.recording import disclosure
from bus.sharing.store import Base, Statements
from bus.sharing.watch import Standing
from bus.views.catalogue import Shape

KEYS_AT_ONCE: Final = 500
Key = tuple[Any, ...]


class Door(Protocol):
    """What the query door does for embedded views as well."""

    async def current_shapes(self) -> Mapping[str, Shape]: ...
    async def let_in(self, asked: Asked, shape: Shape, allow: Allow) -> Standing: ...
    def allowed_rows(self, shape: Shape, permitted: Permitted, allow: Allow) -> Base: ...
    def owner(self, shape: Shape) -> dict[str, str]: ...


@dataclass(frozen=True, slots=True)
class Part:
    """One embedded view, decided. ``by``: the columns of the outer view that lead there; ``permitted`` has the columns
    that lead back behind those asked for."""

    asked: Embedded
    relation: Relation
    by: tuple[Column, ...]
    shape: Shape
    allow: Allow
    permitted: Permitted
    standing: Standing

    @property
    def width(self) -> int:
        """How many columns were asked for."""
        return len(self.permitted.shown) - len(self.relation.to)

    @property
    def inside(self) -> Inside:
        return Inside(self.asked.name, self.allow, self.permitted.shown[: self.width], self.standing.header)

    @property
    def shown(self) -> Shown:
        """The embedded rows as one column of the answer."""
        title = self.shape.view.title
        personal = any(item.column.personal for item in self.permitted.shown)
        return Shown(Column(self.asked.name, Kind.NESTED, True, title, "open", personal), self.asked.name, None)


class Embedder:
    """Embeds related views. ``door``: whose limits count here too."""

    def __init__(self, door: Door, *, decider: Decider, reader: Reader, audit: AuditLog, budget: Budget) -> None:
        self._door, self._decider, self._reader, self._audit, self._budget = door, decider, reader, audit, budget

    async def admit(self, asked: Asked, shape: Shape, query: Query, allow: Allow) -> tuple[Part, ...]:
        """The embedded views, each as far as its own grant goes.

        Raises what a question to each of them raises, and `BadFilter` for views that are not related.
        """
        if not query.embedded:
            return ()
        if query.moment or query.export:
            why = "embedded views show how things are now, as JSON: without `as_of`, `valid_at` and `export`."
            raise BadFilter(why=why, field="select")
        shapes = await self._door.current_shapes()
        return tuple([await self._part(asked, shape, item, allow, shapes) for item in query.embedded])

    async def _part(
        self, asked: Asked, outer: Shape, item: Embedded, allow: Allow, shapes: Mapping[str, Shape]
    ) -> Part:
        found = relation(outer.view, item, shapes)
        shape = shapes[found.other]
        decision = await self._decider.decide(asked.subject, shape, asked.purpose, "query")
        if isinstance(decision, Deny):
            raise unrelated(outer.view, item, shapes) if isinstance(decision.error, UnknownView) else decision.error
        by = joinable(outer, allow, found.by, lambda: self._door.owner(outer))
        back = joinable(shape, decision, found.to, lambda: self._door.owner(shape))
        permitted = permit(item.query, shape, decision, lambda: self._door.owner(shape))
        standing = await self._door.let_in(asked, shape, decision)
        return Part(item, found, by, shape, decision, widened(permitted, back), standing)

    async def fill(self, answer: Answer, parts: Sequence[Part], asked: Asked) -> Answer:
        """The answer with the related rows in place of the columns that lead to them, recorded part by part."""
        width = len(answer.shown) - len(parts)
        rows: list[Sequence[Any]] = [tuple(row[:width]) for row in answer.rows]
        place = width
        for part in parts:
            keys = [tuple(row[place : place + len(part.by)]) for row in answer.rows]
            place += len(part.by)
            await self._budget.spend(part.allow)
            found, count = await self._related(part, keys)
            rows = [(*row, found.get(key, [])) for row, key in zip(rows, keys, strict=True)]
            if not part.relation.many:
                rows = [(*row[:-1], row[-1][0] if row[-1] else None) for row in rows]
            await self._record(asked, part, count)
        return replace(answer, rows=rows)

    async def _related(self, part: Part, keys: Iterable[Key]) -> tuple[dict[Key, list[dict[str, Any]]], int]:
        """The rows by the key that they belong to, and how many there are."""
        found: dict[Key, list[dict[str, Any]]] = {}
        wanted, most, count = [key for key in dict.fromkeys(keys) if None not in key], part.allow.limits.rows, 0
        names = [item.name for item in part.permitted.shown[: part.width]]
        for start in range(0, len(wanted), KEYS_AT_ONCE):
            for row in await self._read(part, wanted[start : start + KEYS_AT_ONCE], most - count + 1):
                count += 1
                found.setdefault(tuple(row[part.width :]), []).append(dict(zip(names, row, strict=False)))
            if count > most:
                raise _too_many(part.asked.name, most)
        return found, count

    async def _read(self, part: Part, keys: Sequence[Key], most: int) -> Sequence[Sequence[Any]]:
        allowed = self._door.allowed_rows(part.shape, part.permitted, part.allow)
        page = related(allowed, part.permitted, to=part.relation.to, keys=keys, each=part.asked.query.limit, most=most)
        kind = ("embedded", part.shape.view.name, part.relation, part.allow.grant_ids)
        return (await self._reader.read(Statements(page, page), kind=kind, rows=most, count=False))[0]

    async def _record(self, asked: Asked, part: Part, rows: int) -> None:
        shown = replace(part.permitted, shown=part.permitted.shown[: part.width])
        more = {"embedded_in": asked.view}
        await self._audit.append(
            disclosure(asked.subject, part.allow, shown, rows=rows, request_id=asked.request_id, more=more)
        )


def _too_many(name: str, most: int) -> BadFilter:
    why = f"'{name}' would have more rows than the {most} that its grant allows in one answer."
    return BadFilter(why=f"{why} Ask for fewer rows (limit), or for fewer of each ({name}.limit).", field="select")


def widened(permitted: Permitted, columns: Iterable[Column]) -> Permitted:
    """With these columns behind those asked for; they are cut off again."""
    hidden = (Shown(column, f"_{place}", None) for place, column in enumerate(columns))
    return replace(permitted, shown=(*permitted.shown, *hidden))


def nested_as_json(query: Query, chosen: Format) -> Query:
    """The question, if its answer can be written so: rows within rows are for JSON. Raises `NotAcceptable`."""
    if query.embedded and chosen in (Format.CSV, Format.PARQUET):
        raise NotAcceptable(why="embedded views are given as JSON or JSON lines. Ask each view for itself")
    return query
