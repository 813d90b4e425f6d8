"""Fixtures of the view tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from views_bus import Bus

from bus.infra.kafka import Admin, KafkaConnection


@pytest.fixture
def make_bus(kafka: KafkaConnection, kafka_admin: Admin, tmp_path: Path) -> Iterator[Callable[[str], Bus]]:
    """Makes a bus on the database of a URL."""
    made: list[Bus] = []

    def make(url: str) -> Bus:
        made.append(Bus(url, kafka, kafka_admin, tmp_path))
        return made[-1]

    yield make
    for bus in made:
        sys.stdout.write(bus.output())
        bus.close()


@pytest.fixture
def bus(make_bus: Callable[[str], Bus], sqlite_url: str) -> Bus:
    """A bus on SQLite."""
    return make_bus(sqlite_url)
