"""A department's system follows its topic as its own principal, and keeps its own table right wherever it is killed."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from share_topic import ShareTopic
from streamed_world import PURPOSE, Streamed
from typer.testing import CliRunner

from bus import Subscriber, Upsert
from bus.cli.main import app
from bus.errors import BadCursor, BrokerUnavailable
from bus.sharing.client import Answered
from bus.sharing.formats import document
from bus.sharing.subscribing.changes import event_of
from tests.conftest import ROOT, eventually


@pytest.fixture
def here(streamed: Streamed, monkeypatch: pytest.MonkeyPatch) -> Streamed:
    """The world, as the bus that runs here."""
    for name, value in streamed.environment.items():
        monkeypatch.setenv(name, value)
    return streamed


def _follow(consumer: str, cursor: str | None = None) -> list[tuple[str, dict[str, Any], str]]:
    """Name, members and cursor of all that there is."""
    with Subscriber.connect(consumer, "sample", purpose=PURPOSE, cursor=cursor) as changes:
        batches = list(changes.batches(until_caught_up=True))
    assert not batches or batches[-1].caught_up
    return [
        (*event_of(change), cursor)
        for batch in batches
        for change, cursor in zip(batch.changes, batch.cursors, strict=True)
    ]


def test_a_department_follows_its_own_topic(here: Streamed, make: Callable[..., ShareTopic]) -> None:
    """First every row, then from the cursor on nothing but changes; a text that is no cursor is refused."""
    topic = make()
    consumer = topic.allow.consumer
    here.enrol(consumer, topic.topic)
    topic.upsert({"sample_id": 1, "label": "a"}, {"sample_id": 2, "parts": ["x"]})
    assert topic.end == 2
    first = _follow(consumer)
    assert [members.get("kind", name) for name, members, _ in first] == [
        "snapshot_begins", "upsert", "upsert", "snapshot_ends",
    ]  # fmt: skip
    assert first[2][1]["row"]["parts"] == ["x"]
    topic.delete("1")
    assert topic.end == 3
    assert [(name, members) for name, members, _ in _follow(consumer, first[-1][2])] == [("delete", {"key": "1"})]
    assert [members["key"] for _, members, _ in _follow(consumer, first[1][2])[:1]] == ["2"], (
        "in the midst of a snapshot"
    )
    with pytest.raises(BadCursor):
        _follow(consumer, "yesterday")


def test_rows_deleted_while_it_was_away_are_told_by_a_snapshot(here: Streamed, make: Callable[..., ShareTopic]) -> None:
    """The topic begins after its cursor, while it runs or before it comes back."""
    topic = make()
    here.enrol(topic.allow.consumer, topic.topic)
    topic.upsert({"sample_id": 1}, {"sample_id": 2})
    assert topic.end == 2
    with Subscriber.connect(topic.allow.consumer, "sample", purpose=PURPOSE) as changes:
        batches = iter(changes)
        first = [next(batches), next(batches)]
        assert first[0].changes[0].document["reason"] == "no cursor was given"  # type: ignore[union-attr]
        topic.delete("1")
        topic.upsert({"sample_id": 3}, {"sample_id": 2})
        topic.trim(4)
        running = [next(batches), next(batches)]
    away = _follow(topic.allow.consumer, first[-1].cursor)
    assert running[0].changes[0].document["reason"] == "what changed since is no longer kept"  # type: ignore[union-attr]
    assert [change.key for change in running[1] if isinstance(change, Upsert)] == ["2"]
    assert [members.get("kind", name) for name, members, _ in away] == ["snapshot_begins", "upsert", "snapshot_ends"]


def test_others_and_the_revoked_read_nothing(here: Streamed, make: Callable[..., ShareTopic]) -> None:
    """The bus says why before Kafka is asked; whose right to the topic goes while it reads is told why, too."""
    topic = make()
    consumer = topic.allow.consumer
    here.enrol(consumer, topic.topic)
    with pytest.raises(Answered, match="purpose"):
        Subscriber.connect(consumer, "sample", purpose="levy")
    with Subscriber.connect(consumer, "sample", purpose=PURPOSE) as changes:
        batches = iter(changes)
        next(batches)
        here.world.parts.grants.revoke(topic.allow.grant_ids[0], "li.na@governance", "the purpose ended")
        here.admin.remove_acls(acl for acl in here.admin.acls() if acl.principal == consumer)
        with pytest.raises(Answered, match="has no grant"):
            list(batches)


def test_a_principal_without_rights_is_refused_by_the_broker(here: Streamed, make: Callable[..., ShareTopic]) -> None:
    """The grant is there, but its topic is not this principal's."""
    topic = make()
    here.enrol(topic.allow.consumer, "share.another.sample")
    with pytest.raises(BrokerUnavailable):
        Subscriber.connect(topic.allow.consumer, "sample", purpose=PURPOSE)


