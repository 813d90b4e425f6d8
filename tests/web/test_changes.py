"""A view's changes as server-sent events: the topic's rows and no others, resumed with nothing missing, and over at
once when the grant is."""

from __future__ import annotations

import contextlib
import itertools
import json
import operator
import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from served_world import SAMPLES
from share_topic import Event, Kept, ShareTopic, decided, kinds
from streamed_world import PURPOSE, SECRET, Streamed

from bus.sharing.subscribing.cursors import Cursors, Place, Scope, read_place
from tests.conftest import eventually, unique


def _take(found: Iterator[Event], count: int) -> list[Event]:
    return list(itertools.islice(found, count))


def _until(found: Iterator[Event], kind: str) -> list[Event]:
    taken = []
    for event in found:
        taken.append(event)
        if event.data.get("kind") == kind:
            return taken
    raise AssertionError(f"the stream ended before {kind}: {kinds(taken)}")


def test_every_row_comes_first_and_changes_follow(streamed: Streamed, make: Callable[..., ShareTopic]) -> None:
    """The head says under which policy; the audit log has the stream before its first byte and its end after it."""
    topic = make(masks={"label": {"constant": "x"}})
    topic.upsert({"sample_id": 1, "label": "x"}, {"sample_id": 2, "label": "x"})
    assert topic.end == 2
    before = len(streamed.world.entries())
    consumer = topic.allow.consumer
    with streamed.stream(consumer) as (response, found):
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["policy-revision"] == topic.allow.policy_revision
        assert response.headers["masked-columns"] == "label"
        assert response.headers["data-freshness"]
        (opening,) = streamed.world.entries()[before:]
        assert (opening["kind"], opening["who"], opening["rows"]) == ("disclosure", consumer, None)
        assert opening["channel"] == "stream"
        first = _until(found, "snapshot_ends")
        assert kinds(first) == ["snapshot_begins", "upsert", "upsert", "snapshot_ends"]
        assert [event.data["key"] for event in first[1:3]] == ["1", "2"]
        assert first[0].data["masked"] == ["label"]
        topic.upsert({"sample_id": 3, "label": "x"})
        topic.delete("1")
        later = _take(found, 2)
    assert [(event.name, event.data["key"]) for event in later] == [("upsert", "3"), ("delete", "1")]
    eventually(lambda: len(streamed.world.entries()) == before + 2)
    closing = streamed.world.entries()[-1]
    assert (closing["kind"], closing["opening"], closing["rows"]) == ("closing", before + 1, 3)
    eventually(lambda: consumer not in streamed.door.open)


def test_a_row_of_the_stream_is_the_row_of_a_query(streamed: Streamed, make: Callable[..., ShareTopic]) -> None:
    """Numbers, decimals, instants, bytes and nested values are written alike."""
    masks = {"sample_id": {"hash": True}, "label": {"keep_first": 2}, "score": {"round": 0}, "seen_at": {"month": True}}
    topic = make(channels=["query", "stream"], masks=masks)
    topic.upsert(*SAMPLES)
    assert topic.end == len(SAMPLES)
    answer = streamed.world.get("/v1/views/sample", topic.allow.consumer, PURPOSE)
    asked = json.loads(answer.text, parse_float=Decimal)
    with streamed.stream(topic.allow.consumer) as (_, found):
        rows = [event.data["row"] for event in _until(found, "snapshot_ends") if event.name == "upsert"]
    by_key = operator.itemgetter("sample_id")
    assert sorted(rows, key=by_key) == sorted(asked, key=by_key)
    assert {tuple(row) for row in rows} == {tuple(row) for row in asked}
    assert rows[0]["fee"] == Decimal("12345678901234.05")


