"""The served worlds of this room's tests, one a run for each database, since most tests only ask."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

sys.path.append(str(Path(__file__).parents[1] / "access"))

from served_world import World, served
from share_topic import ShareTopic
from streamed_world import Streamed, streamed_world
from traced_world import Traced
from traced_world import traced as traced_world

from bus.infra.connection import KafkaConnection
from bus.infra.kafka import Admin
from tests.conftest import unique


@pytest.fixture(scope="session")
def world(opa_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The served world on SQLite."""
    folder = tmp_path_factory.mktemp("served")
    with served(f"sqlite:///{folder / 'data'}", opa_binary, folder / "opa") as served_world:
        yield served_world


@pytest.fixture(scope="session")
def postgresql_world(
    request: pytest.FixtureRequest, opa_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """The served world on PostgreSQL."""
    cluster = request.getfixturevalue("postgresql_cluster")
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE served")
    with served(cluster.url("served"), opa_binary, tmp_path_factory.mktemp("served-pg") / "opa") as served_world:
        yield served_world


@pytest.fixture(
    params=["world", pytest.param("postgresql_world", marks=pytest.mark.postgresql)], ids=["sqlite", "postgresql"]
)
def either(request: pytest.FixtureRequest) -> World:
    """The served world on each database."""
    served_world: World = request.getfixturevalue(request.param)
    return served_world


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def traced(
    request: pytest.FixtureRequest, opa_binary: Path, tmp_path_factory: pytest.TempPathFactory, kafka: KafkaConnection
) -> Iterator[Traced]:
    """Views that were built from events in Kafka, served on each database."""
    folder = tmp_path_factory.mktemp("traced")
    url = f"sqlite:///{folder / 'data'}"
    if request.param == "postgresql":
        cluster, name = request.getfixturevalue("postgresql_cluster"), unique("traced")
        with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        url = cluster.url(name)
    with traced_world(url, opa_binary, folder / "opa", kafka) as world:
        yield world


@pytest.fixture(scope="session")
def streamed(
    opa_binary: Path, tmp_path_factory: pytest.TempPathFactory, kafka: KafkaConnection, kafka_admin: Admin
) -> Iterator[Streamed]:
    """One world with a door to streams; each test has a department of its own."""
    with streamed_world(tmp_path_factory.mktemp("streamed"), opa_binary, kafka, kafka_admin) as world:
        yield world


@pytest.fixture
def make(streamed: Streamed) -> Iterator[Callable[..., ShareTopic]]:
    """Gives a department of its own a stream of the sample view."""
    made: list[ShareTopic] = []

    def make_one(**members: Any) -> ShareTopic:
        department = unique("dept")
        streamed.grant(department, **members)
        made.append(streamed.topic(department))
        return made[-1]

    yield make_one
    for topic in made:
        topic.close()
