"""B8: how long a revoked grant still shows something, at the query door, on an open stream over HTTP, and in Kafka.

Each round gives a consumer a grant, opens all three doors, waits a random while and takes the grant back. A delay
counts from before the request that revokes until the last answer with rows ended, the stream was closed, and Kafka
refused.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import TopicAuthorizationFailedError

from benchmarks import data
from benchmarks.harness import Goal, Plan, Sample, require
from benchmarks.query import VIEW, build
from benchmarks.world import ROOT, World
from bus.cli.api import Api
from bus.core.shares import share_topic
from bus.infra.connection import KafkaConnection

P99_S: Final = 1.0
WORST_S: Final = 5.0
_OPEN_S: Final = 60.0
_GRANT: Final = "revocable"
_CONSUMER: Final = "revoked"
_NAMES: Final = ("query", "stream over HTTP", "topic")


@dataclass(frozen=True, slots=True)
class Bus:
    """A running bus, and the consumer whose grant comes and goes. ``document``: of a grant without its id."""

    web: str
    api: Api
    token: Callable[[str], str]
    connection: KafkaConnection
    consumer: str
    document: Mapping[str, Any]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(self.consumer)}", "Purpose": self.document["purpose"]}

    @property
    def address(self) -> str:
        return f"{self.web}/v1/views/{self.document['view']}"

    def grant(self) -> None:
        today = dt.datetime.now(dt.UTC).date()
        valid = {"from": today.isoformat(), "to": (today + dt.timedelta(days=30)).isoformat()}
        given = {**self.document, "id": _GRANT, "consumer": self.consumer, "valid": valid}
        people = {"author": "li.na@governance", "approver": "wang.wei@governance"}
        body = {"document": {"set": _GRANT, **people, "grants": [given]}, "os_user": "benchmark"}
        self.api.put(f"/v1/grants/sets/{_GRANT}", body)

    def revoke(self) -> None:
        reason = {"officer": "li.na@governance", "reason": "the legal basis is gone"}
        self.api.post(f"/v1/grants/{_GRANT}/revoke", reason)


@dataclass
class Doors:
    """The three doors, each in a thread of its own, and when each of them was seen shut (monotonic seconds)."""

    bus: Bus
    opened: dict[str, threading.Event] = field(default_factory=lambda: {name: threading.Event() for name in _NAMES})
    shut: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def watch(self) -> list[threading.Thread]:
        steps = {"query": self._query, "stream over HTTP": self._stream, "topic": self._topic}
        threads = [threading.Thread(target=self._guarded, args=(name, step)) for name, step in steps.items()]
        for thread in threads:
            thread.start()
        return threads

    def _guarded(self, name: str, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # a thread's error would be lost
            self.failures.append(f"{name}: {type(error).__name__}: {error}")
            self.opened[name].set()

    def _query(self) -> None:
        """Asks again and again until it is refused; shut is it from the end of the last answer on."""
        with httpx2.Client(headers=self.bus.headers, timeout=20) as http:
            while (answer := http.get(f"{self.bus.address}?limit=1")).status_code in (200, 503):
                if answer.status_code == 200:  # a busy machine's 503 shows nothing
                    self.shut["query"] = time.monotonic()
                    self.opened["query"].set()
                time.sleep(0.005)
        require(answer.status_code == 403, f"query answered {answer.status_code}: {answer.text[:200]}")

    def _stream(self) -> None:
        """Reads events until the stream is closed, which a notice says."""
        events: list[str] = []
        limits = httpx2.Timeout(20, read=_OPEN_S)
        with self._opened_stream(limits) as answer:
            self.opened["stream over HTTP"].set()
            for line in answer.iter_lines():
                events += [line.removeprefix("event: ")] if line.startswith("event: ") else []
        self.shut["stream over HTTP"] = time.monotonic()
        require(bool(events) and events[-1] == "notice", f"the stream ended without a notice: {events[-3:]}")

    @contextmanager
    def _opened_stream(self, timeout: httpx2.Timeout) -> Iterator[httpx2.Response]:
        """The stream, once it is made ready."""
        deadline = time.monotonic() + _OPEN_S
        while True:
            with httpx2.stream(
                "GET", f"{self.bus.address}/changes", headers=self.bus.headers, timeout=timeout
            ) as answer:
                if answer.status_code == 200:
                    yield answer
                    return
                answer.read()
                require(answer.status_code == 503 and time.monotonic() < deadline, answer.text[:200])
            time.sleep(0.05)

    def _topic(self) -> None:
        """Fetches from the share topic with the consumer's own password until Kafka refuses."""
        place = TopicPartition(share_topic(self.bus.consumer, self.bus.document["view"]), 0)
        settings = {"group_id": None, "enable_auto_commit": False, "auto_offset_reset": "earliest"}
        consumer = KafkaConsumer(**self.bus.connection.kafka_python(), **settings, fetch_max_wait_ms=100)
        try:
            consumer.assign([place])
            while not self.opened["topic"].is_set():
                with suppress(TopicAuthorizationFailedError):  # the ACL is on its way to the broker
                    consumer.poll(timeout_ms=100)
                    consumer.beginning_offsets([place])
                    self.opened["topic"].set()
            with suppress(TopicAuthorizationFailedError):
                while True:
                    consumer.poll(timeout_ms=50)
            self.shut["topic"] = time.monotonic()
        finally:
            consumer.close(autocommit=False)