def test_nothing_is_missing_wherever_a_client_resumes(streamed: Streamed, make: Callable[..., ShareTopic]) -> None:
    """Cut at random places, the way goes on after the last event that came, also in the midst of a snapshot."""
    chance = random.Random(20261124)
    topic, kept, count = make(), Kept(), 0
    for _ in range(6):
        for _ in range(chance.randrange(30)):
            key = chance.randrange(12)
            if chance.random() < 0.3:
                topic.delete(str(key))
            else:
                topic.upsert({"sample_id": key, "score": chance.random()})
        end, taken = topic.end, chance.randrange(1, 20)
        with streamed.stream(topic.allow.consumer, kept.cursor or None) as (_, found):
            while taken and not (kept.cursor and read_place(kept.cursor.rpartition(".")[0]).offset == end):
                kept.take(next(found))
                count, taken = count + 1, taken - 1
    with streamed.stream(topic.allow.consumer, kept.cursor) as (_, found):
        while read_place(kept.cursor.rpartition(".")[0]).offset < topic.end or kept.seen is not None:
            kept.take(next(found))
            count += 1
    assert {key: float(row["score"]) for key, row in kept.rows.items()} == {
        key: row["score"] for key, row in topic.rows.items()
    }
    assert count == topic.end + 2, "each record once, and the snapshot's begin and end"


def test_a_client_that_was_away_too_long_gets_every_row_anew(
    streamed: Streamed, make: Callable[..., ShareTopic]
) -> None:
    """Below what is kept, older than deletions are kept, of a topic that was deleted: what is gone is gone."""
    topic = make()
    topic.upsert({"sample_id": 1}, {"sample_id": 2})
    with streamed.stream(topic.allow.consumer) as (_, found):
        first = _until(found, "snapshot_ends")
    cursors = Cursors(SECRET)
    scope = Scope(topic.allow.consumer, "sample", PURPOSE)
    place = cursors.read(first[-1].id, scope)
    topic.delete("1")
    topic.upsert({"sample_id": 3})
    assert topic.end == 4
    old = cursors.write(replace(place, at_ms=place.at_ms - 7 * 86_400_000), scope)
    other = cursors.write(replace(place, topic_id="another"), scope)
    for cursor, reason in ((old, "older than deletions"), (other, "begun anew")):
        with streamed.stream(topic.allow.consumer, cursor) as (_, found):
            anew = _until(found, "snapshot_ends")
        assert reason in anew[0].data["reason"]
        assert len(anew) == 6
    topic.upsert({"sample_id": 2})
    topic.trim(3)  # the delete of 1 is not there any more
    kept = Kept({"1": {}, "2": {}})
    with streamed.stream(topic.allow.consumer, first[-1].id) as (_, found):
        for event in _until(found, "snapshot_ends"):
            kept.take(event)
    assert set(kept.rows) == {"2", "3"}


def test_cursors_cannot_be_forged_or_used_elsewhere(streamed: Streamed, make: Callable[..., ShareTopic]) -> None:
    """Another consumer's, another view's, another purpose's, another offset's."""
    topic = make()
    place = Place("id", 0, 1_800_000_000_000)
    mine = Scope(topic.allow.consumer, "sample", PURPOSE)
    elsewhere = [replace(mine, consumer="tax"), replace(mine, view="complaint"), replace(mine, purpose="levy")]
    good = Cursors(SECRET).write(place, mine)
    wrong = [Cursors(SECRET).write(place, scope) for scope in elsewhere]
    wrong += [Cursors(b"another").write(place, mine), "1" + good, good[:-1], str(place), "", "x" * 5_000]
    for cursor in filter(None, wrong):
        with streamed.stream(topic.allow.consumer, cursor) as (response, _):
            assert (response.status_code, response.json()["code"]) == (422, "bad_cursor"), cursor[:80]


def test_who_may_not_is_told_why(streamed: Streamed, make: Callable[..., ShareTopic]) -> None:
    """The same refusals as of a query, recorded as these are."""
    topic = make()
    cases = (
        ("tax", "food_business", "levy", 403, "channel_not_granted"),
        ("food", "resident", "levy", 403, "not_granted"),
        (topic.allow.consumer, "sample", "levy", 403, "purpose_not_granted"),
        (topic.allow.consumer, "nothing", PURPOSE, 404, "unknown_view"),
    )
    for department, view, purpose, status, code in cases:
        for path in ("changes", "subscription"):
            answer = streamed.world.get(f"/v1/views/{view}/{path}", department, purpose)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            if status == 403:
                entry = streamed.world.entries()[-1]
                assert (entry["kind"], entry["code"], entry["channel"]) == ("refusal", code, "stream")
    assert httpx2.get(f"{streamed.world.url}/v1/views/sample/changes").status_code == 401


