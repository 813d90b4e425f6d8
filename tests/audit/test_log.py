"""The audit log keeps what it was told, in order, and finds what was changed afterwards."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from bus.audit.entries import Closing, Disclosure
from bus.audit.log import AuditLog, Head
from bus.core.chain import GENESIS, canonical, link
from bus.errors import AuditUnavailable


def test_entries_are_numbered_and_chained(log: AuditLog) -> None:
    """From 1, without a gap, each hash over the body and the hash before it."""
    assert [log.append_sync({"kind": "test", "n": n}) for n in range(5)] == [1, 2, 3, 4, 5]
    verdict = log.verify()
    assert (verdict.ok, verdict.entries, verdict.first_bad) == (True, 5, None)
    assert verdict.head == log.head()
    first = log.entries(limit=1)[0]
    assert first.hash == link(GENESIS, 1, canonical(first.body))


def test_many_writers_commit_in_groups(engine: sa.Engine, log: AuditLog) -> None:
    """A thousand entries at once cost far fewer commits than entries, and each has its own number."""
    commits = 0

    def count(_: Any) -> None:
        nonlocal commits
        commits += 1

    sa.event.listen(engine, "commit", count)

    async def run() -> list[int]:
        return list(await asyncio.gather(*(log.append({"n": n}) for n in range(1_000))))

    assert sorted(asyncio.run(run())) == list(range(1, 1_001))
    assert commits < 500
    assert log.verify().ok


def test_two_processes_share_one_chain(engine: sa.Engine, log: AuditLog) -> None:
    """Two writers with their own threads and connections never take one number twice."""
    other = AuditLog(engine)

    def write(target: AuditLog) -> None:
        for number in range(50):
            target.append_sync({"n": number})

    threads = [threading.Thread(target=write, args=(target,)) for target in (log, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert log.verify().entries == 100
    assert log.verify().ok


@pytest.mark.parametrize(
    ("tamper", "first_bad"),
    [
        (["UPDATE audit_entries SET body = replace(body, '\"n\":3', '\"n\":4') WHERE sequence = 4"], 4),
        (["UPDATE audit_entries SET hash = '00' WHERE sequence = 10"], 10),
        (["DELETE FROM audit_entries WHERE sequence = 5"], 5),
        (["DELETE FROM audit_entries WHERE sequence = 1"], 1),
        (
            [
                "UPDATE audit_entries SET sequence = 99 WHERE sequence = 6",
                "UPDATE audit_entries SET sequence = 6 WHERE sequence = 7",
                "UPDATE audit_entries SET sequence = 7 WHERE sequence = 99",
            ],
            6,
        ),
        (["INSERT INTO audit_entries (sequence, body, hash) SELECT 11, body, hash FROM audit_entries LIMIT 1"], 11),
        (
            [
                "UPDATE audit_entries SET sequence = sequence + 1000 WHERE sequence >= 3",
                "INSERT INTO audit_entries (sequence, body, hash) SELECT 3, body, hash FROM audit_entries LIMIT 1",
                "UPDATE audit_entries SET sequence = sequence - 999 WHERE sequence >= 1000",
            ],
            3,
        ),
    ],
    ids=["edit", "edit hash", "delete", "delete first", "reorder", "append", "insert"],
)
def test_tampering_is_found_at_the_first_bad_number(
    log: AuditLog, unguarded: Callable[..., None], tamper: list[str], first_bad: int
) -> None:
    """Edit, delete, reorder and insert each break the chain where they were done (A20)."""
    for number in range(10):
        log.append_sync({"n": number})
    assert log.verify().ok
    unguarded(*tamper)
    verdict = log.verify()
    assert (verdict.ok, verdict.first_bad) == (False, first_bad)


def test_a_cut_tail_is_found_by_an_anchor_only(log: AuditLog, unguarded: Callable[..., None]) -> None:
    """What remains of a log whose end was cut off is a good chain: the head must be known from elsewhere."""
    for number in range(10):
        log.append_sync({"n": number})
    anchor = log.head()
    unguarded("DELETE FROM audit_entries WHERE sequence > 7")
    assert log.verify().ok
    assert (log.verify([anchor]).ok, log.verify([anchor]).first_bad) == (False, 8)


def test_a_log_rewritten_from_the_start_is_found_by_an_anchor(log: AuditLog, unguarded: Callable[..., None]) -> None:
    """Whoever computes the whole chain anew cannot compute the head that was anchored."""
    for number in range(3):
        log.append_sync({"n": number})
    anchor = log.head()
    unguarded("DELETE FROM audit_entries")
    for number in range(5):
        log.append_sync({"n": -number})
    assert log.verify().ok
    assert log.verify([anchor]).first_bad == 3
    assert log.verify([Head(5, log.head().hash)]).ok


@pytest.mark.parametrize("statement", ["UPDATE audit_entries SET body = '{}'", "DELETE FROM audit_entries"])
def test_the_database_refuses_changes(engine: sa.Engine, log: AuditLog, statement: str) -> None:
    """Update and delete raise, whoever asks through an ordinary connection."""
    log.append_sync({"n": 1})
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(sa.text(statement))
    assert log.verify().entries == 1


def test_without_the_database_no_entry_is_confirmed(engine: sa.Engine, log: AuditLog) -> None:
    """A table that cannot be written is `AuditUnavailable`, and the log works again when it can be."""
    log.append_sync({"n": 1})
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE audit_entries RENAME TO hidden"))
    with pytest.raises(AuditUnavailable):
        log.append_sync({"n": 2})
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE hidden RENAME TO audit_entries"))
    assert log.append_sync({"n": 3}) == 2


@pytest.mark.parametrize("body", [{"n": float("nan")}, {"n": object()}, {"n": {1: b"x"}}])
def test_what_is_not_json_is_not_recorded(log: AuditLog, body: dict[str, Any]) -> None:
    """And so must not be disclosed either."""
    with pytest.raises(AuditUnavailable):
        log.append_sync(body)


def test_text_cannot_break_out_of_its_entry(engine: sa.Engine, log: AuditLog) -> None:
    """Line breaks, terminal escapes and direction marks are stored as escapes and come back as they were."""
    hostile = "x\r\n2026 allowed \x1b[2J\u202e中"
    log.append_sync({"who": hostile})
    with engine.connect() as connection:
        stored = str(connection.execute(sa.text("SELECT body FROM audit_entries")).scalar())
    assert stored.isascii()
    assert stored.isprintable()
    assert log.entries()[0].body["who"] == hostile


def disclosure(**changes: Any) -> Disclosure:
    given: dict[str, Any] = {
        "request_id": "r1",
        "who": "tax",
        "view": "food_business",
        "purpose": "levy",
        "channel": "query",
        "decision_id": "d1",
        "policy_revision": "1.4",
        "columns": ["licence_number", "legal_name"],
        "masked": ["legal_name"],
        "condition": None,
    }
    return Disclosure(**{**given, **changes})


def test_an_opening_without_a_closing_is_reported(log: AuditLog) -> None:
    """A streamed answer whose end was never recorded shows up in the verdict (K13)."""
    first, second = log.append_sync(disclosure().body()), log.append_sync(disclosure(request_id="r2").body())
    log.append_sync(disclosure(request_id="r3", rows=10).body())
    log.append_sync(Closing(request_id="r1", opening=first, rows=5, complete=True).body())
    assert log.verify().unclosed == (second,)


def test_recent_entries_come_newest_first(log: AuditLog) -> None:
    """The newest entry stands first, with the time it was recorded."""
    for number in range(5):
        log.append_sync({"n": number})
    assert [entry.body["n"] for entry in log.recent(2)] == [4, 3]
    assert all("at" in entry.body for entry in log.entries())


def test_a_closed_log_refuses(log: AuditLog) -> None:
    """After closing, nothing is confirmed; what waited was written."""
    log.append_sync({"n": 1})
    log.close()
    with pytest.raises(AuditUnavailable):
        log.append_sync({"n": 2})
    assert log.verify().entries == 1


def test_a_caller_that_goes_away_does_not_stop_the_others(log: AuditLog) -> None:
    """Its entry is written all the same, and those of the same turn are confirmed."""

    async def run() -> list[Any]:
        tasks = [asyncio.create_task(log.append({"n": n})) for n in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, gone, last = asyncio.run(run())
    assert (first, type(gone), last) == (1, asyncio.CancelledError, 3)
    assert log.verify().entries == 3


def test_a_loop_that_ended_does_not_stop_the_log(log: AuditLog) -> None:
    """Nobody waits for its entry any more; the next loop of the same thread is answered."""

    async def leave() -> None:
        task = asyncio.create_task(log.append({"n": 1}))
        await asyncio.sleep(0)
        task.cancel()

    for expected in (2, 4):
        asyncio.run(leave())
        assert asyncio.run(log.append({"n": 2})) == expected
    assert log.verify().ok


def test_a_closed_log_refuses_a_loop(engine: sa.Engine) -> None:
    """Also what was appended in the same turn in which it was closed."""
    log = AuditLog(engine)

    async def run() -> list[Any]:
        tasks = [asyncio.create_task(log.append({"n": n})) for n in range(2)]
        log.close()
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(result) for result in asyncio.run(run())] == [AuditUnavailable, AuditUnavailable]
