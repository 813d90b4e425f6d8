"""Views rebuilt while events come and their workers die, with figures computed from them (F26)."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from figures import Figures
from homes import seconds_until
from judging import wrong
from run_worker import WorkerProcess
from test_rebuild_running import ask, ended, outcome
from test_worker import publish_many, stop
from views_bus import Bus

from bus.infra.database import open_database
from bus.views.oracle.verify import dump_rows, fold, fold_aggregate
from bus.views.tables import live_rows, row_table
from tests.conftest import eventually

pytestmark = pytest.mark.fault
PLACES = ["swap begun", "before swap", "after swap", "before commit", "after commit", "carried", "rows written"]
NEXT_S = 15.0


def figures_wrong(bus: Bus) -> int:
    """Whether the aggregate differs from plain Python over plain Python's rows."""
    shape, contracts = bus.shapes["by_result"], bus.registry.contracts()
    rows = {name: fold(bus.shapes[name].view, contracts, bus.topics.events) for name in shape.view.reads}
    return int(bus.dump("by_result") != dump_rows(shape.columns, fold_aggregate(shape, bus.shapes, rows)))


class Readers:
    """Count the rows of a view all the time: a mix of two generations, or none, would show as another number."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._engine, self._table = open_database(bus.url, "views", read_only=True), row_table(bus.shapes[name])
        self.fewest, self.reads, self.errors = 10**9, 0, list[Exception]()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Readers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._engine.dispose()

    def _read(self) -> None:
        whole = sa.select(sa.func.count()).select_from(self._table).where(live_rows(self._table))
        while not self._ended.wait(0.005):
            try:
                with self._engine.connect() as connection:
                    self.fewest = min(self.fewest, connection.execute(whole).scalar_one())
            except Exception as error:
                self.errors.append(error)
            self.reads += 1


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_workers_die_while_views_are_rebuilt(
    request: pytest.FixtureRequest,
    make_bus: Callable[..., Bus],
    figures: Figures,
    full_length: bool,
    database: str,
) -> None:
    """SIGKILL at any place of a rebuild: readers see the old rows or the new ones, the next worker finishes, and rows
    and figures are those of the events."""
    if database == "postgresql" and not full_length:
        pytest.skip("full length only; the short form is the one on SQLite")
    dice, worst_s = random.Random(28), 0.0
    bus, times = make_bus(request.getfixturevalue(f"{database}_url")), 12 if full_length else 1
    publish_many(bus, 1_500, dice)
    stop(_built(bus))
    rows, deaths = bus.store.states()["food_business"].rows, 0
    with Readers(bus, "food_business") as readers:
        for _ in range(times):
            place = dice.choice([*PLACES, *(f"statement {number}" for number in range(14))])
            dying = bus.worker(kill_at=(place, dice.randint(1, 4)), batch_events=200)
            asked = {name: ask(bus, "rebuild", name) for name in ("food_business", "inspections")}
            publish_many(bus, 50, dice)
            eventually(lambda w=dying, a=asked: w.poll() is not None or _ended(bus, a), timeout_s=60, what="the crash")  # type: ignore[misc]
            deaths += dying.poll() is not None
            if dying.poll() is None:
                stop(dying)
            before = {name: state.seq for name, state in bus.store.states(count=False).items()}
            publish_many(bus, 50, dice)
            next_one = bus.worker()
            worst_s = max(worst_s, seconds_until(lambda b=before: _moved(bus, b), what="the next event"))  # type: ignore[misc]
            for name, one in asked.items():
                assert ended(bus, one, name=name, timeout_s=120)["state"] == "done"
            bus.wait(timeout_s=120)
            stop(next_one)
    assert readers.errors == []
    assert readers.reads
    assert readers.fewest >= rows - 30, "readers saw a half-built view"
    figures.record(
        f"F26 SIGKILL during rebuilds, {database}",
        times=times,
        wrong=wrong(bus) + figures_wrong(bus),
        recovery_s=worst_s,
        note=f"{deaths} deaths, {readers.reads} reads",
    )
    assert worst_s <= NEXT_S


def _built(bus: Bus) -> WorkerProcess:
    """A worker that has built everything there was."""
    worker = bus.worker()
    bus.wait()
    return worker


def _ended(bus: Bus, asked: dict[str, str]) -> bool:
    found = {name: outcome(bus, name) for name in asked}
    return all(found[name].get("request") == one and found[name]["state"] != "building" for name, one in asked.items())


def _moved(bus: Bus, before: dict[str, int]) -> bool:
    states = bus.store.states(count=False)
    return all(states[name].seq > before[name] for name in ("food_business", "inspections"))
