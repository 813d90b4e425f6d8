"""One served world for what is attacked over HTTP; each test asks as departments or for purposes of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path += [str(Path(__file__).parents[1] / room) for room in ("web", "access")]

import sqlalchemy as sa
from served_world import World, served

from bus.views.tables import row_table

INSPECTIONS = 300


@pytest.fixture(scope="session")
def attacked(opa_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A served world that is asked without mercy, with some inspections beside its businesses."""
    folder = tmp_path_factory.mktemp("attacked")
    with served(f"sqlite:///{folder / 'data'}", opa_binary, folder / "opa") as world:
        _inspect(world)
        yield world


def _inspect(world: World) -> None:
    """Each business of the first hundred has three inspections; every third failed."""
    shape = world.parts.shapes()["inspection_history"]
    table = row_table(shape)
    blank = {column.name: None for column in shape.columns}
    hidden = {"_v1": 1, "_v2": 1, "_v3": 1, "_live": True, "_partition": 0} if "_live" in table.c else {}
    rows = [
        {
            "inspection_id": 50_000 + number,
            "licence_number": number // 3 + 1,
            "result": "Fail" if number % 3 == 0 else "Pass",
            "dba_name": f"KEEP SECRET {number}",
        }
        for number in range(INSPECTIONS)
    ]
    with world.views.begin() as connection:
        connection.execute(sa.insert(table), [{**blank, **row, **hidden} for row in rows])
