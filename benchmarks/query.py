"""B6: a query of 100 rows as JSON over HTTP, with decision, row filter, mask and audit, by serve and OPA as they run.

Beside it Datasette on the same SQLite rows, and the same handler with no policy and no audit. The audit log must have
grown by one disclosure for each answer, or the run does not count.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from benchmarks import data
from benchmarks.harness import Goal, Plan, Sample, require
from benchmarks.world import World, child, free_port, served

OURS: Final = "bus: decision, filter, mask, audit"
BARE: Final = "the same handler, no policy and no audit"
DATASETTE: Final = "Datasette"
ROWS: Final = 100
CONNECTIONS: Final = 8
AT_MOST_S: Final = 15.0
EVENTS: Final = 20_000
VIEW: Final[dict[str, Any]] = data.TWO_LEVELS
FIELDS: Final = ("licence_number", *VIEW["fields"])


def plan(world: World, requests: int) -> Plan:
    """``requests`` for each run (Datasette a quarter of them)."""
    build(world)
    url = f"{world.web}/v1/views/{VIEW['view']}?limit={ROWS}&order=licence_number"
    runs: dict[str, Callable[[], Sample]] = {
        OURS: lambda: _audited(world, url, requests),
        BARE: lambda: _beside(_bare(world), requests),
    }
    if has_datasette():
        runs[DATASETTE] = lambda: _beside(_datasette(world), max(requests // 4, 20))
    goals = [
        Goal("query with decision, filter, mask, audit / Datasette", OURS, DATASETTE, 5.0),
        Goal("query / the same handler without policy and audit", OURS, BARE, 0.8),
    ]
    return Plan("B6", "requests/s", runs, goals)


def has_datasette() -> bool:
    try:
        import datasette  # noqa: F401
    except ImportError:
        return False
    return True


def build(world: World) -> None:
    """The view in the served bus's own database, by the worker; and the reader's grant on it."""
    world.events(EVENTS)
    world.api.put(f"/v1/declarations/{VIEW['view']}", VIEW)
    kafka = {name: getattr(world.kafka, name) for name in ("bootstrap", "username", "password")}
    given = {"database": world.database, "governance": world.database, "view": VIEW, "kafka": kafka}
    child("benchmarks.run_worker", {**given, "until_live": True})
    world.grant(VIEW["view"], FIELDS)


def load(url: str, requests: int, headers: dict[str, str]) -> dict[str, Any]:
    """What the load client found, after a short warm-up."""
    parts = urlsplit(url)
    given = {
        "host": parts.hostname,
        "port": parts.port,
        "path": f"{parts.path}?{parts.query}",
        "headers": headers,
        "rows": ROWS,
        "connections": CONNECTIONS,
        "at_most_s": AT_MOST_S,
    }
    child("benchmarks.load", {**given, "requests": max(requests // 10, CONNECTIONS)})
    return child("benchmarks.load", {**given, "requests": requests})


def _sample(found: dict[str, Any]) -> Sample:
    extra = {name: found[name] for name in ("p50_ms", "p99_ms")}
    return Sample(found["requests"], found["seconds"], extra)


def _audited(world: World, url: str, requests: int) -> Sample:
    headers = {"Authorization": f"Bearer {world.token(data.READER)}", "Purpose": data.PURPOSE}
    check_protected(httpx2.get(url, headers=headers, timeout=30))
    before = disclosures(world)
    found = load(url, requests, headers)
    warm = max(requests // 10, CONNECTIONS)
    written = disclosures(world) - before
    require(written == found["requests"] + warm, f"{written} audit entries for {found['requests']} + {warm} answers")
    return _sample(found)


def check_protected(answer: httpx2.Response) -> None:
    """The answer is one that the grant allows: masked, and only the wards it names."""
    require(answer.status_code == 200, f"{answer.status_code}: {answer.text[:300]}")
    rows = answer.json()
    require(len(rows) == ROWS, f"{len(rows)} rows")
    require(all(row["legal_name"].endswith("***") and len(row["legal_name"]) == 6 for row in rows), "not masked")
    require(all(1 <= row["ward"] <= data.WARDS // 2 for row in rows), "a ward that the grant does not name")
    require(answer.headers.get("Masked-Columns") == "legal_name", "no word on the mask")


def disclosures(world: World) -> int:
    """How many entries the audit log has; its chain is checked on the way."""
    verdict = world.api.get("/v1/audit/verify")
    require(verdict["ok"], f"the audit log is broken at {verdict['first_bad']}")
    return int(verdict["entries"])


def _beside(server: Any, requests: int) -> Sample:
    with server as url:
        return _sample(load(url, requests, {}))


@contextmanager
def _bare(world: World) -> Iterator[str]:
    port = free_port()
    folder = f"sqlite:///{world.folder / uuid.uuid4().hex}"
    given = {"database": world.database, "governance": folder, "view": VIEW, "port": port}
    url = f"http://127.0.0.1:{port}/rows?limit={ROWS}"
    with served((sys.executable, "-m", "benchmarks.peers.bare", json.dumps(given)), url, world.folder):
        check_protected_rows(httpx2.get(url, timeout=30).json())
        yield url


def check_protected_rows(rows: list[dict[str, Any]]) -> None:
    """The bare handler shows the same rows: same work, no cheaper question."""
    require(len(rows) == ROWS and all(len(row["legal_name"]) == 6 for row in rows), "the bare handler's rows differ")


@contextmanager
def _datasette(world: World) -> Iterator[str]:
    """Datasette as its makers advise for speed: a copy of the file that it may take for immutable."""
    port, copy = free_port(), world.folder / "rows.db"
    if not copy.exists():
        with sqlite3.connect(world.home / "data" / "views.db") as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
    columns = "&".join(f"_col={name}" for name in FIELDS)
    query = f"_size={ROWS}&_shape=array&_nocount=1&_nofacet=1&ward__gte=1&ward__lte={data.WARDS // 2}"
    url = f"http://127.0.0.1:{port}/rows/v_{VIEW['view']}.json?{query}&{columns}"
    command = (sys.executable, "-m", "datasette", "serve", "--immutable", str(copy), "--port", str(port))
    with served(command, url, world.folder):
        rows = httpx2.get(url, timeout=30).json()
        require(len(rows) == ROWS, f"Datasette shows {len(rows)} rows")
        yield url
