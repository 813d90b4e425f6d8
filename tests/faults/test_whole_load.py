"""The whole load of real data while its processes are killed: the verified figures stay what they are (F01, F02)."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from figures import Figures
from homes import Home, all_verified, seconds_until

from bus.cli import demo
from bus.errors import BusError
from bus.infra.database import open_database
from bus.views.store import ViewStore
from tests.conftest import eventually

pytestmark = pytest.mark.fault
EVENTS = {
    "food_business": 17_430 + 27_600,
    "complaint": 74_400,
    "inspection_history": 27_600,
    "weather_daily": 1_310,
}
"""About how many events each view takes: where in the load a moment is."""


class Load:
    """The five producers against a running stack, and the moments at which something is killed."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.store = ViewStore(open_database(home.site.settings.database, "views", durable=False))
        self.again = 0
        self.worst_s = 0.0

    def produce(self, name: str) -> None:
        """A department's system: what fails is run again, as an operator or a timer would."""
        for _ in range(20):
            try:
                demo._produce(self.home.site, name)
            except BusError:
                self.again += 1
                eventually(self.home.ready, timeout_s=120, what="a stack that answers")
            else:
                return
        raise AssertionError(f"producers.{name} does not come through")

    def applied(self) -> float:
        """The share of the load that is in the views."""
        done = sum(position.next_offset for name in EVENTS for position in self.store.positions(name))
        return done / sum(EVENTS.values())

    def epochs(self) -> Mapping[str, int]:
        return {name: state.epoch for name, state in self.store.states(count=False).items() if name in EVENTS}

    def strike(self, part: str) -> None:
        """Kills a part and waits until its work goes on."""
        before, dead = self.epochs(), 0
        begun = time.monotonic()
        if part == "supervisor":
            os.kill(_supervisor(self.home), signal.SIGKILL)
            self.home.up()
        else:
            dead = self.home.kill(part)
            eventually(lambda: self.home.site.processes.get(part) not in (None, dead), what=f"another {part}")
        if part == "worker":
            eventually(lambda: _all_above(before, self.epochs()), timeout_s=60, what="the views' new builder")
        eventually(self.home.ready, timeout_s=60, what="a stack that answers")
        self.worst_s = max(self.worst_s, time.monotonic() - begun)


def _supervisor(home: Home) -> int:
    from bus.infra.stack.process import marked

    (found,) = [process.identity.pid for process in marked(home.folder) if process.part == "supervisor"]
    return found


def _all_above(before: Mapping[str, int], after: Mapping[str, int]) -> bool:
    return all(after.get(name, 0) > epoch for name, epoch in before.items())


def test_killed_while_the_real_data_is_loaded(
    make_home: Callable[..., Home], figures: Figures, full_length: bool
) -> None:
    """The worker at random points again and again, serve once and the supervisor once: at the end every view equals
    the fold of the input files, and one event is in quarantine."""
    dice = random.Random()
    kills = 20 if full_length else 2
    home = make_home(BUS_BATCH_EVENTS="1000", **({} if full_length else {"BUS_LEASE_S": "1"}))
    home.up()
    home.declare()
    load = Load(home)
    parts = ["worker"] * kills + ["serve", "supervisor"]
    dice.shuffle(parts)
    moments = sorted(dice.uniform(0.0, 0.9) for _ in parts)
    with ThreadPoolExecutor(max_workers=2) as pool:
        produced = [pool.submit(load.produce, name) for name in demo.PRODUCERS]
        for part, moment in zip(parts, moments, strict=True):
            eventually(lambda m=moment: load.applied() >= m, timeout_s=240, what=f"{moment:.0%} of the load")  # type: ignore[misc]
            load.strike(part)
        for one in produced:
            one.result()
    seconds_until(lambda: home.bus("views", "wait", "--timeout", "120").returncode == 0, timeout_s=240)
    wrong, lines = home.verified()
    note = f"at {', '.join(f'{part} {moment:.0%}' for part, moment in zip(parts, moments, strict=True))}"
    figures.record(
        "F01/F02 whole load, kill -9 of worker, serve, supervisor",
        times=len(parts),
        lost=home.lost(),
        wrong=wrong,
        recovery_s=load.worst_s,
        note=f"{note if not full_length else ''} producers run again: {load.again}",
    )
    assert all_verified(lines), lines
    assert home.strays() == []
