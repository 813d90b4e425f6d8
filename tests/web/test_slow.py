"""One slow question never holds the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest
from served_world import World, served

LIMIT_S = 1.5
SLOW = "or=(" + ",".join(f"nature.ilike.*a*l*e*y*m*z{number}*" for number in range(95)) + ")"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def big_world(request: pytest.FixtureRequest, opa_binary: Path, tmp_path: Path) -> Iterator[World]:
    """A world with so many complaints that a bad question takes longer than the limit."""
    url = f"sqlite:///{tmp_path / 'data'}"
    if request.param == "postgresql":
        cluster = request.getfixturevalue("postgresql_cluster")
        with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE big")
        url = cluster.url("big")
    with served(url, opa_binary, tmp_path / "opa", complaints=100_000, timeout_s=LIMIT_S) as world:
        yield world


def test_a_slow_question_holds_nobody(big_world: World) -> None:
    """While slow questions run until their limit, look-ups go on being answered, and the slow ones are told why."""
    ended: list[httpx2.Response] = []
    slow = [
        threading.Thread(target=lambda: ended.append(big_world.get(f"/v1/views/complaint?{SLOW}&limit=1")))
        for _ in range(2)
    ]
    headers = big_world.headers("food", "inspection_planning")
    with httpx2.Client(base_url=big_world.url, headers=headers, timeout=30) as client:
        path = "/v1/views/food_business?licence_number=eq.7"
        assert client.get(path).status_code == 200
        for thread in slow:
            thread.start()
        waits = []
        while not ended:
            started = time.perf_counter()
            assert client.get(path).status_code == 200
            waits.append(time.perf_counter() - started)
    for thread in slow:
        thread.join()
    assert {answer.status_code for answer in ended} == {422}
    assert {answer.json()["code"] for answer in ended} == {"bad_filter"}
    assert "longer than 1.5 s" in ended[0].json()["detail"]
    assert len(waits) > 15, "the slow question ended too soon, or held the others"
    assert max(waits) < LIMIT_S
    assert sorted(waits)[len(waits) // 2] < 0.25
