"""The audit log: appended before data leaves, chained by hash, committed in groups (K10).

The chain is kept by whoever holds the table's write lock: SQLite's, or an advisory lock on PostgreSQL. A tail
that was cut off is not seen by the chain alone: `verify` takes an anchor (the head as kept elsewhere) for that.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.audit.store import ENTRIES, LAST, LOCK, METADATA
from bus.core.chain import GENESIS, canonical, link
from bus.errors import AuditUnavailable
from bus.infra.database import create_tables, translated_errors, write

GROUP: Final = 500
PAGE: Final = 5_000


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry: what an anchor keeps elsewhere. Sequence 0 is the empty log."""

    sequence: int
    hash: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as stored."""

    sequence: int
    body: Mapping[str, Any]
    hash: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """``ok``: the chain holds. ``first_bad``: the first sequence number that does not. ``unclosed``: openings of
    streamed answers without a closing entry (the process died, or is still streaming). ``against``: the sequence of the
    anchor that an unbroken chain contradicts."""

    entries: int
    ok: bool
    first_bad: int | None
    head: Head
    unclosed: tuple[int, ...] = ()
    against: int | None = None


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An entry to write, and who waits for it: a future of ``loop``, or one of a thread where there is no loop."""

    text: bytes
    settled: asyncio.Future[int] | Future[int]
    loop: asyncio.AbstractEventLoop | None


@dataclass(frozen=True, slots=True)
class _Gathered:
    """What one turn of a loop appended."""

    loop: asyncio.AbstractEventLoop
    items: list[_Waiting]


