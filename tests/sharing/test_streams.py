"""A share topic folds to exactly the rows that the query door would show, whatever happens in between."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from opa_process import POLICIES, Opa, pem_pair, running_opa
from streams_world import Fuse, StreamsWorld, Topic, some_grant
from test_dependents import inspection, licence

from bus.access.bundle import build_bundle
from bus.access.decision import Decider
from bus.access.engine import PolicyEngine
from bus.access.opa import OpaClient
from bus.errors import PolicyError
from bus.sharing.streams import following
from bus.sharing.streams.overview import subscriptions
from bus.views.changelog.keeping import switch
from bus.views.oracle.verify import Event

VIEW = "food_business"


@pytest.fixture(scope="module")
def stream_opa(opa_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opa]:
    """One OPA with the bus's rules at revision 1."""
    keys = pem_pair(ec.generate_private_key(ec.SECP256R1()))
    bundle = build_bundle(POLICIES, 1, keys[0])
    with running_opa(opa_binary, tmp_path_factory.mktemp("opa"), bundle, keys[1]) as (opa, _):
        yield opa


@pytest.fixture
def world(sqlite_url: str, stream_opa: Opa) -> StreamsWorld:
    return StreamsWorld(sqlite_url, stream_opa)


def change(world: StreamsWorld, choose: random.Random) -> None:
    """A few events of few records."""
    for _ in range(choose.randint(1, 5)):
        number = choose.randint(1, 6)
        if choose.random() < 0.5:
            record = licence(f"t{number}", number, name=choose.choice(["a", "ab", "é", None]))
            more = {
                "starts": choose.choice([None, dt.date(2020, 2, 29), dt.date(2026, 4, 30)]),
                "area": choose.random(),
            }
            world.topics.append(Event(record.entity, record.partition, 0, {**(record.record or {}), **more}))
        elif choose.random() < 0.3:
            partition = sum(f"t{number}".encode()) % 2
            world.topics.append(Event("market.licence", partition, 0, None, (f"t{number}",)))
        else:
            result = choose.choice(["Pass", "Fail", None])
            world.topics.append(inspection(number, choose.randint(1, 6), result=result, revision=choose.randint(0, 9)))
    world.feed()


async def holds(world: StreamsWorld, grants: list[dict[str, Any]]) -> None:
    """Every topic folds to what the door shows; those of nobody have nothing but the notice of their end."""
    by_consumer = {grant["consumer"]: grant for grant in grants}
    for consumer in ("tax", "social", "food"):
        grant = by_consumer.get(consumer)
        allow = await world.allowed(consumer, VIEW, grant["purpose"]) if grant else None
        expected = world.door(allow) if allow else {}
        assert world.folded(consumer, VIEW) == expected, (consumer, grant)
    world.check_tombstones()


@pytest.mark.parametrize("seed", range(3))
def test_a_topic_folds_to_what_the_query_door_shows(world: StreamsWorld, seed: int) -> None:
    """Random changes of rows, of grants and of the day, with the process killed before and after random steps."""
    choose = random.Random(seed)

    async def run() -> None:
        world.begin(VIEW)
        grants: list[dict[str, Any]] = []
        for _ in range(10):
            what = choose.random()
            if what < 0.35:
                grants = [some_grant(choose, name, VIEW) for name in ("tax", "social", "food") if choose.random() < 0.7]
                world.grant(*grants)
            elif what < 0.45:
                world.day += dt.timedelta(days=choose.randint(1, 3))
            else:
                change(world, choose)
            if choose.random() < 0.4:
                fuse = Fuse(choose.randint(0, 8), after=choose.random() < 0.5)
                world.sink.fuse = world.desk.store.fuse = fuse  # type: ignore[attr-defined]
                await world.settle()
                await world.kill()
            if choose.random() < 0.7:
                await world.settle()
                await holds(world, grants)
        await world.settle()
        await holds(world, grants)
        await world.close()

    asyncio.run(run())


LEVY = {"consumer": "tax", "view": VIEW, "fields": ["licence", "name", "area", "result"]}


def start(world: StreamsWorld, *grants: dict[str, Any]) -> None:
    """Six businesses, and these grants."""
    world.begin(VIEW)
    for number in range(1, 7):
        world.topics.append(licence(f"t{number}", number, name=f"business {number}", area=float(number)))
    world.feed()
    world.grant(*grants)


def rename(world: StreamsWorld, number: int, name: str) -> None:
    world.topics.append(licence(f"t{number}", number, name=name, area=float(number)))
    world.feed()