def test_a_revoked_grant_ends_its_streams_within_a_second(streamed: Streamed, make: Callable[..., ShareTopic]) -> None:
    """With a notice; a stream that is opened after it is refused."""
    topics = [make() for _ in range(2)]
    with contextlib.ExitStack() as held:
        opened = [held.enter_context(streamed.stream(topic.allow.consumer)) for topic in topics]
        for _, found in opened:
            _until(found, "snapshot_ends")
        streamed.world.parts.grants.revoke(topics[0].allow.grant_ids[0], "li.na@governance", "the purpose ended")
        revoked = time.monotonic()
        rest = list(opened[0][1])
        assert time.monotonic() - revoked < 1.0
        assert [event.data["code"] for event in rest] == ["not_granted"]
        assert rest[0].data["kind"] == "ended"
        topics[1].upsert({"sample_id": 1})
        assert _take(opened[1][1], 1)[0].data["key"] == "1"
    assert streamed.world.get("/v1/views/sample/changes", topics[0].allow.consumer, PURPOSE).status_code == 403


def test_narrowed_terms_hold_the_stream_until_its_topic_has_them(
    streamed: Streamed, make: Callable[..., ShareTopic]
) -> None:
    """What was written under the old terms after the change is not handed out; the new ones begin with a notice."""
    topic = make()
    topic.upsert({"sample_id": 1, "label": "old"})
    consumer = topic.allow.consumer
    with streamed.stream(consumer) as (_, found):
        _until(found, "snapshot_ends")
        streamed.grant(consumer, fields=["sample_id", "score"])
        eventually(lambda: all(not one.settled for one in _permissions(streamed, consumer)))
        topic.upsert({"sample_id": 2, "label": "old"})
        topic.allow = decided(streamed.world, consumer, "sample", PURPOSE)
        boundary = topic.notice("narrowed", "grant changed")
        topic.notice("snapshot_begins")
        topic.upsert({"sample_id": 1, "score": 1.0}, {"sample_id": 2, "score": 2.0})
        topic.notice("snapshot_ends")
        topic.open(boundary=boundary)
        topic.trim(boundary)
        anew = _until(found, "snapshot_ends")
    assert kinds(anew) == ["snapshot_begins", "narrowed", "upsert", "upsert", "snapshot_ends"]
    assert all(set(event.data["row"]) == {"sample_id", "score"} for event in anew if event.name == "upsert")


def _permissions(streamed: Streamed, consumer: str) -> list[Any]:
    held = streamed.door._permissions._held.values()
    return [permission for permission in held if permission.subject.department == consumer]


def test_a_stream_that_is_not_ready_is_not_opened(streamed: Streamed) -> None:
    """Fail closed: without a topic of the terms decided there is nothing to hand out."""
    consumer = unique("dept")
    streamed.grant(consumer)
    answer = streamed.world.get("/v1/views/sample/changes", consumer, PURPOSE)
    assert (answer.status_code, answer.json()["code"]) == (503, "stream_starting")
    assert answer.headers["retry-after"] == "2"
    assert streamed.door.open == {}
    described = streamed.world.get("/v1/views/sample/subscription", consumer, PURPOSE).json()
    assert (described["state"], described["topic"]) == ("starting", f"share.{consumer}.sample")


