"""OPA gone, hung, restarted, rolled back: nothing is shown, soon, and soon again when it is back (F16, F17, F20)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from access_worlds import NOW, Offices, grant, grant_set, shape
from opa_process import POLICIES, BundleServer, Opa, running_opa

from bus.access.answers import NO_ROW, Verdict
from bus.access.bundle import build_bundle
from bus.access.decision import Allow, Decider, Decision, Deny
from bus.access.engine import Limits, PolicyEngine
from bus.access.identity import Subject
from bus.access.opa import OpaClient
from bus.access.store import GrantStore
from bus.errors import PolicyStale, PolicyUnavailable

TAX = Subject("tax")
REAL = Limits(budget=0.3)
"""The limits of the doors; whatever needs the machine to be quick waits until it was."""


@pytest.fixture
def store(governance: sa.Engine) -> GrantStore:
    made = GrantStore(governance)
    made.apply(grant_set(grant(rows=None, masks={})), os_user="root")
    return made


@pytest.fixture
def own_opa(opa_binary: Path, tmp_path: Path, bundle_keys: tuple[bytes, bytes]) -> Iterator[tuple[Opa, BundleServer]]:
    """An OPA of the test's own, at revision 5, to kill and to stop."""
    bundle = build_bundle(POLICIES, 5, bundle_keys[0])
    with running_opa(opa_binary, tmp_path / "opa", bundle, bundle_keys[1]) as pair:
        yield pair


@contextlib.asynccontextmanager
async def watched(url: str, store: GrantStore, limits: Limits = REAL) -> AsyncIterator[Decider]:
    """A decider with its canary beside it."""
    opa = OpaClient(url)
    decider = Decider(PolicyEngine(opa, limits=limits), store, Offices(), clock=lambda: NOW)
    task = asyncio.create_task(decider.run_canary())
    try:
        yield decider
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await opa.close()


async def ask(decider: Decider, purpose: str = "levy") -> tuple[Decision, float]:
    loop = asyncio.get_running_loop()
    started = loop.time()
    decision = await decider.decide(TAX, shape(), purpose, "query")
    return decision, loop.time() - started


async def until(decider: Decider, holds: Callable[[Decision], bool], seconds: float) -> float:
    """Asks until the decision is as expected; the seconds it took."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while not holds((await ask(decider))[0]):
        assert loop.time() - started < seconds
        await asyncio.sleep(0.02)
    return loop.time() - started


def allowed(decision: Decision) -> bool:
    return isinstance(decision, Allow)


def unavailable(decision: Decision) -> bool:
    return isinstance(decision, Deny) and isinstance(decision.error, PolicyUnavailable)


def test_opa_killed_and_back(own_opa: tuple[Opa, BundleServer], store: GrantStore) -> None:
    """Cached decisions end 2 s after the last good canary, every refusal is quick, and it recovers in 2 s."""
    opa, _ = own_opa

    async def run() -> tuple[float, float]:
        async with watched(opa.url, store) as decider:
            await until(decider, allowed, 20)
            opa.kill()
            gone = await until(decider, unavailable, 5)
            for purpose in ("levy", "other"):
                decision, seconds = await ask(decider, purpose)
                assert unavailable(decision)
                assert seconds < 0.5
            await asyncio.to_thread(opa.start)
            return gone, await until(decider, allowed, 20)

    gone, back = asyncio.run(run())
    assert gone <= 2.5
    assert back <= 2.5


def test_opa_hangs(own_opa: tuple[Opa, BundleServer], store: GrantStore) -> None:
    """A stopped process that keeps its connections is as good as none: 503 within half a second."""
    opa, _ = own_opa

    async def run() -> None:
        async with watched(opa.url, store) as decider:
            await until(decider, allowed, 20)
            opa.pause()
            decision, seconds = await ask(decider, "other")
            assert unavailable(decision)
            assert seconds < 0.5
            await until(decider, unavailable, 5)
            opa.go_on()
            await until(decider, allowed, 10)

    try:
        asyncio.run(run())
    finally:
        opa.go_on()


def test_a_server_that_accepts_and_says_nothing(store: GrantStore) -> None:
    """Two hundred questions at once each end in half a second, and soon at once."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(512)

        async def run() -> None:
            engine = PolicyEngine(OpaClient(f"http://127.0.0.1:{silent.getsockname()[1]}"))
            decider = Decider(engine, store, Offices(), clock=lambda: NOW)
            answers = await asyncio.gather(*(ask(decider) for _ in range(200)))
            assert all(unavailable(decision) for decision, _ in answers)
            assert max(seconds for _, seconds in answers) < 2  # two hundred in one loop of a busy machine

        asyncio.run(run())


