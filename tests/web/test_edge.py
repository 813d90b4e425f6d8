"""The edge: hosts, sizes, methods, the log, and what operators use."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, Request
from served_world import BUNDLE_TOKEN, World

from bus.access.bundle import etag
from bus.web import edge
from bus.web.app import create_app


def _raw(world: World, request: bytes) -> bytes:
    host, port = world.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_other_hosts_are_refused(world: World, host: str) -> None:
    """A request for another host is 400, whatever its path (A29)."""
    answer = httpx2.get(f"{world.url}/health/live", headers={"Host": host})
    assert answer.status_code == 400


def test_a_path_cannot_stand_in_for_another(world: World) -> None:
    """Absolute targets, doubled slashes and a second Host open nothing (A29)."""
    for target in (
        "http://evil.example/v1/views/food_business",
        "//v1/views/food_business",
        "/v1//views/food_business",
        "@evil.example/v1/views/food_business",
        "evil.example:80",
    ):
        answer = _raw(world, f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        assert answer.split()[1] in (b"400", b"401", b"404")
    two = _raw(world, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert two.split()[1] == b"400"


def test_a_forwarded_certificate_is_refused(world: World) -> None:
    """No proxy is configured, so whoever sends it claims to be one (A09)."""
    claimed = {"X-Forwarded-Client-Cert": "URI=dept://police/system1"}
    answer = httpx2.get(f"{world.url}/v1/views/resident", headers=claimed)
    assert answer.status_code == 400
    assert "x-forwarded-client-cert" in answer.json()["detail"]


def test_sizes_are_limited(world: World) -> None:
    """A long address is 414, a compressed body 415 (A22)."""
    assert httpx2.get(f"{world.url}/?q={'x' * 9_000}").status_code == 414
    compressed = httpx2.post(f"{world.url}/", content=b"x", headers={"Content-Encoding": "gzip"})
    assert (compressed.status_code, compressed.json()["code"]) == (415, "not_acceptable")


def test_a_large_body_is_refused_before_it_is_read(world: World) -> None:
    """Beyond a mebibyte the answer is 413, with a stated length and without one."""
    router = APIRouter()

    @router.post("/taken")
    async def taken(request: Request) -> int:
        return len(await request.body())

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100_000

    async def ask() -> list[tuple[int, Any]]:
        transport = httpx2.ASGITransport(create_app(world.parts, routers=[router]))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answers = [
                await client.post("/taken", content=content)
                for content in (b"x" * 1_000_000, b"x" * 1_100_000, chunks())
            ]
            return [(answer.status_code, answer.json()) for answer in answers]

    small, large, streamed = asyncio.run(ask())
    assert small == (200, 1_000_000)
    assert (large[0], large[1]["code"]) == (413, "too_large")
    assert (streamed[0], streamed[1]["code"]) == (413, "too_large")


def test_unknown_addresses_and_methods(world: World) -> None:
    """An unknown address is 404, a known one with another method 405, both as problem documents."""
    missing = httpx2.get(f"{world.url}/v1/nowhere")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    for method in ("POST", "PATCH", "DELETE", "PUT"):
        answer = httpx2.request(method, f"{world.url}/v1/views/food_business", headers=world.headers("food"))
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    extra = httpx2.get(f"{world.url}/ask?surprise=1")
    assert (extra.status_code, extra.json()["code"]) == (422, "extra_forbidden")


def test_request_ids_are_ours(world: World) -> None:
    """An id that the client sends is not taken over."""
    ids = {
        httpx2.get(f"{world.url}/health/live", headers={"Request-Id": "mine"}).headers["request-id"] for _ in range(3)
    }
    assert len(ids) == 3
    assert "mine" not in ids


def test_the_log_has_one_ascii_line_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Line breaks, terminal codes and direction marks of a request reach the log escaped (A26)."""
    written = io.StringIO()
    monkeypatch.setattr("sys.stdout", written)
    edge.logger().info("request", path="/a\r\nb\x1b[31m\u202ec")
    line = written.getvalue()
    assert line.count("\n") == 1
    assert line.isascii()
    assert json.loads(line)["path"] == "/a\r\nb\x1b[31m\u202ec"


