"""Open streams stay decided: nothing is handed out without a decision, or before the topic is known to hold it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from bus.access.answers import EVERY_ROW
from bus.access.decision import Allow, Deny
from bus.access.identity import Subject
from bus.core.grants import Limits
from bus.core.views import View
from bus.errors import NotGranted, PolicyUnavailable
from bus.sharing.streams.states import SubscriptionState
from bus.sharing.streams.terms import Terms
from bus.sharing.subscribing.permissions import GOOD_S, Permission, Permissions
from bus.views.catalogue import Shape

ALLOW = Allow("v", ("a",), {}, EVERY_ROW, Limits(), ("g",), "d", "1.1", "stream", "levy", "tax")
NARROW = Allow("v", (), {}, EVERY_ROW, Limits(), ("g",), "d", "1.2", "stream", "levy", "tax")
SHAPE = Shape(View("v", {}, "market", "entity", ("a",)), ())
TAX = Subject("tax")


@dataclass
class Policy:
    """A decider that answers what it is told, or fails on command; the probe of the watch is refused as it must be."""

    answer: Any = ALLOW
    failure: Exception | None = None

    async def decide(self, subject: Subject, *_: Any) -> Any:
        if self.failure is not None:
            raise self.failure
        if subject is TAX or isinstance(self.answer, Deny):
            return self.answer
        return Deny(NotGranted(), self.answer.policy_revision)


@dataclass(eq=False)
class Topic:
    """What the streams database says, and whom it tells."""

    terms: Allow = ALLOW
    told: int = 0
    clock_s: float = 0.0

    def subscriptions(self) -> list[SubscriptionState]:
        digest = Terms.of(self.terms).digest
        return [SubscriptionState("tax", "v", purpose="levy", digest=digest, state="running", boundary=7)]

    def changed(self) -> None:
        self.told += 1


Play = Callable[[Policy, Topic, Permission], Awaitable[None]]


def _played(play: Play) -> None:
    async def shapes() -> Mapping[str, Shape]:
        return {"v": SHAPE}

    async def run() -> None:
        policy, topic = Policy(), Topic()
        watched: Any = Permissions(policy, topic, shapes, lambda: topic.clock_s)  # type: ignore[arg-type]
        permission, decision = await watched.take(TAX, "v", "levy", topic)
        assert decision is ALLOW
        assert permission.floor == 7
        await play(policy, topic, permission)
        watched.drop(permission, topic)
        await watched.close()

    asyncio.run(run())


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("failure", [None, RuntimeError("a defect")])
def test_without_a_decision_streams_are_held_and_go_on_after_it(failure: Exception | None) -> None:
    """Whether the policy engine is gone or the bus itself has a defect; nobody is told that the grant ended."""

    async def play(policy: Policy, topic: Topic, permission: Permission) -> None:
        policy.answer, policy.failure = Deny(PolicyUnavailable()), failure
        await _until(lambda: permission.floor is None)
        assert permission.ended is None
        assert topic.told
        policy.answer, policy.failure = ALLOW, None
        topic.clock_s += 1.5  # decided anew, and what the topic holds is looked at again
        await _until(lambda: permission.floor == 7)

    _played(play)


def test_a_watch_that_is_stuck_holds_every_stream() -> None:
    """A look counts for two seconds, whatever became of the next one."""

    async def play(policy: Policy, topic: Topic, permission: Permission) -> None:
        topic.clock_s += GOOD_S + 0.1
        assert permission.floor is None

    _played(play)


def test_new_terms_wait_for_the_topic() -> None:
    """From the decision on nothing of the old terms is handed out."""

    async def play(policy: Policy, topic: Topic, permission: Permission) -> None:
        policy.answer = NARROW
        await _until(lambda: permission.floor is None)
        assert permission.allow == NARROW
        topic.terms = NARROW
        await _until(lambda: permission.floor == 7)

    _played(play)


def test_a_grant_that_ended_never_comes_back_for_an_open_stream() -> None:
    """It is over, with the reason; who wants more asks anew."""

    async def play(policy: Policy, topic: Topic, permission: Permission) -> None:
        policy.answer = Deny(NotGranted(), "1.2")
        await _until(lambda: permission.ended is not None)
        policy.answer = ALLOW
        topic.clock_s += 1.5
        await asyncio.sleep(0.25)
        assert permission.ended is not None
        assert permission.floor is None

    _played(play)