def test_what_a_narrower_grant_hides_cannot_be_read_any_more(world: StreamsWorld) -> None:
    """A column gone, one masked and rows lost at one recorded offset: tombstones, a notice, all rows anew, and nothing
    before the boundary."""

    async def run() -> None:
        start(world, LEVY)
        await world.settle()
        before = len(world.readable("tax", VIEW))
        masked = {**LEVY, "fields": ["licence", "name"], "masks": {"name": {"keep_first": 3}}}
        world.grant({**masked, "rows": {"field": "licence", "op": "lte", "value": 4}})
        await world.settle()
        readable = world.readable("tax", VIEW)
        shown = [world.decoded(value) for _, value, _ in readable if value is not None]
        assert shown
        assert all(row == {"licence": row["licence"], "name": "bus***"} for row in shown)
        assert {row["licence"] for row in shown} == {1, 2, 3, 4}
        assert {key for key, value, _ in readable if value is None and key in (b"5", b"6")} == {b"5", b"6"}
        notices = world.notices("tax", VIEW)
        assert [notice.kind for notice in notices] == ["narrowed", "snapshot_begins", "snapshot_ends"]
        assert (notices[0].reason, notices[0].revision, notices[0].masked) == ("grants", "1.2", ["name"])
        changes = world.known.changes("tax", VIEW)
        assert [(change.kind, change.revision) for change in changes] == [("narrowed", "1.2"), ("started", "1.1")]
        state = world.known.subscription("tax", VIEW)
        assert state is not None
        assert state.boundary == changes[0].offset == world.sink.topics["share.tax." + VIEW].start
        assert state.boundary >= before
        await world.close()

    asyncio.run(run())


def test_a_wider_grant_sends_only_what_it_adds(world: StreamsWorld) -> None:
    """Rows gained are sent, rows that are shown already are not; the topic keeps what it has."""

    async def run() -> None:
        start(world, {**LEVY, "rows": {"field": "licence", "op": "lte", "value": 4}})
        await world.settle()
        before = world.sink.appended
        world.grant({**LEVY, "rows": {"field": "licence", "op": "lte", "value": 5}})
        await world.settle()
        assert world.sink.appended - before == 2, "one row and the notice"
        assert [notice.kind for notice in world.notices("tax", VIEW)][-1] == "widened"
        assert world.folded("tax", VIEW).keys() == {"1", "2", "3", "4", "5"}
        await world.close()

    asyncio.run(run())


def test_a_revoked_stream_keeps_nothing_but_the_notice(world: StreamsWorld) -> None:
    """The reason that was given is told; what was shown is deleted and forgotten. Granted again, it begins anew."""

    async def run() -> None:
        start(world, LEVY)
        await world.settle()
        world.grants.revoke(f"tax-{VIEW}", "wang.wei", "the levy is over")
        await world.settle()
        (_only,) = world.readable("tax", VIEW)
        (notice,) = world.notices("tax", VIEW)
        assert (notice.kind, notice.reason) == ("ended", "not_granted: the levy is over")
        state = world.known.subscription("tax", VIEW)
        assert state is not None
        assert (state.state, state.digest, world.known.count(state)) == ("ended", "", 0)
        world.grant(LEVY)
        await world.settle()
        assert len(world.folded("tax", VIEW)) == 6
        await world.close()

    asyncio.run(run())


def test_a_grant_ends_with_its_last_day(world: StreamsWorld) -> None:
    """At midnight UTC, without any change of grants."""

    async def run() -> None:
        start(world, {**LEVY, "valid": {"from": world.day.date(), "to": world.day.date()}})
        await world.settle()
        assert len(world.folded("tax", VIEW)) == 6
        world.day += dt.timedelta(hours=12)
        await world.settle()
        assert [notice.kind for notice in world.notices("tax", VIEW)] == ["ended"]
        await world.close()

    asyncio.run(run())


def test_without_a_decision_nothing_is_sent(world: StreamsWorld) -> None:
    """OPA away: neither changes nor the end of the stream; it goes on by itself, with nothing missing."""

    async def run() -> None:
        start(world, LEVY)
        await world.settle()
        decider, sent = world.decider, world.sink.appended
        world.decider = Decider(PolicyEngine(OpaClient("http://127.0.0.1:9")), world.grants, world.directory)
        world.restart()
        rename(world, 3, "renamed")
        await world.run(20)
        assert world.sink.appended == sent
        state = world.known.subscription("tax", VIEW)
        assert state is not None
        assert state.problem.startswith("policy_unavailable")
        world.decider = decider
        world.restart()
        await world.settle()
        assert world.folded("tax", VIEW)["3"]["name"] == "renamed"
        recovered = world.known.subscription("tax", VIEW)
        assert recovered is not None
        assert not recovered.problem
        await world.close()

    asyncio.run(run())