def test_figures(world: World) -> None:
    """Requests are counted by route template and status; views have rows, lag and freshness."""
    world.get("/v1/views/food_business?limit=1")
    world.get("/v1/views/nowhere")
    text = httpx2.get(f"{world.url}/metrics").text
    assert 'bus_http_requests_total{method="GET",route="/v1/views/{view}",status="200"}' in text
    assert 'bus_http_requests_total{method="GET",route="/v1/views/{view}",status="404"}' in text
    assert 'bus_view_rows{view="food_business"} 400.0' in text
    assert 'bus_view_live{view="weather_daily"} 0.0' in text
    assert "bus_quarantine_events 1.0" in text
    assert "nowhere" not in text


def test_readiness(world: World) -> None:
    """Ready says which parts answer."""
    answer = httpx2.get(f"{world.url}/health/ready")
    assert answer.json()["checks"] == {"policy": "ok", "governance_database": "ok", "views_database": "ok"}
    assert httpx2.get(f"{world.url}/health/live").status_code == 200


def test_rules_are_for_opa_only(world: World) -> None:
    """The bundle needs its own token; a department's does not do."""
    address = f"{world.url}/internal/bundles/rules.tar.gz"
    for headers in ({}, {"Authorization": "Bearer no"}, world.headers("food")):
        assert httpx2.get(address, headers=headers).status_code == 401


def test_rules_wait_for_a_change(world: World) -> None:
    """With its ETag and a wait OPA hears of a change at once, and of none after the wait (long polling)."""
    address = f"{world.url}/internal/bundles/rules.tar.gz"
    first = httpx2.get(address, headers={"Authorization": f"Bearer {BUNDLE_TOKEN}"})
    assert first.headers["content-type"] == "application/vnd.openpolicyagent.bundles"
    assert first.content == world.bundle[0]

    def poll(wait: int) -> httpx2.Response:
        known = {"If-None-Match": first.headers["etag"], "Prefer": f"modes=snapshot,delta;wait={wait}"}
        return httpx2.get(address, headers={"Authorization": f"Bearer {BUNDLE_TOKEN}", **known}, timeout=30)

    started = time.monotonic()
    unchanged = poll(1)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert time.monotonic() - started >= 0.9
    before, changed = world.bundle[0], world.bundle[0] + b"\0"
    timer = threading.Timer(0.5, lambda: world.bundle.__setitem__(0, changed))
    timer.start()
    started = time.monotonic()
    try:
        answer = poll(20)
    finally:
        timer.join()
        world.bundle[0] = before
    assert (answer.status_code, answer.headers["etag"]) == (200, etag(changed))
    assert time.monotonic() - started < 10


def test_the_reference_needs_no_other_host(world: World) -> None:
    """`/docs` lists the query door and loads nothing from elsewhere."""
    text = httpx2.get(f"{world.url}/docs").text
    assert "/v1/views/{view}" in text
    assert "https://" not in text
    assert "<script" not in text


@pytest.mark.parametrize(
    "asked",
    [
        {"view": "<img src=x>", "left": "tax", "right": "food"},
        {"view": "food_business", "left": "nobody", "right": "public", "left_purpose": "<script>alert(1)</script>"},
        {"view": "food_business", "left": "<b>", "right": "food", "right_purpose": "inspection_planning"},
        {"view": "food_business", "left": "tax", "left_purpose": "levy", "right": "tax", "q": "ward=<script>"},
        {"view": "food_business", "left": "tax", "left_purpose": "levy", "right": "tax", "q": "&&&=%zz"},
        {"view": "ward_hygiene", "left": "tax", "left_purpose": "open_data", "right": "x" * 63, "lang": "//evil"},
    ],
)
@pytest.mark.parametrize("lang", ["zh", "en"])
def test_every_error_has_its_page(world: World, asked: dict[str, str], lang: str) -> None:
    """Whatever is asked as whomever, the portal says why not, and shows it as text (A24)."""
    answer = httpx2.get(f"{world.url}/ask", params={"lang": lang, **asked}, timeout=30)
    assert answer.status_code == 200, answer.text
    assert "<script>alert" not in answer.text
    assert "<img src=x" not in answer.text