def test_what_a_kafka_client_needs_is_told(streamed: Streamed, make: Callable[..., ShareTopic]) -> None:
    """Everything but the password."""
    topic = make(masks={"label": {"constant": "x"}})
    consumer = topic.allow.consumer
    told = streamed.world.get("/v1/views/sample/subscription", consumer, PURPOSE).json()
    assert told["username"] == consumer
    assert told["group_prefix"] == f"{consumer}."
    assert told["subject"] == f"share.{consumer}.sample-value"
    assert told["bootstrap_servers"] == streamed.kafka.bootstrap
    assert (told["state"], told["from_offset"], told["masked"]) == ("running", 0, ["label"])
    assert not [name for name in told if "password" in name]


def test_nothing_leaves_that_cannot_be_recorded(
    streamed: Streamed, make: Callable[..., ShareTopic], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The opening entry is written before the first byte, or there is none."""
    topic = make()
    with monkeypatch.context() as broken:
        broken.setattr(streamed.world.parts.audit, "_closed", True)
        answer = streamed.world.get("/v1/views/sample/changes", topic.allow.consumer, PURPOSE)
    assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")
    assert streamed.door.open == {}


def test_streams_are_limited_for_a_department_and_in_all(streamed: Streamed, make: Callable[..., ShareTopic]) -> None:
    """A place is free again when its client has gone."""
    topics = [make() for _ in range(3)]
    names = [topic.allow.consumer for topic in topics]
    with contextlib.ExitStack() as held:
        for name in (names[0],) * 3 + (names[1],) * 3 + (names[2],) * 2:
            response, _ = held.enter_context(streamed.stream(name))
            assert response.status_code == 200
        for name in (names[0], names[2]):
            answer = streamed.world.get("/v1/views/sample/changes", name, PURPOSE)
            assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    eventually(lambda: streamed.door.open == {})
    assert not _permissions(streamed, names[0])


def test_a_client_that_takes_nothing_is_dropped_and_slows_nobody(
    streamed: Streamed, make: Callable[..., ShareTopic]
) -> None:
    """At 256 changes that wait for it; meanwhile another client of the topic and one of another get theirs at once."""
    topic, other = make(), make()
    consumer = topic.allow.consumer
    with contextlib.ExitStack() as held:
        held.callback(_stuck(streamed, consumer).close)
        _, found = held.enter_context(streamed.stream(consumer))
        _, foreign = held.enter_context(streamed.stream(other.allow.consumer))
        _until(found, "snapshot_ends")
        _until(foreign, "snapshot_ends")
        eventually(lambda: streamed.door.open[consumer] == 2)
        for number in range(80):  # more than all buffers between take
            sent = time.monotonic()
            topic.upsert({"sample_id": number, "label": "x" * 100_000})
            other.upsert({"sample_id": number})
            assert [_take(stream, 1)[0].data["key"] for stream in (found, foreign)] == [str(number)] * 2
            assert time.monotonic() - sent < 2.0
        topic.upsert(*({"sample_id": number} for number in range(100, 400)))
        assert len(_take(found, 300)) == 300
        eventually(lambda: streamed.door.open.get(consumer) == 1, timeout_s=10)
    eventually(lambda: streamed.door.open == {})


def _stuck(streamed: Streamed, consumer: str) -> socket.socket:
    """A client that asks and then reads nothing, with a small buffer."""
    address = urlsplit(streamed.world.url)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
    raw.connect((address.hostname, address.port))
    headers = {"Host": f"{address.hostname}:{address.port}", **streamed.world.headers(consumer, PURPOSE)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    raw.sendall(f"GET /v1/views/sample/changes HTTP/1.1\r\n{lines}\r\n".encode())
    return raw


def test_a_token_that_expires_ends_the_stream(streamed: Streamed, make: Callable[..., ShareTopic]) -> None:
    """As it would refuse the next question; signs of life come until then."""
    topic = make()
    verifier = streamed.world.parts.verifier
    with streamed.stream(topic.allow.consumer) as (_, found):
        _until(found, "snapshot_ends")
        kept, verifier._keys = verifier._keys, {}
        verifier._verified.clear()
        try:
            assert [event.data["code"] for event in found] == ["invalid_token"]
        finally:
            verifier._keys = kept
