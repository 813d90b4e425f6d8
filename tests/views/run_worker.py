"""A worker as a process of its own for tests, forked from a server that has imported everything once: importing takes
longer than most of these tests. It is a real process: it is killed, stopped and limited by its own id."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from statements_cut import statements_of

from bus.contracts.registry import Registry
from bus.contracts.registry_client import RegistryClient
from bus.infra.database import open_database
from bus.infra.kafka import KafkaConnection
from bus.views import worker
from bus.views.builder import CrashPoint
from bus.views.catalogue import Declarations
from bus.views.changelog.streamed import Streamed
from bus.views.rebuilding.requests import Requests
from bus.views.workers import reader

PRELOADED = ["bus.views.worker", "bus.contracts.registry_client", "psycopg"]


class WorkerProcess:
    """A running worker, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, given: Mapping[str, Any], log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._process: BaseProcess = context.Process(target=run, args=(given, log), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """As that of Popen: minus the number of the signal that ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        """Raises TimeoutError."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"worker {self.pid} runs on")

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def dying(given: Mapping[str, Any]) -> CrashPoint:
    """A crash point that ends the process by SIGKILL: at each place with the chance ``crash``, and at ``kill_at``, a
    place's name and which time it is passed. At ``stop_at`` the process is stopped (SIGSTOP)."""
    dice, passed, kill_at = random.Random(given["seed"]), Counter[str](), given.get("kill_at")
    stop_at = given.get("stop_at")

    def crash(point: str) -> None:
        passed[point] += 1
        if dice.random() < given["crash"] or kill_at == (point, passed[point]):
            os.kill(os.getpid(), signal.SIGKILL)
        if stop_at == (point, passed[point]):
            os.kill(os.getpid(), signal.SIGSTOP)

    return crash


def wild_clock(offsets_s: Sequence[float]) -> None:
    """From now on the wall clock of this process is off by one of these after the other, half a second each."""
    started, time_ns = time.monotonic(), time.time_ns

    def wrong_ns() -> int:
        turn = int((time.monotonic() - started) / 0.5) % len(offsets_s)
        return time_ns() + round(offsets_s[turn] * 1e9)

    time.time_ns = wrong_ns
    time.time = lambda: wrong_ns() / 1e9


def stuck_reader(rounds: int, stalled_s: float) -> None:
    """Readers hang for ever after so many rounds; the watchdog's patience is shorter than in production."""
    read, left = reader.Reader._read, [rounds]

    async def hanging(self: reader.Reader) -> Any:
        left[0] -= 1
        if left[0] < 0:
            await asyncio.Event().wait()
        return await read(self)

    reader.Reader._read = hanging  # type: ignore[method-assign]
    worker.STALLED_S = stalled_s  # type: ignore[misc]


def hinder(given: Mapping[str, Any]) -> None:
    """Makes this process suffer what the test wants: ``clock_s`` (see `wild_clock`), ``stuck`` (see `stuck_reader`),
    ``file_bytes`` (no file may become longer, as on a full disk)."""
    if "clock_s" in given:
        wild_clock(given["clock_s"])
    if "stuck" in given:
        stuck_reader(*given["stuck"])
    if "file_bytes" in given:
        resource.setrlimit(resource.RLIMIT_FSIZE, (given["file_bytes"], resource.RLIM_INFINITY))


def run(given: Mapping[str, Any], log: Path) -> None:
    """A worker until a signal. ``given``: database, kafka settings, lease_s, batch_events, crash, seed, and perhaps
    kill_at or stop_at (see `dying`; the place may be ``statement N``, after that statement of a view's transaction),
    registry (the URL of one across HTTP) and what `hinder` takes."""
    with log.open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    governance = open_database(given["database"], "governance")
    across = given.get("registry")
    views, crash = open_database(given["database"], "views", durable=False), dying(given)
    hinder(given)
    made = worker.Worker(
        views=views,
        declarations=Declarations(governance),
        registry=RegistryClient(across, lambda: "good") if across else Registry(governance),
        kafka=KafkaConnection(**given["kafka"]),
        requests=Requests(governance),
        streamed=Streamed(governance),
        lease_s=given["lease_s"],
        batch_events=given["batch_events"],
        crash_point=crash,
    )
    cut = given.get("kill_at") or given.get("stop_at")
    with statements_of(views, lambda number: crash(f"statement {number}")) if cut else nullcontext():
        made.run()
