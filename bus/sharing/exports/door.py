"""The export door: the same decision under the channel `export`, then a file that is written while it is taken.

In this order: the decision, the fields and limits, a place, how many rows, the opening audit entry, the bytes, the
closing entry. Whoever stops taking loses its place: the cursor is closed and the entry says how far it came.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from bus.access.decision import Allow
from bus.audit.entries import Closing
from bus.audit.log import AuditLog
from bus.errors import AuditUnavailable, BadFilter, BusError, ExportTooLarge, Unavailable
from bus.sharing.admission import Places
from bus.sharing.answers import Answer, Asked
from bus.sharing.exports.files import Writer, about, writer
from bus.sharing.exports.reading import ExportReader, TookTooLong
from bus.sharing.exports.store import exported
from bus.sharing.formats import Format
from bus.sharing.permitted import Permitted
from bus.sharing.query import Query, QueryDoor
from bus.sharing.recording import disclosure
from bus.sharing.store import Statements
from bus.views.catalogue import Shape

EACH: Final = 2
LONGEST_S: Final = 3_600
log = logging.getLogger(__name__)


class _Part(NamedTuple):
    """What the next step gave: how many rows are in ``data``; the first part says how many there are in all."""

    rows: int
    data: bytes


@dataclass
class Export:
    """One export under way. ``answer``: what it says of itself; ``total``: rows in all. Close it, whatever happens."""

    answer: Answer
    total: int
    format: Format
    _work: _Work
    _audit: AuditLog
    _opening: int
    _request_id: str
    _give_back: Callable[[], None]
    _sent: int = field(default=0, init=False)
    _closed: bool = field(default=False, init=False)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file's bytes in order. Raises what `ExportReader.read` raises."""
        while (part := await self._work.next()) is not None:
            if part.data:
                yield part.data
            self._sent += part.rows

    async def finish(self) -> None:
        """Records that all of it was sent. Raises `AuditUnavailable`: then the file must not be ended properly."""
        await self._audit.append(self._closing(complete=True))
        self._closed = True

    async def close(self) -> None:
        """Gives everything back; an export that was not finished is recorded as such."""
        try:
            await self._work.close()
        finally:
            self._give_back()
        if not self._closed:
            self._closed = True
            try:
                await self._audit.append(self._closing(complete=False))
            except AuditUnavailable:
                log.error("The end of export %s is not recorded: `bus audit verify` will name it", self._request_id)

    def _closing(self, *, complete: bool) -> dict[str, Any]:
        entry = Closing(request_id=self._request_id, opening=self._opening, rows=self._sent, complete=complete)
        return entry.body()


class _Work:
    """Steps through an iterator in threads, one step at a time: the next one is made when the last one was taken."""

    def __init__(self, pool: ThreadPoolExecutor, parts: Iterator[_Part]) -> None:
        self._pool, self._parts = pool, parts
        self._step: asyncio.Future[_Part | None] | None = None

    async def next(self) -> _Part | None:
        """The next part; None after the last. A step goes on where its caller is cancelled: `close` waits for it."""
        self._step = asyncio.get_running_loop().run_in_executor(self._pool, next, self._parts, None)
        return await asyncio.shield(self._step)

    async def close(self) -> None:
        """Ends the iterator where it is, which closes its cursor and gives its connection back."""
        if self._step is not None:
            with suppress(BusError):  # whoever waited for the step was told
                await asyncio.shield(self._step)
        await asyncio.get_running_loop().run_in_executor(self._pool, self._parts.close)  # type: ignore[attr-defined]


