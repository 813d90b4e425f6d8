"""B7: what a decision costs as the number of grants grows, by the decider as serve runs it, with the bus's own OPA.

A hit is the decision of a request like one before it; a miss asks the database and OPA anew: another officer, after a
change of some grant. Each decision is checked to be the right consumer's grant, with its own row condition.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.harness import Goal, Plan, Sample, require
from benchmarks.world import World
from bus.access.answers import And, Comparison
from bus.access.decision import Allow, Decider, Deny
from bus.access.engine import PolicyEngine
from bus.access.identity import Subject
from bus.access.opa import OpaClient
from bus.access.revisions_store import raise_revision
from bus.access.store import GrantStore
from bus.contracts.directory import Directory
from bus.core.columns import Column
from bus.core.contracts import Kind
from bus.core.grants import parse_grant_set
from bus.core.views import View
from bus.infra.database import open_database, write
from bus.infra.stack.opa import OPA_TOKEN

FEW: Final = 100
VIEWS: Final = 20
SET: Final = 500
HITS_EACH: Final = 5
WARM: Final = 20
READY_S: Final = 30.0
_YEAR: Final = 365


@dataclass(frozen=True, slots=True)
class _Shape:
    view: View
    columns: tuple[Column, ...]


def plan(world: World, grants: int) -> Plan:
    """``grants``: how many there are beside the hundred that they are compared with."""
    deciders = {count: _World(world, count) for count in (FEW, grants)}
    runs: dict[str, Callable[[], Sample]] = {}
    for count, made in deciders.items():
        runs[_name("hit", count)] = made.hits
        runs[_name("miss", count)] = made.misses
    goals = [
        Goal(f"decision, {kind}: {grants:,} grants / {FEW}", _name(kind, grants), _name(kind, FEW), 0.5)
        for kind in ("hit", "miss")
    ]
    return Plan("B7", "decisions/s", runs, goals)


def _name(kind: str, count: int) -> str:
    return f"{kind}, {count:,} grants"


class _World:
    """A governance database with so many grants, and who asks."""

    def __init__(self, world: World, count: int) -> None:
        self._opa, self._token = world.opa, world.stack.secrets.token(OPA_TOKEN)
        self._engine = open_database(world.fresh("sqlite"), "governance")
        self._directory, self._grants = Directory(self._engine), GrantStore(self._engine)
        self._consumers = count // VIEWS
        self._shapes = [_shape(number) for number in range(VIEWS)]
        self._officers = 0
        _fill(self._grants, count)
        require(len(self._grants.all()) == count, f"{count} grants")

    def hits(self) -> Sample:
        """Decisions on requests that were made before, nothing changed since."""

        async def run(decider: Decider) -> Sample:
            pairs = self._pairs()
            for consumer, view in pairs:
                await self._one(decider, consumer, view, None)
            begun = time.perf_counter()
            for _ in range(HITS_EACH):
                for consumer, view in pairs:
                    await self._one(decider, consumer, view, None)
            return Sample(HITS_EACH * len(pairs), time.perf_counter() - begun)

        return self._run(run)

    def misses(self) -> Sample:
        """Decisions after a change of some grant, by officers who never asked before."""

        async def run(decider: Decider) -> Sample:
            taken, decided = 0.0, 0
            for consumer, view in self._pairs():
                with write(self._engine) as connection:
                    raise_revision(connection, "grants", dt.datetime.now(dt.UTC))
                self._officers += 1
                begun = time.perf_counter()
                decided += await self._one(decider, consumer, view, f"officer {self._officers}")
                taken += time.perf_counter() - begun
            return Sample(decided, taken)

        return self._run(run)

    def _pairs(self) -> list[tuple[int, int]]:
        """Every view of as many departments, whatever the number of grants: spread over all of them."""
        asking = FEW // VIEWS
        consumers = (number * self._consumers // asking for number in range(asking))
        return [(consumer, view) for consumer in consumers for view in range(VIEWS)]

    async def _until_ready(self, decider: Decider) -> None:
        """The first canary has been answered."""
        deadline = time.monotonic() + READY_S
        while isinstance(await decider.decide(Subject("c0"), self._shapes[0], "levy", "query"), Deny):
            require(time.monotonic() < deadline, "OPA did not answer")
            await asyncio.sleep(0.05)

    async def _one(self, decider: Decider, consumer: int, view: int, officer: str | None) -> int:
        decision = await decider.decide(Subject(f"c{consumer}", officer), self._shapes[view], "levy", "query")
        require(isinstance(decision, Allow) and decision.grant_ids == (f"g{consumer}-{view}",), str(decision))
        own = Comparison("ward", "eq", consumer)
        allowed = isinstance(decision, Allow) and isinstance(decision.filter, And) and own in decision.filter.items
        require(allowed, f"the condition of c{consumer}")
        return 1

    def _run(self, measured: Callable[[Decider], Awaitable[Sample]]) -> Sample:
        async def run() -> Sample:
            client = OpaClient(self._opa, self._token)
            decider = Decider(PolicyEngine(client), self._grants, self._directory)
            canary = asyncio.create_task(decider.run_canary())
            try:
                await self._until_ready(decider)
                for consumer, view in self._pairs()[:WARM]:
                    await self._one(decider, consumer, view, "warm")
                return await measured(decider)
            finally:
                canary.cancel()
                await client.close()

        return asyncio.run(run())


def _shape(number: int) -> _Shape:
    columns = tuple(
        Column(name, kind, True, {}, "internal", False)
        for name, kind in (("id", Kind.INTEGER), ("ward", Kind.INTEGER), ("name", Kind.TEXT))
    )
    return _Shape(View(f"view{number}", {"zh": "视图", "en": "View"}, "market", "entity", ("id",)), columns)


def _fill(grants: GrantStore, count: int) -> None:
    """Grants of every view to each of as many consumers as it takes, applied in sets."""
    today = dt.date.today()
    valid = {"from": today.isoformat(), "to": (today + dt.timedelta(_YEAR)).isoformat()}
    documents = [_grant(number // VIEWS, number % VIEWS, valid) for number in range(count)]
    for start in range(0, count, SET):
        people = {"author": "li.na", "approver": "wang.wei"}
        document = {"set": f"set{start}", **people, "grants": documents[start : start + SET]}
        grants.apply(parse_grant_set(document), os_user="benchmark")


def _grant(consumer: int, view: int, valid: dict[str, str]) -> dict[str, Any]:
    return {
        "id": f"g{consumer}-{view}",
        "consumer": f"c{consumer}",
        "view": f"view{view}",
        "purpose": "levy",
        "channels": ["query"],
        "fields": ["id", "name"],
        "rows": {"field": "ward", "op": "eq", "value": consumer},
        "valid": valid,
        "legal_basis": "a law",
    }
