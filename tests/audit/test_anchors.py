"""The log's head, kept in a file and in a topic, finds what the chain alone cannot."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bus.audit.anchoring import Anchoring
from bus.audit.anchors import ANCHOR_TOPIC, Anchor, FileAnchors, Place, TopicAnchors
from bus.audit.log import AuditLog, Head
from bus.errors import AuditUnavailable, BrokerUnavailable
from bus.infra.connection import KafkaConnection
from bus.infra.kafka import Admin
from tests.conftest import free_port

NOW = dt.datetime(2026, 1, 31, 8, 0, tzinfo=dt.UTC)


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """What is kept elsewhere does not depend on the database."""
    return sqlite_url


def anchoring(log: AuditLog, *places: Place) -> Anchoring:
    return Anchoring(log, places, clock=lambda: NOW)


def grown(log: AuditLog, entries: int) -> None:
    for number in range(entries):
        log.append_sync({"n": number})


class Away:
    """A place that does not answer."""

    name = "away"

    def keep(self, head: Head, at: str) -> None:
        raise BrokerUnavailable()

    def kept(self) -> Sequence[Anchor]:
        raise BrokerUnavailable()


def test_a_cut_tail_is_found_by_what_the_file_kept(
    log: AuditLog, unguarded: Callable[..., None], tmp_path: Path
) -> None:
    """The remaining chain is good, but the file knows that there was more."""
    kept = anchoring(log, FileAnchors(tmp_path / "anchors" / "heads.jsonl"))
    for _ in range(2):
        grown(log, 5)
        kept.keep()
    unguarded("DELETE FROM audit_entries WHERE sequence > 7")
    found = kept.compare()
    assert (found.ok, found.first_bad, found.agreed, found.anchors) == (False, 8, 5, 2)
    assert found.contradicted is not None
    assert (found.contradicted.head.sequence, found.contradicted.place) == (10, "file")


def test_a_log_written_anew_is_found_by_what_the_file_kept(
    log: AuditLog, unguarded: Callable[..., None], tmp_path: Path
) -> None:
    """Whoever computes the chain again, from the third entry on, contradicts the next head that was kept."""
    kept = anchoring(log, FileAnchors(tmp_path / "heads.jsonl"))
    grown(log, 2)
    kept.keep()
    grown(log, 2)
    kept.keep()
    unguarded("DELETE FROM audit_entries WHERE sequence > 2")
    grown(log, 9)
    found = kept.compare()
    assert log.verify().ok
    assert (found.ok, found.first_bad, found.agreed) == (False, 4, 2)


def test_a_head_is_kept_once(log: AuditLog, tmp_path: Path) -> None:
    """Nothing is kept of an empty log, and nothing again while no entry came."""
    place = FileAnchors(tmp_path / "heads.jsonl")
    kept = anchoring(log, place)
    kept.keep()
    assert place.kept() == []
    grown(log, 1)
    kept.keep()
    kept.keep()
    assert [anchor.head for anchor in place.kept()] == [log.head()]
    assert kept.status() == {"file": {"sequence": 1, "at": "2026-01-31T08:00:00+00:00", "problem": None}}


def test_a_line_cut_off_by_a_crash_is_left_out(log: AuditLog, tmp_path: Path) -> None:
    """The heads before it count all the same."""
    place = FileAnchors(tmp_path / "heads.jsonl")
    grown(log, 1)
    anchoring(log, place).keep()
    with (tmp_path / "heads.jsonl").open("ab") as file:
        file.write(b'{"sequence": 2, "ha')
    assert [anchor.head.sequence for anchor in place.kept()] == [1]


def test_a_place_that_fails_holds_up_no_other(log: AuditLog, tmp_path: Path) -> None:
    """The head is kept where it can be; the other place is named, when keeping as when comparing."""
    grown(log, 1)
    kept = anchoring(log, Away(), FileAnchors(tmp_path / "heads.jsonl"))
    kept.keep()
    assert kept.status()["away"]["problem"]
    found = kept.compare()
    assert (found.ok, found.anchors, found.unread) == (True, 1, ("away",))


def test_a_file_that_cannot_be_written_is_said(log: AuditLog, tmp_path: Path) -> None:
    """A folder in its place is no file."""
    with pytest.raises(AuditUnavailable):
        FileAnchors(tmp_path).keep(Head(1, "00"), "now")


def test_the_topic_gives_back_what_it_was_told(log: AuditLog, kafka: KafkaConnection, kafka_admin: Admin) -> None:
    """On a real broker; one that is gone is `BrokerUnavailable`."""
    kafka_admin.ensure_topic(ANCHOR_TOPIC)
    place = TopicAnchors(kafka)
    before = len(place.kept())
    for entries in (1, 3):
        grown(log, entries)
        anchoring(log, place).keep()
    place.close()
    assert [anchor.head.sequence for anchor in place.kept()][before:] == [1, 4]
    assert place.kept()[-1] == Anchor(log.head(), NOW.isoformat(timespec="seconds"), "topic")
    gone = KafkaConnection(f"127.0.0.1:{free_port()}", "nobody", "none")
    with pytest.raises(BrokerUnavailable):
        TopicAnchors(gone).keep(Head(1, "00"), "now")
