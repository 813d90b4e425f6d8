"""Exports: whole files of what the grant shows, recorded at both ends, and cut where nobody reads."""

from __future__ import annotations

import datetime as dt
import io
import json
import socket
import threading
from decimal import Decimal

import httpx2
import pyarrow as pa
import pytest
from exported_world import ask, give
from pyarrow import parquet
from served_world import World

from tests.conftest import eventually

SAMPLE = "/v1/views/sample"
COMPLAINT = "/v1/views/complaint"
PARQUET = "application/vnd.apache.parquet"
ROWS = 2_000


@pytest.fixture
def exporting(either: World) -> World:
    """The served world with grants to export."""
    give(
        either,
        {"id": "whole", "masks": {"label": {"keep_first": 2}, "seen_at": {"month": True}}},
        {"id": "bare", "consumer": "market"},
        {"id": "few", "consumer": "tax", "limits": {"export_rows": 3}},
        {"id": "many", "consumer": "food", "view": "complaint", "fields": ["request_number", "nature"]},
    )
    return either


def _ask(world: World, path: str, department: str, **headers: str) -> httpx2.Response:
    return ask(world, path, department, "case_investigation", **headers)


def _closing(world: World, request_id: str) -> dict[str, object]:
    """The entries of one export: its opening and, once it is there, its closing."""
    entries = [body for body in world.entries() if body.get("request_id") == request_id]
    return {str(body["kind"]): body for body in entries}


def test_parquet_has_the_types_of_the_columns(exporting: World) -> None:
    """Every kind comes back as it was stored; masked columns hold what their masks show; the file says what it is."""
    answer = _ask(exporting, f"{SAMPLE}?order=sample_id", "market", Accept=PARQUET)
    assert (answer.status_code, answer.headers["content-type"]) == (200, PARQUET)
    assert answer.headers["content-disposition"] == 'attachment; filename="sample.parquet"'
    assert answer.headers["export-rows"] == "8"
    table = parquet.read_table(io.BytesIO(answer.content))
    types = {field.name: field.type for field in table.schema}
    assert types["sample_id"] == pa.int64()
    assert types["taken_on"] == pa.date32()
    assert types["seen_at"] == pa.timestamp("us", tz="UTC")
    assert types["fee"] == pa.decimal128(38, 2)
    first, second = table.slice(0, 2).to_pylist()
    assert first == {
        "sample_id": 1,
        "label": "普通样品",
        "score": 1.5,
        "passed": True,
        "taken_on": dt.date(2026, 1, 31),
        "seen_at": dt.datetime(2026, 1, 31, 8, 0, 0, 250, tzinfo=dt.UTC),
        "fee": Decimal("12345678901234.05"),
        "raw": b"\x00\xff",
        "parts": '["a","b"]',
    }
    assert second["taken_on"] is None
    assert table.schema.metadata[b"bus.view"] == b"sample"
    masked = _ask(exporting, SAMPLE, "lab", Accept=PARQUET)
    assert masked.headers["masked-columns"] == "label,seen_at"
    shown = parquet.read_table(io.BytesIO(masked.content)).to_pylist()
    assert (shown[0]["label"], shown[0]["seen_at"]) == ("普通***", "2026-01")


def test_lines_and_csv_beyond_the_limit_of_an_answer(exporting: World) -> None:
    """All rows of a view that no single answer would hold, in order, each format as in an answer."""
    lines = _ask(exporting, f"{COMPLAINT}?export=true&order=request_number", "food", Accept="application/x-ndjson")
    assert lines.headers["export-rows"] == str(ROWS)
    numbers = [json.loads(line)["request_number"] for line in lines.text.splitlines()]
    assert numbers == [f"{number:08}" for number in range(ROWS)]
    csv = _ask(exporting, f"{SAMPLE}?export=true&sample_id=lte.2&select=label,score,fee", "market", Accept="*/*")
    assert csv.text == "label,score,fee\r\n普通样品,1.5,12345678901234.05\r\n'=1+1,-2.5,-0.50\r\n"
    assert csv.headers["content-disposition"] == 'attachment; filename="sample.csv"'
    some = _ask(exporting, f"{COMPLAINT}?export=true&limit=5&offset=7", "food", Accept="text/csv")
    assert some.text.count("\r\n") == 6
    empty = _ask(exporting, f"{SAMPLE}?sample_id=eq.99&select=label", "market", Accept=PARQUET)
    assert parquet.read_table(io.BytesIO(empty.content)).num_rows == 0


def test_an_export_is_recorded_at_both_ends(exporting: World) -> None:
    """An opening without a number of rows before the first byte, a closing with it before the last."""
    answer = _ask(exporting, f"{SAMPLE}?export=true&label=eq.SECRET&or=(sample_id.gt.0)", "market")
    entries = _closing(exporting, answer.headers["request-id"])
    opening, closing = entries["disclosure"], entries["closing"]
    assert (opening["channel"], opening["rows"], opening["question"]["export"]) == ("export", None, "text/csv")
    assert (closing["rows"], closing["complete"]) == (0, True)
    assert "SECRET" not in str(exporting.entries())
    _ask(exporting, SAMPLE, "market", Accept=PARQUET)
    verdict = exporting.parts.audit.verify()
    assert verdict.ok
    assert verdict.unclosed == ()