class ExportDoor:
    """Gives files. ``door``: decides and knows the views; ``reader``: has a connection for each place."""

    def __init__(self, door: QueryDoor, *, reader: ExportReader, audit: AuditLog, each: int = EACH) -> None:
        self._door, self._reader, self._audit = door, reader, audit
        self._places = Places(in_all=reader.connections, each=each)
        self._pool = ThreadPoolExecutor(reader.connections, thread_name_prefix="export")

    @property
    def under_way(self) -> int:
        """How many exports hold a place."""
        return self._places.taken

    async def begin(self, asked: Asked, read: Callable[[], Query], chosen: Format) -> Export:
        """An export whose opening is recorded and whose first byte may be sent.

        Raises what a query raises, `TooManyExports`, `ExportTooLarge`, `NotAcceptable`.
        """

        async def allowed(asked: Asked, shape: Shape, query: Query, allow: Allow) -> Export:
            return await self._begin(asked, shape, query, allow, chosen=chosen)

        return await self._door.decided(replace(asked, export=True), lambda: replace(read(), export=True), allowed)

    async def close(self) -> None:
        """Gives threads and connections back."""
        self._pool.shutdown(cancel_futures=True)
        self._reader.close()

    async def _begin(self, asked: Asked, shape: Shape, query: Query, allow: Allow, *, chosen: Format) -> Export:
        if query.embedded or query.cursor is not None:
            raise BadFilter(why="an export takes columns, filters, order, limit and offset.", field="export")
        permitted, standing = await self._door.admit(asked, shape, query, allow)
        permitted = _within_limits(permitted, query, allow)
        answer = Answer(
            shape.view.name, permitted.shown, (), permitted.offset, None, standing.header, allow, False,
            query.moment, standing.stale,
        )  # fmt: skip
        file = writer(chosen, permitted.shown, _about(answer, asked))
        give_back = self._places.take(asked.subject.department)
        allowed = self._door.allowed_rows(shape, permitted, allow)
        statements = self._door.untold(exported(allowed, permitted), allowed, shape, allow)
        work = _Work(self._pool, _parts(self._reader, statements, file, min(allow.limits.seconds, LONGEST_S)))
        try:
            total = await self._total(work, allow)
            opening = await self._audit.append(disclosure(
                asked.subject, allow, permitted, rows=None, export=str(chosen), request_id=asked.request_id
            ))  # fmt: skip
        except BaseException:
            await asyncio.shield(_given_back(work, give_back))
            raise
        return Export(answer, total, chosen, work, self._audit, opening, asked.request_id, give_back)

    async def _total(self, work: _Work, allow: Allow) -> int:
        """How many rows there are: all of them may be exported, or none is. Raises `ExportTooLarge`."""
        try:
            first = await work.next()
        except TookTooLong as error:
            raise BadFilter(why=error.detail) from error
        if first is None:
            raise Unavailable()
        if first.rows > allow.limits.export_rows:
            raise ExportTooLarge(limit=allow.limits.export_rows, why="the grant allows")
        return first.rows


async def _given_back(work: _Work, give_back: Callable[[], None]) -> None:
    try:
        await work.close()
    finally:
        give_back()


def _within_limits(permitted: Permitted, query: Query, allow: Allow) -> Permitted:
    """All rows that are asked for, and one more than may be exported, so that too many are noticed."""
    most = allow.limits.export_rows + 1
    return replace(permitted, limit=most if query.limit is None else min(query.limit, most), count=False)


def _parts(reader: ExportReader, asked: Statements, file: Writer, seconds: float) -> Iterator[_Part]:
    """First the number of rows, then the file as it grows."""
    found = reader.read(asked, seconds=seconds)
    try:
        for item in found:
            if isinstance(item, int):
                yield _Part(item, b"")
                yield _Part(0, file.first())
            else:
                yield _Part(len(item), file.batch(item))
        yield _Part(0, file.last())
    finally:
        found.close()  # type: ignore[attr-defined]


def _about(answer: Answer, asked: Asked) -> dict[str, str]:
    allow = answer.decision
    return about(
        answer.view,
        purpose=allow.purpose,
        policy_revision=allow.policy_revision,
        masked=answer.masked,
        request_id=asked.request_id,
    )