def test_what_cannot_be_recorded_is_not_sent(world: StreamsWorld) -> None:
    """The audit entry comes first: who, which columns, how many rows; without it nothing leaves."""

    async def run() -> None:
        start(world, LEVY)
        await world.settle()
        body = world.audit.recent(1)[0].body
        told = {name: body[name] for name in ("who", "channel", "rows", "columns")}
        assert told == {"who": "tax", "channel": "stream", "rows": 6, "columns": ["licence", "name", "area", "result"]}
        sent = world.sink.appended
        world.audit.close()
        rename(world, 3, "renamed")
        await world.run(20)
        assert world.sink.appended == sent
        await world.close()

    asyncio.run(run())


def test_a_stream_in_trouble_holds_up_no_other(world: StreamsWorld) -> None:
    """One topic cannot be written: the other goes on; the first is tried again and misses nothing."""

    async def run() -> None:
        start(world, LEVY, {**LEVY, "consumer": "social"})
        await world.settle()
        world.sink.away = {f"share.tax.{VIEW}"}
        for number in (2, 3):
            rename(world, number, "renamed")
            await world.run(20)
        assert world.folded("social", VIEW)["3"]["name"] == "renamed"
        assert world.folded("tax", VIEW)["3"]["name"] == "business 3"
        rows = {item["consumer"]: item for item in subscriptions(world.known, world.desk.log.standings)}
        assert rows["tax"]["problem"].startswith("broker_unavailable")
        assert rows["tax"]["behind"] == 2
        assert (rows["social"]["problem"], rows["social"]["behind"]) == ("", 0)
        world.sink.away = set()
        await world.settle()
        assert world.folded("tax", VIEW) == world.folded("social", VIEW)
        await world.close()

    asyncio.run(run())


def test_records_of_hidden_keys_come_in_no_order_of_theirs(world: StreamsWorld) -> None:
    """Neither the snapshot, nor the changes of one transaction, nor tombstones, of changes or of a narrowed grant, say
    which key is less than which."""
    hidden = {**LEVY, "fields": ["name", "area"], "rows": {"field": "name", "op": "prefix", "value": "b"}}
    numbers: dict[bytes, float] = {}

    def in_disorder(sent: list[tuple[bytes, bytes | None, Any]], rows: int) -> None:
        """So many records came; by key there would be a step down for each transaction at most, by chance half are."""
        ranks = [numbers[key] for key, _, _ in sent if key in numbers]
        assert len(ranks) == rows
        down = sum(after < before for before, after in itertools.pairwise(ranks))
        assert 8 < down < rows - 8

    def put(name: str) -> None:
        for number in range(1, 41):
            world.topics.append(licence(f"t{number}", number, name=name, area=float(number)))
        world.feed()

    async def sent_by(grant: dict[str, Any], name: str) -> list[tuple[bytes, bytes | None, Any]]:
        topic = world.sink.topics["share.tax." + VIEW]
        before = len(topic.records)
        put(name)
        world.grant(grant)
        await world.settle()
        for key, value, _ in topic.records[before:]:
            if value is not None:
                numbers[key] = world.decoded(value)["area"]
        return topic.records[before:]

    async def run() -> None:
        world.begin(VIEW)
        world.sink.topics["share.tax." + VIEW] = Topic()
        in_disorder(await sent_by(hidden, "business"), 40)
        assert len(numbers) == 40
        in_disorder(await sent_by(hidden, "baker"), 40)
        in_disorder(await sent_by(hidden, "none"), 40)
        in_disorder(await sent_by(hidden, "business"), 40)
        in_disorder(await sent_by({**hidden, "rows": {"field": "name", "op": "prefix", "value": "bo"}}, "business"), 40)
        await world.close()

    asyncio.run(run())


def test_a_log_that_began_anew_costs_only_what_differs(world: StreamsWorld) -> None:
    """While there was no log a row changed and one went: these two are sent, and no others."""

    async def run() -> None:
        start(world, LEVY)
        await world.settle()
        switch(world.engine, world.shapes[VIEW], world.epochs[VIEW], streamed=False)
        rename(world, 3, "renamed")
        world.topics.append(Event("market.licence", sum(b"t5") % 2, 0, None, ("t5",)))
        world.feed()
        switch(world.engine, world.shapes[VIEW], world.epochs[VIEW], streamed=True)
        sent = world.sink.appended
        await world.settle()
        assert world.sink.appended - sent == 2
        assert world.folded("tax", VIEW)["3"]["name"] == "renamed"
        assert "5" not in world.folded("tax", VIEW)
        await world.close()

    asyncio.run(run())


