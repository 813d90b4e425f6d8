"""F25: 1,000 questions at once, with clients among them that never read; ``python -m benchmarks.crowd [N]``.

The crowd is a process of its own and so is serve. Each question must be answered or told when to come back; those let
in are to be answered within 2 s (p99), and serve's memory is to stay within bounds. Exits 1 where that does not hold.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from benchmarks import data, query
from benchmarks.load import read_answer
from benchmarks.world import ROOT, World, child
from bus.web.serving import allow_connections

CROWD: Final = 1_000
DEAF: Final = 20
DEPARTMENTS: Final = 60
P99_S: Final = 2.0
MEMORY_MIB: Final = 300
VIEW: Final = query.VIEW["view"]


def main(count: int) -> int:
    """Starts a bus, sends the crowd, prints what became of it."""
    with World(ROOT / ".bus", lambda text: print(text, flush=True)) as world:
        query.build(world)
        departments = [f"crowd_{number}" for number in range(DEPARTMENTS)]
        _grant(world, departments)
        given = {
            "host": world.web.removeprefix("http://").partition(":")[0],
            "port": int(world.web.rpartition(":")[2]),
            "path": f"/v1/views/{VIEW}?limit={query.ROWS}&order=licence_number",
            "tokens": [world.token(name) for name in departments],
            "count": count,
        }
        state = world.stack.state()
        assert state is not None
        serve = state.processes["serve"]
        print(child("benchmarks.crowd", {**given, "count": 50}), flush=True)
        before = _memory_mib(serve)
        found = child("benchmarks.crowd", given)
        grown = _memory_mib(serve) - before
    print(json.dumps({**found, "memory_grown_mib": round(grown), "departments": DEPARTMENTS, "deaf": DEAF}, indent=2))
    only = {status[:3] for status in found["statuses"]} <= {"200", "429", "503"}
    return 0 if only and found["p99_s"] <= P99_S and grown <= MEMORY_MIB and not found["unsaid"] else 1


def _grant(world: World, departments: list[str]) -> None:
    today = dt.datetime.now(dt.UTC).date()
    grants = [
        {
            "id": f"{name}-rows",
            "consumer": name,
            "view": VIEW,
            "purpose": data.PURPOSE,
            "channels": ["query"],
            "fields": list(query.FIELDS),
            "masks": {"legal_name": {"keep_first": 3}},
            "valid": {"from": today.isoformat(), "to": (today + dt.timedelta(days=2)).isoformat()},
            "legal_basis": "none: made-up records",
        }
        for name in departments
    ]
    for name in departments:
        contact = f"data@{name}.example"
        world.api.post("/v1/departments", {"id": name, "title": {"zh": name, "en": name}, "contact": contact})
    document = {"set": "crowd", "author": "li.na@governance", "approver": "wang.wei@governance", "grants": grants}
    world.api.put("/v1/grants/sets/crowd", {"document": document, "os_user": "bench"})


def _memory_mib(pid: int) -> float:
    """The most that the process ever held."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def _request(given: dict[str, Any], number: int) -> bytes:
    token = given["tokens"][number % len(given["tokens"])]
    lines = [f"GET {given['path']} HTTP/1.1", f"Host: {given['host']}", f"Authorization: Bearer {token}"]
    return "\r\n".join([*lines, f"Purpose: {data.PURPOSE}", "Connection: close", "", ""]).encode()


async def _ask(given: dict[str, Any], number: int, begin: asyncio.Event) -> tuple[str, float, bool]:
    """Status, seconds, and whether a refusal did not say when to come back."""
    reader, writer = await asyncio.open_connection(given["host"], given["port"], limit=4 << 20)
    await begin.wait()
    began = time.perf_counter()
    writer.write(_request(given, number))
    status, headers, body = await read_answer(reader)
    writer.close()
    if status not in (200, 429, 503):
        print(f"{status}: {body[:300]!r}", file=sys.stderr)
    code = "" if status == 200 else json.loads(body)["code"]
    return f"{status} {code}".strip(), time.perf_counter() - began, status != 200 and "retry-after" not in headers


async def crowd(given: dict[str, Any]) -> dict[str, Any]:
    """Connects all, then lets them ask at the same moment."""
    allow_connections()
    begin, deaf = asyncio.Event(), []
    for number in range(DEAF):
        _, writer = await asyncio.open_connection(given["host"], given["port"], limit=1)
        writer.write(_request(given, number) * 20)
        deaf.append(writer)
    asking = [asyncio.create_task(_ask(given, number, begin)) for number in range(given["count"])]
    await asyncio.sleep(1)
    begin.set()
    found = await asyncio.gather(*asking)
    for writer in deaf:
        writer.transport.abort()
    admitted = sorted(seconds for status, seconds, _ in found if status == "200") or [1e9]
    return {
        "statuses": dict(Counter(status for status, _, _ in found)),
        "p50_s": round(admitted[len(admitted) // 2], 3),
        "p99_s": round(admitted[int(len(admitted) * 0.99)], 3),
        "unsaid": sum(unsaid for _, _, unsaid in found),
    }


if __name__ == "__main__":
    if not sys.stdin.isatty() and len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        print(json.dumps(asyncio.run(crowd(json.loads(sys.argv[1])))))
    else:
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else CROWD))
