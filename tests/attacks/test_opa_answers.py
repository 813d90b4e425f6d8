"""Whatever OPA answers, nothing is shown unless the answer is exactly an allow (F18, A03)."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.access.answers import EVERY_ROW, NO_ROW, And, Comparison, EveryRow, NoRow, Not, Or, parse_filter, parse_verdict
from bus.access.engine import PolicyEngine
from bus.access.opa import OpaClient
from bus.core.contracts import Kind
from bus.errors import BusError, PolicyError, Unavailable

KINDS = {"ward": Kind.INTEGER, "name": Kind.TEXT}
PROVENANCE = {"bundles": {"rules": {"revision": "1"}}}
NARROWING = {"ruled": False, "allow": False, "allow_all": False, "hint": ""}
VERDICT = {"allow": True, "allow_all": False, "grants": ["g"], "channels": ["query"], "reason": "ok"} | {
    "narrowing": NARROWING
}
GOOD = {"result": VERDICT, "provenance": PROVENANCE}


def field(op: str = "eq", value: Any = 1, name: str = "row.ward") -> dict[str, Any]:
    return {"type": "field", "operator": op, "field": name, "value": value}


def compound(op: str, *items: Any) -> dict[str, Any]:
    return {"type": "compound", "operator": op, "value": list(items)}


def query(node: Any) -> dict[str, Any]:
    return {"result": {"query": node}}


def nested(depth: int) -> dict[str, Any]:
    node = field()
    for _ in range(depth - 1):
        node = compound("and", node)
    return node


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, NO_ROW),
        (query({}), EVERY_ROW),
        (query(field()), Comparison("ward", "eq", 1)),
        (query(field("ne", None)), Comparison("ward", "ne", None)),
        (query(compound("not", field("in", [1, 2]))), Not(Comparison("ward", "in", (1, 2)))),
        (query(compound("or", field(), compound("and", field()))), Or((Comparison("ward", "eq", 1),
        And((Comparison("ward", "eq", 1),))))),
    ],
)  # fmt: skip
def test_well_formed_filters_are_read(body: Any, expected: Any) -> None:
    """The near misses of the refusals below."""
    assert parse_filter(body, KINDS) == expected
    parse_filter(query(nested(20)), KINDS)
    parse_filter(query(compound("or", *[field()] * 999)), KINDS)
    parse_filter(query(field("in", [1] * 1_000)), KINDS)


@pytest.mark.parametrize(
    "body",
    [
        None, [], "", 0, False, True, "true", {"result": None}, {"result": {}}, {"result": True}, {"result": []},
        {"result": {"query": None}}, {"result": {"query": []}}, {"result": {"query": ""}}, {"result": {"query": False}},
        {"result": {"query": {}, "sql": ""}}, {"result": {"queries": {}}}, {"query": {}}, {"RESULT": {"query": {}}},
        {"error": "x"}, {"code": "internal_error"}, {"result": {"query": {}}, "x": 1},
        query({"type": "compound"}), query(compound("and")), query(compound("or")), query(compound("not")),
        query(compound("xor", field())), query(compound("not", field(), field())), query(compound("not",
        compound("and", field()))),
        query(compound("not", field("ne", None))), query(compound("and", {})), query(compound("and", None)),
        query({**field(), "extra": 1}), query({"type": "field", "operator": "eq", "field": "row.ward"}),
        query(field("like")), query(field("EQ")), query(field(["eq"])), query(field("startswith", 1)),
        query(field("startswith", "a")), query(field("lt", None)), query(field("in", None)), query(field("in", [])),
        query(field("in", [None])), query(field("in", [[1]])), query(field("in", {"a": 1})), query(field("in", "1")),
        query(field("eq", {"field": "row.name"})), query(field("eq", [1])), query(field("eq", "1")),
        query(field("eq", True)),
        query(field("eq", 1.5)), query(field("eq", 1, "row.secret")), query(field("eq", 1, "ward")),
        query(field("eq", 1, "row._live")),
        query(field("eq", 1, "input.row.ward")), query(field("eq", 1, "row.ward; DROP")), query(field("eq", 1, None)),
        query(field("eq", 1, "row.")), query(nested(21)), query(nested(200)), query(compound("or", *[field()] * 1_000)),
        query(field("in", list(range(1_001)))), query(field("in", [0] * 50_000)),
    ],
)  # fmt: skip
def test_an_ill_formed_filter_is_an_error(body: Any) -> None:
    """Never "no filter": unknown operators, foreign fields, wrong types, emptiness, depth, width."""
    with pytest.raises(PolicyError):
        parse_filter(body, KINDS)


def verdict(**changes: Any) -> dict[str, Any]:
    return {"result": VERDICT | changes, "provenance": PROVENANCE}


@pytest.mark.parametrize(
    "body",
    [
        {}, None, [], True, "true", {"result": True}, {"result": {}}, {"result": None}, {"result": "true"},
        {"allow": True},
        verdict(allow="true"), verdict(allow=1), verdict(allow=None), verdict(allow={}), verdict(allow=[True]),
        verdict(allow=False), verdict(reason="not_granted"), verdict(reason="fine"), verdict(reason=None),
        verdict(allow_all="true"), verdict(allow_all=1), verdict(allow_all=None), verdict(extra=1), verdict(grants="g"),
        verdict(grants=[1]), verdict(channels=None), {"result": {"allow": True}},
        verdict(allow=False, allow_all=True, reason="not_granted"), {**GOOD, "warning": {}},
        {"result": VERDICT, "provenance": []}, {"result": VERDICT,
        "provenance": {"bundles": {"rules": {"revision": 1}}}},
        {"result": VERDICT, "provenance": {"bundles": {"rules": {"revision": "-1"}}}},
        {"result": VERDICT, "provenance": {"bundles": {"rules": {"revision": "１"}}}},
        {"result": VERDICT, "provenance": {"bundles": {"rules": None}}},
    ],
)  # fmt: skip
def test_an_ill_formed_verdict_is_an_error(body: Any) -> None:
    """Only `true` and `false` in their places are read (E4)."""
    assert parse_verdict(GOOD, "rules").allow is True
    with pytest.raises(PolicyError):
        parse_verdict(body, "rules")


SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text("aw.", max_size=3)
WORDS = st.sampled_from(
    ["result", "query", "type", "operator", "field", "value", "allow", "allow_all", "reason", "grants"]
)
VALUES = st.sampled_from(
    ["field", "compound", "and", "or", "not", "eq", "ne", "in", "startswith", "row.ward", "row.name", "ok"]
)
JSON = st.recursive(
    SCALARS | VALUES | st.sampled_from([{}, [], query({}), query(field()), VERDICT]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=12,
)


def well_formed(node: Any) -> bool:
    """An independent reading of a filter's grammar, written without the parser."""
    if not isinstance(node, dict) or set(node) - {"field"} != {"type", "operator", "value"}:
        return False
    value, op = node["value"], node["operator"]
    if node["type"] == "compound" and "field" not in node:
        if not isinstance(value, list) or not value:
            return False
        if op == "not":
            return (
                len(value) == 1
                and well_formed(value[0])
                and value[0]["type"] == "field"
                and value[0]["value"] is not None
            )
        return op in ("and", "or") and all(map(well_formed, value))
    if node["type"] != "field" or node.get("field") not in ("row.ward", "row.name"):
        return False
    right = str if node["field"] == "row.name" else int
    if op == "in":
        return isinstance(value, list) and len(value) > 0 and all(type(item) is right for item in value)
    if op == "startswith":
        return right is str and isinstance(value, str)
    return (value is None and op in ("eq", "ne")) or (
        op in ("eq", "ne", "lt", "lte", "gt", "gte") and type(value) is right
    )


