"""The faults' fixtures, and the table of what was lost, wrong or leaked, and how long recovery took."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "views"))
sys.path.append(str(Path(__file__).parents[1] / "contracts"))

from figures import Figures
from homes import Home
from views_bus import Bus

from bus.infra.kafka import Admin, KafkaConnection
from bus.infra.stack import LocalStack
from tests.conftest import DOWNLOADS, Cluster, unique

FULL_LENGTH_S = 3_600


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In full length a test may take up to an hour."""
    if config.getoption("--full-length"):
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.timeout(FULL_LENGTH_S))


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Where tests put what they measured; it is printed at the end."""
    return Figures(lambda line: request.node.user_properties.append(("fault", line)))


@contextmanager
def homes() -> Iterator[Callable[..., Home]]:
    """Makes homes with a local stack each; everything in them is stopped at the end, and nothing may be left."""
    with ExitStack() as at_the_end:

        def make(**environment: str) -> Home:
            home = Home(Path(tempfile.mkdtemp(prefix="bus-fault-")), environment)
            at_the_end.callback(home.remove)
            return home

        yield make


@pytest.fixture(scope="module")
def make_home() -> Iterator[Callable[..., Home]]:
    """Homes for the tests of one file: a stack that nobody uses any more would take its part of the processors from
    all that follow."""
    with homes() as make:
        yield make


@pytest.fixture(scope="package")
def stack() -> Iterator[Home]:
    """A running stack on SQLite with departments, contracts, views and grants, and no data."""
    with homes() as make:
        home = make(BUS_PUBLISH_TIMEOUT_S="4")
        home.up()
        home.declare()
        yield home


@pytest.fixture(scope="session")
def mortal_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A PostgreSQL that only the faults use, since they stop and kill it."""
    folder = Path(tempfile.mkdtemp(prefix="bus-fault-pg-", dir="/tmp"))
    cluster = Cluster(folder)
    yield cluster
    cluster.stop()
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def mortal_url(mortal_cluster: Cluster) -> str:
    """A fresh database in the mortal cluster."""
    import psycopg

    name = unique("fault")
    with psycopg.connect(mortal_cluster.url("postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return mortal_cluster.url(name)


@pytest.fixture(scope="module")
def mortal_broker() -> Iterator[LocalStack]:
    """A Kafka that only the faults use, since they kill it; its supervisor starts it again."""
    import shutil

    folder = Path(tempfile.mkdtemp(prefix="bus-fault-kafka-"))
    stack = LocalStack(folder, opa=False, downloads=DOWNLOADS)
    stack.up()
    yield stack
    stack.down()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def make_bus(kafka: KafkaConnection, kafka_admin: Admin, tmp_path: Path) -> Iterator[Callable[..., Bus]]:
    """Makes a bus (contracts, topics, views, workers) on the database of a URL; on the run's Kafka unless given."""
    made: list[Bus] = []

    def make(url: str, connection: KafkaConnection = kafka, admin: Admin = kafka_admin) -> Bus:
        made.append(Bus(url, connection, admin, tmp_path))
        return made[-1]

    os.environ.setdefault("TZ", "UTC")
    yield make
    for bus in made:
        sys.stdout.write(bus.output())
        bus.close()
