"""The load client of B6, a process of its own: a few keep-alive connections, each sending its next request when it has
its answer whole. Every answer is looked at: status, and how many rows."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from typing import Any


class Client:
    """Counts and times. ``requests``: how many there are to send in all."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._host, self._port = given["host"], given["port"]
        lines = [f"GET {given['path']} HTTP/1.1", f"Host: {self._host}:{self._port}", "Accept: application/json"]
        lines += [f"{name}: {value}" for name, value in given["headers"].items()]
        self._request = ("\r\n".join(lines) + "\r\n\r\n").encode()
        self._left, self._rows = given["requests"], given["rows"]
        self._until = time.perf_counter() + given["at_most_s"]
        self.times: list[float] = []

    async def connection(self) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=4 * 1024 * 1024)
        while self._left > 0 and time.perf_counter() < self._until:
            self._left -= 1
            begun = time.perf_counter()
            writer.write(self._request)
            body = await _answer(reader)
            self.times.append(time.perf_counter() - begun)
            if len(json.loads(body)) != self._rows:
                raise SystemExit(f"an answer has {len(json.loads(body))} rows, not {self._rows}")
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> bytes:
    status, _, body = await read_answer(reader)
    if status != 200:
        raise SystemExit(f"{status}: {body[:500]!r}")
    return body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (names in lower case) and body of one answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    named = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "chunked" in named.get("transfer-encoding", ""):
        body = await _chunks(reader)
    else:
        body = await reader.readexactly(int(named["content-length"]))
    return int(status.split()[1]), named, body


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return b"".join(parts)


async def run(given: dict[str, Any]) -> dict[str, float]:
    client = Client(given)
    begun = time.perf_counter()
    await asyncio.gather(*(client.connection() for _ in range(given["connections"])))
    seconds = time.perf_counter() - begun
    ordered = sorted(client.times)
    return {
        "requests": len(ordered),
        "seconds": seconds,
        "p50_ms": statistics.median(ordered) * 1_000,
        "p99_ms": ordered[int(len(ordered) * 0.99)] * 1_000,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(json.loads(sys.argv[1])))))
