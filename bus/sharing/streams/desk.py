"""What every stream needs, and the words in which one step of it can fail."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from bus.audit.log import AuditLog
from bus.contracts.registry import Registry
from bus.core.masks import consumer_key
from bus.core.shares import share_schema, share_subject
from bus.errors import NotFound, Unavailable
from bus.sharing.streams.pages import Look
from bus.sharing.streams.permits import Permits
from bus.sharing.streams.sending import Sink
from bus.sharing.streams.store import StreamStore
from bus.sharing.streams.terms import Terms
from bus.views.catalogue import Shape
from bus.views.changelog.reading import Changes, LogStanding, Snapshot

SNAPSHOTS: Final = 4  # of one process at a time: each holds a transaction of the views database open


class NotReady(Unavailable):
    """The stream cannot go on yet: {why}. It is tried again by itself."""

    code = "stream_not_ready"


class Superseded(Unavailable):
    """The terms changed meanwhile: nothing more is sent under the old ones."""

    code = "stream_superseded"


class TopicBegan(Unavailable):
    """The topic is not the one that was written before: its stream begins anew."""

    code = "stream_topic_began"


class Interfered(Unavailable):
    """Something else wrote to the topic: its stream begins anew."""

    code = "stream_interfered"


class Log(Protocol):
    """A view's changes and rows, see `bus.views.changelog.reading.ChangeLog`."""

    def standing(self, view: str) -> LogStanding: ...
    def changes(self, shape: Shape, after: int, limit: int) -> Changes: ...
    def snapshot(self, shape: Shape, *, at_random: bool) -> Any: ...


@dataclass(frozen=True, slots=True)
class Desk:
    """The parts that streams share. ``shapes``: the views as their tables are now; ``mask_secret``: what consumers'
    hash keys are made of; ``alive``: raises where this process may not write any more; ``now``: aware."""

    permits: Permits
    log: Log
    store: StreamStore
    audit: AuditLog
    sink: Sink
    registry: Registry
    shapes: Callable[[], Mapping[str, Shape]]
    mask_secret: bytes
    now: Callable[[], dt.datetime]
    alive: Callable[[], None] = lambda: None
    snapshots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SNAPSHOTS))

    async def shape(self, view: str) -> Shape | None:
        """The view as its tables are now; None where it is not declared."""
        return (await asyncio.to_thread(self.shapes)).get(view)

    async def look(self, terms: Terms, shape: Shape) -> Look:
        """How the terms see the view. Raises `NotReady` while the schema is not registered."""
        columns = [column for column in shape.columns if column.name in terms.columns]
        schema = share_schema(terms.consumer, terms.view, columns, terms.masks)
        schema_id = await asyncio.to_thread(self._schema_id, share_subject(terms.consumer, terms.view), schema)
        return Look(terms, shape, schema_id=schema_id, key=consumer_key(self.mask_secret, terms.consumer))

    def _schema_id(self, subject: str, schema: dict[str, Any]) -> int:
        try:
            for version in reversed(self.registry.versions(subject)):
                schema_id, known = self.registry.version(subject, version)
                if known == schema:
                    return schema_id
        except NotFound as error:
            raise NotReady(why=f"the schema of {subject} is not registered") from error
        raise NotReady(why=f"the schema of {subject} is not the one that the grant needs")

    @asynccontextmanager
    async def snapshot(self, look: Look) -> AsyncIterator[tuple[int, AsyncIterator[Sequence[tuple[Any, ...]]]]]:
        """The view's ``seq`` and its rows in portions; where keys are hidden, in an order that says nothing of them.
        Raises `NotReady` unless the view is live and has a log."""
        shape = look.shape
        async with self.snapshots:
            standing = await asyncio.to_thread(self.log.standing, shape.view.name)
            if standing.fingerprint != shape.fingerprint or (standing.state != "live" and not shape.view.stale):
                raise NotReady(why=f"{shape.view.name} is being built")
            if standing.log_from is None:
                raise NotReady(why=f"the log of {shape.view.name} has not begun")
            opened = self.log.snapshot(shape, at_random=look.opaque)
            found: Snapshot = await asyncio.to_thread(opened.__enter__)
            try:
                yield found.seq, _portions(found)
            finally:
                await asyncio.to_thread(opened.__exit__, None, None, None)


async def _portions(snapshot: Snapshot) -> AsyncIterator[Sequence[tuple[Any, ...]]]:
    while (rows := await asyncio.to_thread(next, snapshot.rows, None)) is not None:
        yield rows
