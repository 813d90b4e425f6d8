"""Who notes how far partitions go and who builds from them lock the same rows at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable

import sqlalchemy as sa

from bus.infra.database import open_database, translated_errors, write
from bus.views.progress import write_positions
from bus.views.store import VIEW, Position, ViewStore
from bus.views.workers.beat import note_ends

PLACES = [("dept.a_b.daily", 1), ("dept.ab.daily", 0), ("dept.a_b.daily", 0), ("dept.a.daily", 3), ("dept.ab.daily", 2)]
TIMES = 60


def test_a_keeper_and_a_builder_never_wait_for_each_other(postgresql_url: str) -> None:
    """In whatever order they were given the partitions, PostgreSQL has no circle of waiting to break."""
    engine = open_database(postgresql_url, "views", durable=False)
    ViewStore(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(VIEW).values(name="v", epoch=1))
    trouble: list[BaseException] = []
    together = threading.Barrier(2, timeout=60)

    def build() -> None:
        with translated_errors(), write(engine) as connection:
            write_positions(connection, "v", [Position(*place, 1, None) for place in PLACES])

    def note() -> None:
        note_ends(engine, [("v", 1)], dict.fromkeys(reversed(PLACES), 9), 1)

    def again(call: Callable[[], None]) -> None:
        try:
            for _ in range(TIMES):
                together.wait()
                call()
        except BaseException as error:
            trouble.append(error)
            together.abort()

    build()
    threads = [threading.Thread(target=again, args=(call,)) for call in (build, note)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()
    assert trouble == []
