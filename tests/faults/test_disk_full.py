"""No space left where the views are (F22): nothing breaks, nothing is set aside, and with space again it goes on."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from figures import Figures
from homes import seconds_until
from judging import surplus, wrong
from test_worker import publish_many
from views_bus import Bus

from tests.conftest import Cluster, eventually, unique

pytestmark = pytest.mark.fault
RESUMES_S = 10.0


class Disk:
    """A file system of its own in memory that can be filled to the last byte."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        with (self.folder / "ballast").open("ab", buffering=0) as ballast:
            for size in (1_048_576, 4_096):
                try:
                    while True:
                        ballast.write(b"\0" * size)
                except OSError:  # it is full
                    continue

    def free(self) -> None:
        (self.folder / "ballast").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """64 MiB; only who may mount can have it."""
    folder = Path("/tmp") / unique("bus-disk")
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64m,mode=0777", "tmpfs", str(folder)]
    mounted = sys.platform == "linux" and subprocess.run(["mount", *options], capture_output=True, check=False)
    if not mounted or mounted.returncode != 0:
        folder.rmdir()
        pytest.skip("mounting a small file system is not allowed here")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


@pytest.fixture
def sqlite_on_it(disk: Disk) -> str:
    """SQLite files on the small disk."""
    return f"sqlite:///{disk.folder}/data"


@pytest.fixture
def postgresql_on_it(disk: Disk, mortal_cluster: Cluster) -> Iterator[str]:
    """A PostgreSQL database whose tables are on the small disk; the server's log of writes is elsewhere."""
    name, place = unique("full"), disk.folder / "space"
    place.mkdir()
    shutil.chown(place, "postgres", "postgres")
    with psycopg.connect(mortal_cluster.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE {name} LOCATION '{place}'")
        connection.execute(f"CREATE DATABASE {name} TABLESPACE {name}")
    yield mortal_cluster.url(name)
    with psycopg.connect(mortal_cluster.url("postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        connection.execute(f"DROP TABLESPACE {name}")


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_disk_of_the_views_is_full(
    request: pytest.FixtureRequest,
    make_bus: Callable[..., Bus],
    disk: Disk,
    figures: Figures,
    full_length: bool,
    database: str,
) -> None:
    """The worker waits and readers read; with space again everything is applied, without anybody's help."""
    dice, times, worst_s = random.Random(24), 5 if full_length else 1, 0.0
    bus = make_bus(request.getfixturevalue(f"{database}_on_it"))
    publish_many(bus, 300, dice)
    worker = bus.worker()
    bus.wait()
    for _ in range(times):
        refused = _refusals(bus)
        before = bus.dump("food_business")
        disk.fill()
        publish_many(bus, 2_000, dice)
        eventually(lambda n=refused: _refusals(bus) > n, what="a refused write")  # type: ignore[misc]
        assert bus.dump("food_business")
        assert before
        disk.free()
        worst_s = max(worst_s, seconds_until(lambda: _caught_up(bus), what="the events"))
    twice = surplus(bus)
    assert worker.poll() is None, "the worker did not stay up"
    assert all(state.state == "live" for state in bus.store.states(count=False).values())
    assert _sound(bus, database)
    figures.record(
        f"F22 disk full, {database}",
        times=times,
        lost=-sum(min(0, count) for count in twice.values()),
        wrong=wrong(bus) + sum(max(0, count) for count in twice.values()),
        recovery_s=worst_s,
    )
    assert worst_s <= RESUMES_S


def _refusals(bus: Bus) -> int:
    return sum(log.read_text().count("database_unavailable") for log in bus.logs.glob("worker-*.log"))


def _caught_up(bus: Bus) -> bool:
    return all(bus.dump(name) == bus.expected(name) for name, shape in bus.shapes.items() if shape.contracts)


def _sound(bus: Bus, database: str) -> bool:
    """Whether the database itself says that nothing in it is damaged."""
    with bus.engine.connect() as connection:
        if database == "sqlite":
            return bool(connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok")
        connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA public")
        checked = "SELECT count(public.bt_index_check(indexrelid)) FROM pg_index WHERE indrelid IN (SELECT oid FROM "
        checked += "pg_class WHERE relnamespace = 'views'::regnamespace AND relkind = 'r')"
        return bool(connection.exec_driver_sql(checked).scalar())