def test_older_rules_are_refused_at_once(
    own_opa: tuple[Opa, BundleServer], store: GrantStore, bundle_keys: tuple[bytes, bytes]
) -> None:
    """A signed but older bundle, replayed, is noticed by its revision (F20)."""
    opa, server = own_opa

    async def run() -> Decision:
        async with watched(opa.url, store, Limits(budget=5.0, canary_every=0.1)) as decider:
            await until(decider, allowed, 20)
            server.content = build_bundle(POLICIES, 4, bundle_keys[0])
            await until(decider, lambda decision: isinstance(decision, Deny), 20)
            return (await ask(decider))[0]

    deny = asyncio.run(run())
    assert isinstance(deny, Deny)
    assert isinstance(deny.error, PolicyStale)


def test_opa_that_lost_its_bundle_server_is_stale_after_a_while(
    own_opa: tuple[Opa, BundleServer], store: GrantStore
) -> None:
    """OPA itself would go on for ever with the rules it has (F19)."""
    opa, server = own_opa
    limits = Limits(budget=5.0, canary_every=0.1, rules_age=2.5)

    async def run() -> Decision:
        async with watched(opa.url, store, limits) as decider:
            await until(decider, allowed, 20)
            served, loop = server.served, asyncio.get_running_loop()
            started = loop.time()
            while server.served < served + 3 or loop.time() - started < 2 * limits.rules_age:
                # unchanged rules (304) are heard of all the same
                assert allowed((await ask(decider))[0])
                await asyncio.sleep(0.05)
            server.close()
            await until(decider, lambda decision: isinstance(decision, Deny), 20)
            return (await ask(decider))[0]

    deny = asyncio.run(run())
    assert isinstance(deny, Deny)
    assert isinstance(deny.error, PolicyStale)


def test_new_rules_between_the_answers_are_asked_again() -> None:
    """Verdict and rows count only when the revision before and after is the same; after three times it is 503."""

    class Moving(OpaClient):
        def __init__(self, revisions: list[int]) -> None:
            super().__init__("http://127.0.0.1:9")
            self.revisions = iter(revisions)
            self.asked = 0

        async def verdict(self, facts: object) -> Verdict:
            return Verdict(True, False, ("g",), ("query",), "ok", next(self.revisions))

        async def rows(self, facts: object, kinds: object) -> object:  # type: ignore[override]
            self.asked += 1
            return NO_ROW

    async def run(revisions: list[int]) -> tuple[int, int]:
        opa = Moving(revisions)
        outcome = await PolicyEngine(opa).ask({}, {})
        return outcome.revision, opa.asked

    assert asyncio.run(run([1, 1])) == (1, 1)
    assert asyncio.run(run([1, 2, 2])) == (2, 2)
    assert asyncio.run(run([1, 2, 3, 3])) == (3, 3)
    with pytest.raises(PolicyUnavailable):
        asyncio.run(run([1, 2, 3, 4, 5]))


def test_the_watch_does_not_outlive_its_task(shared_opa: Opa) -> None:
    """Cancelling the canary leaves no thread and no task behind."""

    async def run() -> set[str]:
        engine = PolicyEngine(OpaClient(shared_opa.url))
        task = asyncio.create_task(engine.watch())
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return {other.get_name() for other in asyncio.all_tasks() - {asyncio.current_task()}}  # type: ignore[operator]

    before = threading.active_count()
    assert asyncio.run(run()) == set()
    assert threading.active_count() <= before