def test_the_command_prints_what_the_subscriber_gets(here: Streamed, make: Callable[..., ShareTopic]) -> None:
    """One JSON object a line, each with the cursor to go on from."""
    topic = make()
    here.enrol(topic.allow.consumer, topic.topic)
    topic.upsert({"sample_id": 1, "label": "样品"})
    assert topic.end == 1
    command = ["subscribe", "sample", "--as", topic.allow.consumer, "--purpose", PURPOSE, "--until-caught-up"]
    lines = _printed(command)
    expected = [(name, orjson.loads(document(members))) for name, members, _ in _follow(topic.allow.consumer)]
    assert [line["event"] for line in lines] == [name for name, _ in expected]
    assert lines[1]["row"] == expected[1][1]["row"]
    assert _printed([*command, "--from-cursor", lines[-1]["cursor"]]) == []


def _printed(command: list[str]) -> list[dict[str, Any]]:
    """The command's lines; the served world logs to the same output."""
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    return [line for line in map(orjson.loads, done.stdout.splitlines()) if "cursor" in line]


@pytest.fixture
def passed(here: Streamed) -> Iterator[ShareTopic]:
    """What social security may see of food businesses."""
    topic = here.topic("social", view="food_business")
    here.enrol("social", topic.topic)
    yield topic
    topic.close()


def test_a_consumer_killed_anywhere_keeps_its_table_right(here: Streamed, passed: ShareTopic, tmp_path: Path) -> None:
    """`consumers/social.py`: rows and place are kept together, so a kill neither loses nor doubles a change."""
    chance, path = random.Random(20261124), tmp_path / "passed.db"
    for _ in range(2):
        for _ in range(300):
            key = chance.randrange(60)
            if chance.random() < 0.3:
                passed.delete(str(key))
            else:
                passed.upsert({"licence_number": key, "legal_name": f"饭店 {key}", "ward": chance.randrange(50)})
        before = _position(path)
        running = _social(here, path)
        eventually(lambda before=before: _position(path) != before, what="progress")
        running.send_signal(signal.SIGKILL)
        running.wait()
    passed.delete("1")
    boundary = passed.end
    passed.upsert(*passed.rows.values())
    passed.trim(boundary)  # the delete is not there any more: a snapshot tells it
    assert _social(here, path, "--once").wait(60) == 0
    kept = sqlite3.connect(path).execute("SELECT key, legal_name, ward FROM business").fetchall()
    assert sorted(kept) == sorted((key, row["legal_name"], row["ward"]) for key, row in passed.rows.items())


def _social(here: Streamed, path: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "consumers.social", str(path), *options]
    return subprocess.Popen(command, env={**os.environ, **here.environment}, stdout=subprocess.DEVNULL, cwd=ROOT)


def _position(path: Path) -> str | None:
    if not path.exists():
        return None
    try:
        row = sqlite3.connect(path).execute("SELECT cursor FROM place").fetchone()
    except sqlite3.OperationalError:  # it is being made
        return None
    return row[0] if row else None
