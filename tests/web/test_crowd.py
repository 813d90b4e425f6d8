"""A crowd, with clients among it that never read: each is answered or told to wait (F25).

How long they wait is measured where server and crowd are processes of their own: `benchmarks/crowd.py`.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter

import httpx2
import pytest
import sqlalchemy as sa
from served_world import World

CROWD = 120
DEAF = 10
HANGS_S = 30.0
VIEW = "/v1/views/food_business"
CONNECTIONS = 60  # of all databases of one serve on PostgreSQL: readers, exports, governance


def _deaf(world: World) -> socket.socket:
    """A client that asks for the largest answer there is and never reads it."""
    host, port = world.url.removeprefix("http://").split(":")
    lines = [f"GET {VIEW} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in world.headers("food", "inspection_planning").items()]
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.connect((host, int(port)))
    client.sendall("\r\n".join([*lines, "", ""]).encode())
    return client


def _connections(world: World) -> int:
    """How many connections there are to the database."""
    with world.views.connect() as connection:
        counted = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return int(connection.execute(counted).scalar_one())


async def _ask(client: httpx2.AsyncClient, world: World, number: int) -> tuple[float, str, httpx2.Response]:
    began = time.perf_counter()
    if number % 4 == 3:
        return 0.0, "public", await client.get("/v1/open/ward_hygiene?limit=5")
    department, purpose = ("tax", "levy") if number % 2 else ("food", "inspection_planning")
    headers = world.headers(department, purpose)
    answer = await client.get(f"{VIEW}?select=licence_number,ward&limit={number % 50 + 1}", headers=headers)
    return time.perf_counter() - began, department, answer


async def _crowd(world: World) -> tuple[list[tuple[float, str, httpx2.Response]], int]:
    limits = httpx2.Limits(max_connections=CROWD)
    async with httpx2.AsyncClient(base_url=world.url, timeout=60, limits=limits) as client:
        asking = [asyncio.create_task(_ask(client, world, number)) for number in range(CROWD)]
        most = 0
        while not all(task.done() for task in asking):
            most = max(most, await asyncio.to_thread(_connections, world))
            await asyncio.sleep(0.01)
        return [task.result() for task in asking], most


@pytest.mark.postgresql
def test_a_crowd_with_deaf_clients(postgresql_world: World) -> None:
    """Nothing but answers and refusals that say when to come back; nobody hangs or sees another's rows; the database
    has no more connections than its pools."""
    deaf = [_deaf(postgresql_world) for _ in range(DEAF)]
    try:
        found, most = asyncio.run(_crowd(postgresql_world))
    finally:
        for client in deaf:
            client.close()
    statuses = Counter(answer.status_code for _, _, answer in found)
    assert set(statuses) <= {200, 429, 503}
    assert statuses[200] >= 20
    for _, _, answer in found:
        assert answer.status_code == 200 or int(answer.headers["retry-after"]) >= 1
    assert max(seconds for seconds, _, _ in found) < HANGS_S
    for _, department, answer in found:
        if answer.status_code == 200 and department == "tax":
            assert all(1 <= row["ward"] <= 25 for row in answer.json())
    assert most <= CONNECTIONS
    assert postgresql_world.get(f"{VIEW}?limit=1").status_code == 200