def revoke_once(bus: Bus, dice: random.Random) -> dict[str, float]:
    """One round: by door the seconds until it was shut."""
    bus.grant()
    doors = Doors(bus)
    threads = doors.watch()
    for name, opened in doors.opened.items():
        require(opened.wait(_OPEN_S), f"{name} was not opened: {doors.failures}")
    time.sleep(dice.random())
    began = time.monotonic()
    bus.revoke()
    for thread in threads:
        thread.join(_OPEN_S)
    require(not doors.failures, "; ".join(doors.failures))
    require(set(doors.shut) == set(_NAMES), f"only {sorted(doors.shut)} were shut")
    return {name: max(0.0, at - began) for name, at in doors.shut.items()}


def figures(rounds: list[dict[str, float]]) -> dict[str, tuple[float, float, float]]:
    """By door, and for all of them: median, 99th percentile and worst, in seconds."""
    worst = [max(found.values()) for found in rounds]
    by_door = {name: sorted(found[name] for found in rounds) for name in _NAMES} | {"every door": sorted(worst)}
    return {name: (d[len(d) // 2], d[min(int(len(d) * 0.99), len(d) - 1)], d[-1]) for name, d in by_door.items()}


def plan(world: World, rounds: int) -> Plan:
    """``rounds`` revocations at random moments."""
    names = {name: f"revoked, {name}: p99" for name in (*_NAMES, "every door")}
    goals = [Goal(f"{P99_S:g} s / p99, every door", names["every door"], "one", 1.0)]
    goals += [Goal(f"{WORST_S:g} s / worst, every door", "revoked, every door: worst", "one", 1.0)]
    runs = {"revocations": lambda: _measured(world, rounds, names), "one": lambda: Sample(1, 1)}
    return Plan("B8", "x the goal", runs, goals)


def _measured(world: World, rounds: int, names: Mapping[str, str]) -> Mapping[str, Sample]:
    build(world)
    titles = {"zh": "被撤销方", "en": "Revoked"}
    world.api.post("/v1/departments", {"id": _CONSUMER, "title": titles, "contact": "revoked@example.org"})
    fields = ["licence_number", *VIEW["fields"]]
    document = {
        "view": VIEW["view"],
        "purpose": data.PURPOSE,
        "channels": ["query", "stream"],
        "fields": fields,
        "limits": {"per_minute": 1_000_000, "rows": 1_000},
        "legal_basis": "benchmark",
    }
    connection = world.stack.kafka_connection(_CONSUMER)
    bus = Bus(world.web, world.api, world.token, connection, _CONSUMER, document)
    dice = random.Random(8)
    with ExitStack() as stack:
        for part in ("worker", "streams"):
            stack.enter_context(_process(world, part))
        found = figures([revoke_once(bus, dice) for _ in range(rounds)])
    samples = {names[name]: Sample(P99_S, max(p99, 1e-3), {"p50": p50}) for name, (p50, p99, _) in found.items()}
    return samples | {"revoked, every door: worst": Sample(WORST_S, found["every door"][2])}


@contextmanager
def _process(world: World, part: str) -> Iterator[None]:
    """One more of the bus's processes on the world's home."""
    told = {"BUS_HOME": str(world.home), "BUS_KAFKA": world.bootstrap, "BUS_OPA": str(world.stack.up().opa)}
    environment = {**os.environ, **told, "TZ": "UTC", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "bus.cli", part]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)