@settings(max_examples=7_000, deadline=None)
@given(JSON)
def test_random_bodies_are_never_read_as_more_than_they_say(body: Any) -> None:
    """Random bodies: a filter is read only from a well-formed one, every row only from its one form."""
    try:
        read = parse_filter(body, KINDS)
    except PolicyError:
        assert body != {} or not isinstance(body, dict)
        return
    if isinstance(read, NoRow):
        assert body == {}
    elif isinstance(read, EveryRow):
        assert body == {"result": {"query": {}}}
    else:
        assert set(body) == {"result"}
        assert set(body["result"]) == {"query"}
        assert well_formed(body["result"]["query"])


@settings(max_examples=3_000, deadline=None)
@given(
    JSON | JSON.map(lambda value: {"result": value}) | st.dictionaries(WORDS, JSON).map(lambda extra: verdict(**extra))
)
def test_random_verdicts_never_allow(body: Any) -> None:
    """A random body is an error, a deny, or literally an allow."""
    try:
        read = parse_verdict(body, "rules")
    except PolicyError:
        return
    assert read.allow is (body["result"]["allow"] is True and body["result"]["reason"] == "ok")


class Stub:
    """A server that gives every question the same answer."""

    def __init__(self) -> None:
        self.status, self.body = 200, b""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(outer.status)
                if outer.status == 302:
                    self.send_header("Location", "/v1/data/evil")
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body if outer.status != 204 else b"")

            def log_message(self, *_: Any) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"{}"), (200, b'{"result":{}}'), (200, b'{"result":null}'), (200, b'"true"'), (200, b"1"), (200, b"true"),
        (204, b""), (200, b"<html>true</html>"), (200, b'{"result":{"allow":tr'), (200, b""), (302, b""), (400, b"{}"),
        (401, b"{}"), (500, json.dumps(GOOD).encode()), (404, json.dumps(GOOD).encode()), (200, b"[" * 100_000),
        (200, b" " * 2_000_000 + json.dumps(GOOD).encode()), (200, b"\xff\xfe"),
    ],
)  # fmt: skip
def test_no_http_answer_but_an_allow_allows(stub: Stub, status: int, body: bytes) -> None:
    """Status, body, length and form: each wrong answer is 503."""

    async def run() -> None:
        opa = OpaClient(stub.url, timeout_s=5)
        await PolicyEngine(opa).ask({}, KINDS)

    stub.status, stub.body = status, body
    with pytest.raises(Unavailable) as raised:
        asyncio.run(run())
    assert isinstance(raised.value, BusError)
    assert raised.value.status == 503


def test_the_same_server_with_the_right_answer_is_understood(stub: Stub) -> None:
    """The near miss: the right verdict is read through the same client."""
    stub.body = json.dumps(GOOD).encode()
    assert asyncio.run(OpaClient(stub.url, timeout_s=5).verdict({})).allow is True