_Results = Sequence[tuple[_Waiting, int | AuditUnavailable]]


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class AuditLog:
    """The log in the governance database. One thread writes; callers wait for the commit of their group."""

    def __init__(self, engine: Engine, *, clock: Callable[[], dt.datetime] = _utc_now) -> None:
        self._engine = engine
        self._clock = clock
        create_tables(engine, METADATA)
        self._waiting: queue.SimpleQueue[list[_Waiting] | None] = queue.SimpleQueue()
        self._here = threading.local()
        self._lock = threading.Lock()
        self._writer: threading.Thread | None = None
        self._closed = False

    async def append(self, body: Mapping[str, Any]) -> int:
        """Appends an entry; returns its sequence number once it is durable. Raises `AuditUnavailable`.

        The entry is written even if the caller is cancelled meanwhile.
        """
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[int] = loop.create_future()
        waiting = _Waiting(self._text(body), settled, loop)
        gathered: _Gathered | None = getattr(self._here, "gathered", None)
        if gathered is None or gathered.loop is not loop:
            gathered = self._here.gathered = _Gathered(loop, [])
            loop.call_soon(self._hand_over)
        gathered.items.append(waiting)
        return await settled

    def append_sync(self, body: Mapping[str, Any]) -> int:
        """The same for callers without an event loop."""
        settled: Future[int] = Future()
        self._enqueue([_Waiting(self._text(body), settled, None)])
        return settled.result()

    def close(self) -> None:
        """Writes what waits, then ends the writer; further entries are refused."""
        with self._lock:
            self._closed = True
            writer = self._writer
        if writer is not None:
            self._waiting.put(None)
            writer.join()

    def _text(self, body: Mapping[str, Any]) -> bytes:
        """The entry as it is chained and stored. Raises `AuditUnavailable` for what cannot be."""
        try:
            return canonical({**body, "at": self._clock().isoformat(timespec="milliseconds")})
        except (TypeError, ValueError) as error:
            raise AuditUnavailable() from error

    def _hand_over(self) -> None:
        """What this turn of the loop appended goes to the writer at once: a thread is woken once, not for each."""
        gathered: _Gathered = self._here.gathered
        self._here.gathered = None
        try:
            self._enqueue(gathered.items)
        except AuditUnavailable as error:
            _settle([(waiting, _unavailable(error)) for waiting in gathered.items])

    def _enqueue(self, items: list[_Waiting]) -> None:
        with self._lock:
            if self._closed:
                raise AuditUnavailable()
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, name="audit", daemon=True)
                self._writer.start()
            self._waiting.put(items)

    def _write(self) -> None:
        while (first := self._waiting.get()) is not None:
            group, last = self._gather(first)
            for start in range(0, len(group), GROUP):
                self._commit(group[start : start + GROUP])
            if last:
                return

    def _gather(self, first: list[_Waiting]) -> tuple[list[_Waiting], bool]:
        """All that waits by now: while one group is being written, the next one fills."""
        group = list(first)
        while len(group) < GROUP:
            try:
                items = self._waiting.get_nowait()
            except queue.Empty:
                break
            if items is None:
                return group, True
            group += items
        return group, False

    def _commit(self, group: Sequence[_Waiting]) -> None:
        results: Sequence[int | AuditUnavailable]
        try:
            with translated_errors(), write(self._engine) as connection:
                results = self._append(connection, [waiting.text for waiting in group])
        except Exception as error:
            results = [_unavailable(error) for _ in group]
        _tell(list(zip(group, results, strict=True)))

    def _append(self, connection: Connection, texts: Sequence[bytes]) -> list[int]:
        if connection.dialect.name == "postgresql":
            connection.execute(LOCK)
        last = connection.execute(LAST).first()
        sequence, hash_ = (last.sequence, last.hash) if last is not None else (0, GENESIS)
        rows = []
        for text in texts:
            sequence += 1
            hash_ = link(hash_, sequence, text)
            rows.append({"sequence": sequence, "body": text.decode(), "hash": hash_})
        connection.execute(ENTRIES.insert(), rows)
        return [int(row["sequence"]) for row in rows]

    def head(self) -> Head:
        """The newest entry. Raises `DatabaseUnavailable`."""
        with translated_errors(), self._engine.connect() as connection:
            last = connection.execute(LAST).first()
        return Head(last.sequence, last.hash) if last is not None else Head(0, GENESIS)

    def entries(self, *, after: int = 0, limit: int = 100) -> list[Entry]:
        """Entries after a sequence number, oldest first. Raises `DatabaseUnavailable`."""
        with translated_errors(), self._engine.connect() as connection:
            rows = connection.execute(_page(after, limit)).all()
        return [Entry(row.sequence, json.loads(row.body), row.hash) for row in rows]

    def recent(self, limit: int = 100) -> list[Entry]:
        """The newest entries, newest first. Raises `DatabaseUnavailable`."""
        query = sa.select(ENTRIES).order_by(ENTRIES.c.sequence.desc()).limit(limit)
        with translated_errors(), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [Entry(row.sequence, json.loads(row.body), row.hash) for row in rows]

    def verify(self, anchors: Iterable[Head] = ()) -> Verdict:
        """Follows the whole chain. ``anchors``: heads kept elsewhere; a log cut before one, or rewritten below it,
        is bad. Raises `DatabaseUnavailable`."""
        kept = defaultdict[int, set[str]](set)
        for anchor in anchors:
            kept[anchor.sequence].add(anchor.hash)
        count, hash_, opened = 0, GENESIS, dict[int, None]()
        for sequence, body, stored in self._rows():
            following = link(hash_, count + 1, body.encode())
            forged = count + 1 in kept and kept[count + 1] != {following}
            broken = sequence != count + 1 or following != stored
            if broken or forged:
                return Verdict(
                    count, ok=False, first_bad=count + 1, head=Head(count, hash_), against=None if broken else count + 1
                )
            count, hash_ = count + 1, following
            _follow(opened, sequence, json.loads(body))
        if max(kept, default=0) > count:
            cut = min(sequence for sequence in kept if sequence > count)
            return Verdict(count, ok=False, first_bad=count + 1, head=Head(count, hash_), against=cut)
        return Verdict(count, ok=True, first_bad=None, head=Head(count, hash_), unclosed=tuple(opened))

    def _rows(self) -> Iterator[tuple[int, str, str]]:
        after = 0
        while True:
            with translated_errors(), self._engine.connect() as connection:
                page = connection.execute(_page(after, PAGE)).all()
            yield from ((row.sequence, row.body, row.hash) for row in page)
            if len(page) < PAGE:
                return
            after = page[-1].sequence


def _page(after: int, limit: int) -> sa.Select[Any]:
    return sa.select(ENTRIES).where(ENTRIES.c.sequence > after).order_by(ENTRIES.c.sequence).limit(limit)


def _follow(opened: dict[int, None], sequence: int, body: Mapping[str, Any]) -> None:
    """Keeps the openings that no closing entry has answered yet."""
    if body.get("kind") == "disclosure" and body.get("rows") is None:
        opened[sequence] = None
    elif body.get("kind") == "closing":
        opened.pop(body.get("opening", 0), None)


def _tell(results: _Results) -> None:
    """Settles what each loop waits for with one call into it."""
    by_loop = defaultdict[asyncio.AbstractEventLoop | None, list[tuple[_Waiting, int | AuditUnavailable]]](list)
    for waiting, result in results:
        by_loop[waiting.loop].append((waiting, result))
    for loop, settled in by_loop.items():
        if loop is None:
            _settle(settled)
            continue
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, settled)


def _unavailable(cause: Exception) -> AuditUnavailable:
    failure = AuditUnavailable()
    failure.__cause__ = cause
    return failure


def _settle(results: _Results) -> None:
    for waiting, result in results:
        if waiting.settled.done():  # its caller went away
            continue
        if isinstance(result, AuditUnavailable):
            waiting.settled.set_exception(result)
        else:
            waiting.settled.set_result(result)
