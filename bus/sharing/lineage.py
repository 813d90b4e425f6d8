"""The lineage door: which events made the values of a row that the caller may see.

It asks the query door's own decision for exactly that row and those fields; then it reads the events' envelopes from
Kafka, never their contents, and records the answer before it is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol

import sqlalchemy as sa

from bus.access.decision import Allow, Decider, Deny
from bus.access.filters import where
from bus.access.identity import Subject
from bus.audit.log import AuditLog
from bus.core.columns import Column
from bus.core.views import Lookup, Over
from bus.errors import NotFound
from bus.infra.records import Place, Stored
from bus.sharing.one_row import Parameters, one_row, whole_key
from bus.sharing.past import condition_fields, refuse_brought
from bus.sharing.permitted import Permitted
from bus.sharing.provenance import Contribution, Event, Known, Lineage, Made
from bus.sharing.query import Asked, Query, QueryDoor
from bus.sharing.readers import Reader
from bus.sharing.recording import disclosure
from bus.sharing.store import Statements
from bus.views.catalogue import Shape
from bus.views.derived import lineage
from bus.views.derived.lineage import MOST_VERSIONS, Key, Origin, Visible
from bus.views.values import instant

_LINKS: Final = 5  # look-ups that follow one another


class Records(Protocol):
    """Where events are read back."""

    async def read(self, places: Iterable[Place]) -> Mapping[Place, Stored | None]:
        """None for what is no longer kept. Raises `BrokerUnavailable`."""

    async def close(self) -> None:
        """Gives the connection back."""


class Versions(Protocol):
    """Which version of a contract a schema is."""

    def version_of(self, subject: str, schema_id: int, /) -> int | None: ...


class LineageDoor:
    """Answers where values come from. ``door``: whose decisions, limits and refusals count here too."""

    def __init__(
        self,
        door: QueryDoor,
        *,
        decider: Decider,
        reader: Reader,
        audit: AuditLog,
        records: Records,
        versions: Versions,
    ) -> None:
        self._door, self._decider, self._reader, self._audit = door, decider, reader, audit
        self._records, self._versions = records, versions

    async def answer(
        self,
        subject: Subject,
        view: str,
        params: Callable[[], Parameters],
        purpose: str | None,
        *,
        request_id: str = "",
    ) -> Lineage:
        """The lineage of one row. ``params``: each key column as ``eq.X``, and perhaps ``field`` with columns.

        Raises what a query by the key raises, `NotFound` where it would have no row, `BrokerUnavailable`.
        """
        asked = Asked(subject, view, purpose, request_id)
        return await self._door.decided(asked, lambda: one_row(params()), self._allowed)

    async def close(self) -> None:
        """Gives the connection to Kafka back."""
        await self._records.close()

    async def _allowed(self, asked: Asked, shape: Shape, query: Query, allow: Allow) -> Lineage:
        permitted, standing = await self._door.admit(asked, shape, query, allow)
        blank = Lineage(shape.view.name, shape.view.kind, whole_key(permitted, shape), allow, standing.header)
        shapes = await self._door.current_shapes()
        trace = self._aggregate if shape.view.kind == "aggregate" else self._record
        found = await trace(_Row(asked, shape, shapes, permitted, allow, blank))
        rows = int(found is not None)
        await self._audit.append(
            disclosure(asked.subject, allow, permitted, rows=rows, lineage=True, request_id=asked.request_id)
        )
        if found is None:
            raise NotFound(what=f"row of '{asked.view}' with that key")
        return found

    async def _record(self, row: _Row) -> Lineage | None:
        columns = [item.column for item in row.permitted.shown]
        made = await self._made(row.shape, row.shapes, row.blank.key, row.visible, columns)
        versions: Sequence[Known] = ()
        if row.shape.view.kind == "history":
            refuse_brought(row.shape, condition_fields(row.allow.filter))
            versions = await self._known(row)
        if made is None and all(version.deleted for version in versions):
            return None
        masked = row.allow.masks
        made = [replace(one, masked=one.column.name in masked) for one in made or ()]
        shown = versions[:MOST_VERSIONS]
        places = [place for one in made for place in one.places] + [version.place for version in shown]
        return replace(
            row.blank,
            made=made,
            versions=shown,
            more_versions=len(versions) > MOST_VERSIONS,
            events=await self._events(places, row.shapes),
        )

    async def _made(
        self,
        shape: Shape,
        shapes: Mapping[str, Shape],
        key: Key,
        visible: Visible,
        columns: Sequence[Column],
        *,
        links: int = _LINKS,
    ) -> list[Made] | None:
        """Of each column its events; None where there is no such row to see."""
        origins = lineage.origins(shape, [column.name for column in columns])
        lookups = {origin.lookup.name: origin.lookup for origin in origins if origin.lookup is not None}
        by = list(dict.fromkeys(name for lookup in lookups.values() for name in lookup.by))
        rows = await self._read(lineage.row(shape, key, by, visible), "row", shape)
        if not rows:
            return None
        values: dict[str, Any] = dict(zip(by, rows[0][1:], strict=True))
        places = await self._places(shape, key, visible)
        brought = {
            lookup.name: await self._brought(shapes, lookup, values, origins, links) for lookup in lookups.values()
        }
        made = []
        for column, origin in zip(columns, origins, strict=True):
            if origin.lookup is None:
                source = origin.source or next(iter(places), None)
                own = [places[source]] if source in places else []
                made.append(Made(column, False, tuple(own), source))
            else:
                own = [
                    places[item.source] for item in lineage.origins(shape, origin.lookup.by) if item.source in places
                ]
                chain = [*dict.fromkeys(own), *brought[origin.lookup.name].get(origin.field, ())]
                made.append(Made(column, False, tuple(chain), origin.lookup.name, origin.lookup.view))
        return made

    async def _brought(
        self, shapes: Mapping[str, Shape], lookup: Lookup, values: Key, origins: Sequence[Origin], links: int
    ) -> Mapping[str, tuple[Place, ...]]:
        """The events of the fields of the view looked up, by field; none while it has no such row."""
        other, key = shapes[lookup.view], [values[name] for name in lookup.by]
        if None in key or not links:
            return {}
        fields = {origin.field for origin in origins if origin.lookup is not None and origin.lookup.name == lookup.name}
        columns = [column for column in other.columns if column.name in fields]
        whole = dict(zip(other.view.key, key, strict=True))
        made = await self._made(other, shapes, whole, lineage.everyone, columns, links=links - 1)
        return {one.column.name: one.places for one in made or ()}

    async def _places(self, shape: Shape, key: Key, visible: Visible) -> dict[str, Place]:
        """By source, in the view's order, the event of the record that shows."""
        pairs = zip(shape.view.sources, shape.contracts, strict=True)
        topics = {source.name: contract.topic for source, contract in pairs}
        found: dict[str, Any] = {
            row[0]: row for row in await self._read(lineage.made_by(shape, key, visible), "places", shape)
        }
        return {name: (topic, found[name][1], found[name][2]) for name, topic in topics.items() if name in found}

    async def _known(self, row: _Row) -> list[Known]:
        topic = row.shape.contracts[0].topic
        statement = lineage.all_versions(row.shape, row.blank.key, row.visible)
        return [
            Known(
                (topic, found.partition, found.offset),
                instant(found.known * 1_000),
                instant(found.valid),
                None if found.until is None else instant(found.until),
                not found.live,
                bool(found.current),
            )
            for found in await self._read(statement, "versions", row.shape)
        ]

    async def _aggregate(self, row: _Row) -> Lineage | None:
        if not await self._read(lineage.row(row.shape, row.blank.key, (), row.visible), "row", row.shape):
            return None
        made = [Made(item.column, item.mask is not None) for item in row.permitted.shown]
        parts = [await self._contribution(row, over) for over in row.shape.view.over]
        return replace(row.blank, made=made, contributions=parts)

    async def _contribution(self, row: _Row, over: Over) -> Contribution:
        """How many rows count, and which where the caller might find them out by asking the views themselves."""
        allowed = await self._allowed_bases(row, over)
        visible = {name: partial(where, allow) for name, allow in allowed.items()} if allowed else {}
        asked = lineage.contributed(row.shape, over, row.shapes, row.blank.key, visible)
        kind = ("lineage", row.shape.view.name, over.name)
        if not allowed:
            ((count,),), _ = await self._reader.read(
                Statements(asked.count, asked.count), kind=kind, rows=1, count=False
            )
            return Contribution(over.name, over.view, count, withheld="not_granted")
        statements = Statements(asked.keys, asked.count)
        found, total = await self._reader.read(statements, kind=(*kind, "keys"), rows=lineage.MOST_KEYS, count=True)
        key = row.shapes[over.view].view.key
        return Contribution(over.name, over.view, total or 0, [dict(zip(key, one, strict=True)) for one in found])

    async def _allowed_bases(self, row: _Row, over: Over) -> dict[str, Allow] | None:
        """The decisions on the views that are counted and joined, if each shows, unmasked, what it adds to the group
        and the key; None if one does not."""
        group = set(row.shape.view.key)
        needed = {over.view: {*row.shapes[over.view].view.key, *(group - set(over.join.bring if over.join else ()))}}
        if over.join is not None:
            needed[over.view].add(over.join.local)
            needed[over.join.view] = {over.join.foreign, *(group & set(over.join.bring))}
        found = {}
        for view, columns in needed.items():
            decision = await self._decider.decide(row.asked.subject, row.shapes[view], row.asked.purpose, "query")
            if isinstance(decision, Deny) or not columns <= set(decision.columns) - set(decision.masks):
                return None
            found[view] = decision
        return found

    async def _events(self, places: Sequence[Place], shapes: Mapping[str, Shape]) -> dict[Place, Event]:
        """The events, each once, in the order in which they are named."""
        stored = await self._records.read(dict.fromkeys(places))
        contracts = {contract.topic: contract for shape in shapes.values() for contract in shape.contracts}
        events = [Event(place, contracts[place[0]].id, stored[place]) for place in dict.fromkeys(places)]
        wanted = {(contracts[e.place[0]].subject, e.schema_id) for e in events if e.schema_id is not None}
        numbers = await asyncio.to_thread(lambda: {pair: self._versions.version_of(*pair) for pair in wanted})
        return {
            event.place: replace(
                event, contract_version=numbers.get((contracts[event.place[0]].subject, event.schema_id or 0))
            )
            for event in events
        }

    async def _read(self, statement: sa.Select[Any], what: str, shape: Shape) -> Sequence[sa.Row[Any]]:
        both = Statements(statement, statement)
        kind = ("lineage", what, shape.view.name)
        return (await self._reader.read(both, kind=kind, rows=1, count=False))[0]


@dataclass(frozen=True, slots=True)
class _Row:
    """One question, decided. ``blank``: its answer before anything was found."""

    asked: Asked
    shape: Shape
    shapes: Mapping[str, Shape]
    permitted: Permitted
    allow: Allow
    blank: Lineage

    def visible(self, table: sa.FromClause) -> sa.ColumnElement[bool]:
        return where(self.allow, table)