def test_a_topic_that_was_made_anew_is_filled_again(world: StreamsWorld) -> None:
    """Somebody deleted it: what had been delivered is not taken for delivered."""

    async def run() -> None:
        start(world, LEVY)
        await world.settle()
        world.sink.topics[f"share.tax.{VIEW}"] = Topic()
        await world.settle()
        assert len(world.folded("tax", VIEW)) == 6
        await world.close()

    asyncio.run(run())


def test_each_condition_is_tested_once_for_a_changed_row(world: StreamsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three streams with one condition and two ways to show a row: one test, two renderings."""
    tested, made = [], []

    async def run() -> None:
        grants = [{**LEVY, "consumer": name} for name in ("tax", "social", "food")]
        start(world, *grants[:2], {**grants[2], "masks": {"name": {"keep_first": 1}}})
        await world.settle()
        for seat in world.streams[VIEW].seats.values():
            look = seat.stream.looking()
            passes = look.passes
            look.passes = lambda row, passes=passes: tested.append(row) or passes(row)
            look.encoders = tuple(
                lambda value, encode=encode: made.append(value) or encode(value) for encode in look.encoders
            )
        rename(world, 3, "renamed")
        await world.settle()
        assert len(tested) == 1
        assert made.count("renamed") == 2
        assert len(made) == 5, "four columns, one of them in two ways"
        await world.close()

    asyncio.run(run())


def test_who_gets_nothing_of_a_page_costs_nothing(world: StreamsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """No decision, no entry and no request for it, but its position; all others' records are one request."""
    requests: list[set[str]] = []

    async def run() -> None:
        grants = [{**LEVY, "consumer": name} for name in ("tax", "social")]
        start(world, *grants, {**LEVY, "consumer": "food", "rows": {"field": "licence", "op": "eq", "value": 2}})
        await world.settle()
        append_all, decide = world.sink.append_all, world.desk.permits.decide
        decided: list[str] = []

        async def appended(pages: Any) -> Any:
            requests.append(set(pages))
            return await append_all(pages)

        async def decides(consumer: str, *more: Any) -> Any:
            decided.append(consumer)
            return await decide(consumer, *more)

        monkeypatch.setattr(world.sink, "append_all", appended)
        monkeypatch.setattr(world.desk.permits, "decide", decides)
        entries = world.audit.head().sequence
        rename(world, 3, "renamed")
        await world.turn()
        assert requests == [{f"share.tax.{VIEW}", f"share.social.{VIEW}"}]
        assert sorted(decided) == ["social", "tax"]
        assert world.audit.head().sequence - entries == 2
        positions = {state.consumer: state.seq for state in world.known.subscriptions()}
        assert len(set(positions.values())) == 1, positions
        await world.close()

    asyncio.run(run())


def test_more_than_fits_goes_by_halves(world: StreamsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that comes to more records than memory is for is divided; nothing is lost or sent twice."""
    monkeypatch.setattr(following, "DELIVERED", 1)
    monkeypatch.setattr(following, "LEAST", 1)

    async def run() -> None:
        grants = [{**LEVY, "consumer": name, "purpose": "levy"} for name in ("tax", "social")]
        start(world, *grants)
        await world.settle()
        sent = world.sink.appended
        for number in range(1, 7):
            world.topics.append(licence(f"t{number}", number, name=f"renamed {number}", area=float(number)))
        world.feed()
        await world.settle()
        assert world.sink.appended - sent == 12
        await holds(world, grants)
        await world.close()

    asyncio.run(run())


def test_a_row_that_one_stream_cannot_take_holds_up_no_other(world: StreamsWorld) -> None:
    """What goes wrong in making one stream's records is that stream's trouble alone."""

    async def run() -> None:
        start(world, LEVY, {**LEVY, "consumer": "social", "fields": ["licence", "name"]})
        await world.settle()

        def broken(_: Any) -> bool:
            raise PolicyError()

        look = world.streams[VIEW].seats["tax"].stream.looking()
        look.passes, look.condition = broken, "broken"
        rename(world, 3, "renamed")
        await world.run(20)
        assert world.folded("social", VIEW)["3"]["name"] == "renamed"
        assert world.folded("tax", VIEW)["3"]["name"] == "business 3"
        state = world.known.subscription("tax", VIEW)
        assert state is not None
        assert state.problem.startswith("policy_error")
        await world.close()

    asyncio.run(run())
