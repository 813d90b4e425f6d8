"""A share topic folds to exactly the rows that the query door would show, whatever happens in between."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from opa_process import POLICIES, Opa, pem_pair, running_opa
from streams_world import Fuse, StreamsWorld, some_grant
from test_dependents import inspection, licence

from bus.access.bundle import build_bundle
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


@pytest.mark.parametrize("seed", range(4))
def test_a_topic_folds_to_what_the_query_door_shows(world: StreamsWorld, seed: int) -> None:
    """Random changes of rows, of grants and of the day, with the process killed before and after random steps."""
    choose = random.Random(seed)

    async def run() -> None:
        world.begin(VIEW)
        grants: list[dict[str, Any]] = []
        for _ in range(12):
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