@pytest.mark.parametrize(
    ("path", "department", "accept", "status", "code"),
    [
        (f"{SAMPLE}?export=true", "social", "text/csv", 403, "purpose_not_granted"),
        ("/v1/views/food_business", "food", PARQUET, 403, "purpose_not_granted"),
        (f"{SAMPLE}?label=eq.x", "lab", PARQUET, 403, "field_not_filterable"),
        (SAMPLE, "tax", PARQUET, 413, "too_large"),
        (f"{SAMPLE}?limit=100", "tax", PARQUET, 413, "too_large"),
        (f"{SAMPLE}?export=true", "market", "application/json", 406, "not_acceptable"),
        (f"{SAMPLE}?export=yes", "market", PARQUET, 422, "bad_filter"),
        (f"{SAMPLE}?cursor=start", "market", PARQUET, 422, "bad_filter"),
        (f"{SAMPLE}?select=count()", "market", PARQUET, 422, "bad_filter"),
        (f"{SAMPLE}?nosuch=eq.1", "market", PARQUET, 422, "unknown_field"),
    ],
)
def test_refused_exports(exporting: World, path: str, department: str, accept: str, status: int, code: str) -> None:
    """What a question is refused for, an export is refused for; more rows than the grant allows are refused whole."""
    answer = _ask(exporting, path, department, Accept=accept)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_a_query_grant_is_no_export_grant(exporting: World) -> None:
    """Without the channel the refusal names whom to ask; as many rows as the grant allows are given."""
    for question, accept in (("?export=true", "text/csv"), ("", PARQUET)):
        answer = exporting.get(f"/v1/views/food_business{question}", "tax", "levy", Accept=accept)
        document = answer.json()
        assert (answer.status_code, document["code"]) == (403, "channel_not_granted")
        assert document["contact"] == "licence@market.example"
        assert "export" in document["detail"]
    assert _ask(exporting, f"{SAMPLE}?limit=3&export=true", "tax").headers["export-rows"] == "3"
    explained = _ask(exporting, f"{SAMPLE}?export=true&explain=true", "market").json()
    assert (explained["channel"], explained["grants"]) == ("export", ["bare"])
    head = httpx2.head(
        f"{exporting.url}{SAMPLE}?export=true", headers=exporting.headers("market", "case_investigation")
    )
    assert (head.status_code, head.headers["export-rows"], head.content) == (200, "8", b"")


class Unread:
    """A client that asks and never reads; its window is small, so little fits on the way."""

    def __init__(self, world: World, path: str, department: str) -> None:
        host, port = world.url.removeprefix("http://").split(":")
        headers = "".join(
            f"{name}: {value}\r\n" for name, value in world.headers(department, "case_investigation").items()
        )
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self.socket.connect((host, int(port)))
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Accept: text/csv\r\n\r\n".encode())

    def gone(self) -> None:
        self.socket.close()


def _long(world: World) -> str:
    """An export far larger than what fits on the way to a client."""
    del world
    columns = ",".join(f"n{number}:nature" for number in range(60))
    return f"{COMPLAINT}?export=true&select={columns}"


def test_who_does_not_read_holds_one_place_and_who_leaves_gives_it_back(exporting: World) -> None:
    """Two exports of one department at once; while nobody reads, no more is read from the database than fits; leaving
    closes the cursor, gives the place back and is recorded as incomplete."""
    exports = exporting.parts.exports
    clients = [Unread(exporting, _long(exporting), "food") for _ in range(2)]
    eventually(lambda: exports.under_way == 2)
    before = [entry for entry in exporting.entries() if entry["kind"] == "closing"]
    refused = _ask(exporting, f"{COMPLAINT}?export=true", "food")
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) >= 1
    assert _ask(exporting, f"{SAMPLE}?export=true", "market").status_code == 200
    assert exporting.get("/v1/views/food_business?limit=1").status_code == 200
    for client in clients:
        client.gone()
    eventually(lambda: exports.under_way == 0)

    def closed() -> list[object]:
        return [entry for entry in exporting.entries() if entry["kind"] == "closing"][len(before) :]

    eventually(lambda: len(closed()) >= 3)
    cut = [entry for entry in closed() if not entry["complete"]]
    assert len(cut) == 2
    assert all(entry["rows"] < ROWS for entry in cut)
    assert _ask(exporting, f"{COMPLAINT}?export=true", "food").headers["export-rows"] == str(ROWS)


def test_exports_at_once_are_all_whole(exporting: World) -> None:
    """As many as there are places run beside each other and each file is whole."""
    found: list[bytes] = []

    def ask(department: str, path: str) -> None:
        found.append(_ask(exporting, path, department, Accept="text/csv").content)

    asked = [("food", f"{COMPLAINT}?export=true"), ("food", f"{COMPLAINT}?export=true")]
    asked += [("market", f"{SAMPLE}?export=true"), ("lab", f"{SAMPLE}?export=true")]
    threads = [threading.Thread(target=ask, args=one) for one in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(content.count(b"\r\n") for content in found) == [9, 9, ROWS + 1, ROWS + 1]
