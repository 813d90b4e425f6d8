"""A worker that sleeps longer than its lease (F03), and a stack of which nothing is left alive."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest
from figures import Figures
from homes import Home, seconds_until
from test_worker import publish_many
from views_bus import Bus

from bus.infra.stack.process import marked
from tests.conftest import eventually

pytestmark = pytest.mark.fault
PAUSE_S = 90.0


def test_a_worker_paused_for_90_seconds(
    make_bus: Callable[..., Bus], sqlite_url: str, figures: Figures, full_length: bool
) -> None:
    """In full length only (the short form is in the views' tests): another takes over in time, and the sleeper writes
    nothing when it is woken."""
    if not full_length:
        pytest.skip("full length only; the short form is test_a_paused_worker_is_fenced")
    dice, bus = random.Random(14), make_bus(sqlite_url)
    publish_many(bus, 1_000, dice)
    first = bus.worker(lease_s=5.0)
    bus.wait()
    publish_many(bus, 1_000, dice)
    first.send_signal(signal.SIGSTOP)
    begun, epochs = time.monotonic(), {name: state.epoch for name, state in bus.store.states().items()}
    bus.worker(lease_s=5.0)
    took_s = seconds_until(lambda: all(s.epoch > epochs[n] for n, s in bus.store.states().items()), what="take-over")
    while time.monotonic() < begun + PAUSE_S:
        publish_many(bus, 50, dice)
        bus.wait()
    after = {name: state.epoch for name, state in bus.store.states().items()}
    first.send_signal(signal.SIGCONT)
    publish_many(bus, 500, dice)
    bus.wait()
    wrong = sum(bus.dump(name) != bus.expected(name) for name, shape in bus.shapes.items() if shape.contracts)
    assert {name: state.epoch for name, state in bus.store.states().items()} == after, "the sleeper took a view back"
    figures.record("F03 worker paused 90 s", wrong=wrong, recovery_s=took_s, note="zombie writes 0")
    assert took_s <= 15


def test_up_after_kill_of_everything(stack: Home, figures: Figures) -> None:
    """kill -9 of every process at once, with its record left behind: `bus up` brings all of it back as it was."""
    eventually(lambda: stack.ask().status_code == 200, what="an answer")
    before = stack.api.get("/v1/status")["views"]
    dead = [process.identity for process in marked(stack.folder)]
    for process in dead:
        os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: not any(process.alive() for process in dead), what="the end of all")
    assert (stack.folder / "run" / "state.json").exists()
    recovery_s = seconds_until(lambda: stack.up() is None, timeout_s=120, what="the stack")
    recovery_s += seconds_until(lambda: stack.ask().status_code == 200, what="an answer")
    after = stack.api.get("/v1/status")["views"]
    figures.record(
        "`bus up` after kill -9 of everything",
        lost=sum(after[name]["rows"] < view["rows"] for name, view in before.items()),
        wrong=sum(after[name]["rows"] > view["rows"] for name, view in before.items()),
        recovery_s=recovery_s,
    )
    assert set(stack.processes()) == {"kafka", "opa", "serve", "streams", "supervisor", "worker"}
    assert stack.strays() == []
