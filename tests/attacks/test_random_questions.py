"""Random questions at every door that answers over HTTP: leaks 0, faults 0.

The questions are put together from what the dialect knows (figures, related views, search, cursors, exports, minimal
questions, open data) and from what it must refuse; none of them holds a text that must not come back.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx2
import pyarrow.parquet as pq
import pytest
from exported_world import give
from served_world import World, businesses

QUESTIONS, MANY, AT_ONCE = 480, 10_000, 12
NARROW, GUARDED, ASKER = ("lab", "levy"), ("lab", "service_handling"), ("one_stop", "service_handling")
FIELDS = ["licence_number", "legal_name", "ward", "status", "last_result"]
ALLOWED = [row for row in businesses() if row["ward"] is not None and row["ward"] <= 25]
SECRETS = ("Madison", "老王饭店", "Corner", "CORNER", "KEEP SECRET", "onerror")
"""Of masked and ungranted columns; no question holds one of them."""
NUMBERS = {row["licence_number"] for row in ALLOWED} | set(range(26)) | set(range(50_000, 50_300))
"""Every whole number that an answer with rows may show; licence numbers of hidden rows are not among them."""
NAMES = [*FIELDS, "address", "latitude", "account_number", "inspection_id", "result", "dba_name", "district", "persons"]
EVIL = [
    "id;drop table x", "(select 1)", "ward)--", "1=1", "_live", "_rows", "rowid", "ward\x00", "*", "", "a b", "\u01b3",
    "legal_name::text", "ward->>x", "sqlite_master", "..", "%", "count()", "__proto__", "x" * 70,
]  # fmt: skip
VALUES = [
    "1", "25", "30", "-1", "9" * 25, "1e999", "Pass", "Fail", "老王", "Cor", "%", "_", "*", "\\", "a\\", "'", '"',
    "' OR 1=1--", "null", "true", "(1,2)", "(1,'x)", "2026-01-01", "\x00", "\r\nX: y", "\u202e", "x" * 300, "a & !b",
    "a|b", "!", "now()", "{1}", "[]", "50%_off", "",
]  # fmt: skip
OPERATORS = ["eq", "neq", "gt", "gte", "lt", "lte", "in", "is", "like", "ilike", "fts", "plfts", "not.eq", "nope"]
ACCEPTS = [*["application/json"] * 6, "text/csv", "application/x-ndjson", "*/*", "application/vnd.apache.parquet",
           "application/vnd.pgrst.object+json", "image/png"]  # fmt: skip
OTHERS = ["inspection_history", "sample", "hidden_sample", "nowhere", "resident"]


@pytest.fixture
def narrowed(attacked: World) -> World:
    """Rows, columns and masks that hide something; figures that are guarded; no limit but those of the server."""
    rows = {"all": [{"field": "ward", "op": "gte", "value": 1}, {"field": "ward", "op": "lte", "value": 25}]}
    limits = {"per_minute": 1_000_000, "rows": 1_000}
    business = {"view": "food_business", "fields": FIELDS, "masks": {"legal_name": {"keep_first": 3}}, "rows": rows,
                "limits": limits}  # fmt: skip
    give(
        attacked,
        {**business, "id": "random-rows", "purpose": NARROW[1], "channels": ["query", "lookup", "aggregate", "export"]},
        {**business, "id": "random-figures", "purpose": GUARDED[1], "channels": ["aggregate"],
         "limits": {**limits, "per_day": 1_000_000}},
        {"id": "random-inspections", "view": "inspection_history", "purpose": NARROW[1], "channels": ["query"],
         "fields": ["inspection_id", "licence_number", "result", "dba_name"], "limits": limits,
         "masks": {"dba_name": {"constant": "-"}}, "rows": {"field": "result", "op": "ne", "value": "Fail"}},
        {"id": "random-open", "consumer": "public", "view": "persons_by_district", "purpose": "open_data",
         "channels": ["query"], "fields": ["district", "persons", "tests", "most"]},
        name="random",
    )  # fmt: skip
    return attacked


class Asker:
    """Makes questions, most of them almost right; ``cursors``: what answers gave, to be used where they belong and
    where they do not."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.cursors: list[str] = ["start", "AAAA", ""]
        self._one = self._random.choice
        self._wild = 0.0

    def _often(self, part: float) -> bool:
        return self._random.random() < part

    def _name(self) -> str:
        if self._often(self._wild):
            return self._one([*NAMES, *EVIL])
        return self._one(FIELDS if self._often(0.1) else [name for name in FIELDS if name != "legal_name"])

    def _filter(self, depth: int = 0) -> tuple[str, str]:
        if self._often(0.15) and depth < 3:
            inner = [self._filter(depth + 1) for _ in range(self._random.randint(1, 3))]
            text = ",".join(f"{name}{value}" if value[:1] == "(" else f"{name}.{value}" for name, value in inner)
            return (name := self._one(["or", "and"])), f"({text})" if depth == 0 else f"{name}({text})"
        if self._often(self._wild):
            return self._name(), f"{self._one(OPERATORS)}.{self._one(VALUES)}"
        field = self._name()
        if field in ("licence_number", "ward"):
            return field, self._one(["eq.7", "gt.20", "lte.25", "in.(1,2,30)", "not.eq.30", "is.null", "neq.9"])
        return field, self._one(["eq.Pass", "neq.Fail", "like.A*", "ilike.%s", "not.is.null", "in.(Pass,AAI)"])

    def _figure(self, place: int) -> str:
        function = self._one(["count", "sum", "avg", "min", "max", *(["median"] if self._often(self._wild) else [])])
        field = self._one(["ward", "ward", "licence_number", self._name()])
        return f"n{place}:count()" if function == "count" else f"m{place}:{field}.{function}()"

    def _select(self, *, figures: bool) -> str:
        columns = list(dict.fromkeys(self._name() for _ in range(self._random.randint(1, 3))))
        if figures:
            return ",".join([*columns[:1], *(self._figure(place) for place in range(self._random.randint(1, 3)))])
        if self._often(0.25):
            inner = self._one(["result,inspection_id", "dba_name", "*", "licence_number", f"{self._name()},count()"])
            related = self._one(["inspection_history"] * 3 + ["inspection_history!licence_number", self._name()])
            return ",".join([*columns, f"seen:{related}({inner})"])
        return self._one(["*", ",".join(columns), f"x{columns[0]}:{columns[0]}", "ward,legal_name"])

    def _parameters(self, *, figures: bool) -> Iterator[tuple[str, str]]:
        if figures or self._often(0.6):
            yield "select", self._select(figures=figures)
        for _ in range(self._random.randint(0, 2)):
            yield self._filter()
        if self._often(0.2):
            direction = self._one(["", ".desc", ".asc.nullsfirst", ".x" if self._often(self._wild) else ""])
            yield "order", f"{self._name()}{direction}"
        for name, right, wrong in (
            ("limit", ["0", "1", "5", "100000"], ["-1", "x"]), ("offset", ["0", "3", "170"], ["9999", "1e3"]),
            ("cursor", [*self.cursors[:1], *self.cursors[3:]], self.cursors), ("export", ["true"], ["TRUE", ""]),
            ("explain", ["true", "false"], ["1"]), ("as_of", ["2026-01-01"], ["0000-00-00", "now"]),
            ("seen.limit", ["1", "2"], ["x"]), ("seen.result", ["eq.Pass", "like.*a*"], ["eq"]),
        ):  # fmt: skip
            if self._often(0.04 + self._wild / 8):
                yield name, self._one(wrong if self._often(self._wild) else right)

    def question(self) -> tuple[str, tuple[str, str] | None, dict[str, str]]:
        """An address, who asks (None: without a token), and headers."""
        self._wild = 0.0 if self._often(0.6) else 0.4
        who = GUARDED if self._often(0.2) else NARROW
        asked = self._parameters(figures=self._often(0.95 if who is GUARDED else 0.2))
        text = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in asked)
        headers = {"Accept": self._one(ACCEPTS)}
        for name, values in (("Prefer", ["count=exact", "x"]), ("Range", ["0-3", "900-", "5-1", "x"])):
            if self._often(0.1):
                headers[name] = self._one(values)
        door = self._random.random()
        if door < 0.04:
            asked_of = self._one(["persons_by_district"] * 4 + ["food_business", "nowhere"])
            told = self._one(["", "select=*&order=district", "persons=gt.1", "select=persons.sum()", "limit=2", text])
            return f"/v1/open/{asked_of}?{told}", None, headers
        if door < 0.12:
            question = self._one(["has_valid_licence", "was_ever_licensed", "x'--"])
            key = self._one(["licence_number=eq.7", f"licence_number=eq.{_quoted(self._one(VALUES))}", text])
            return f"/v1/views/food_business/questions/{question}?{key}", ASKER, headers
        views = OTHERS if self._often(self._wild / 2) else ["food_business"]
        return f"/v1/views/{self._one(views)}?{text}", who, headers


def _quoted(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="(),.!:*'")


def _rows(answer: httpx2.Response) -> list[Any]:
    """The rows of an answer in any format; texts of a CSV file stay texts."""
    kind = answer.headers["Content-Type"].partition(";")[0]
    if kind == "text/csv":
        return list(csv.DictReader(io.StringIO(answer.text)))
    if kind == "application/x-ndjson":
        return [json.loads(line) for line in answer.text.splitlines()]
    if kind == "application/vnd.apache.parquet":
        found: list[Any] = pq.read_table(io.BytesIO(answer.content)).to_pylist()
        return found
    document = answer.json()
    return document if isinstance(document, list) else [document]


def _numbers(value: Any, name: str = "") -> Iterator[int]:
    """Every whole number in a row, those of figures left out."""
    if isinstance(value, dict):
        for member, inner in value.items():
            yield from _numbers(inner, member)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, name)
    elif name[:1] not in "nm" and name != "count" and not isinstance(value, bool) and str(value).isdigit():
        yield int(value)


def _check(path: str, who: tuple[str, str] | None, answer: httpx2.Response) -> None:
    shown = f"{path} as {who}: {answer.status_code} {answer.text[:300]}"
    assert answer.status_code < 500 or answer.json()["code"] == "view_rebuilding", shown
    assert not any(secret in answer.text for secret in SECRETS), shown
    if answer.status_code >= 400:
        assert answer.headers["Content-Type"] == "application/problem+json", shown
        return
    total = answer.headers.get("Content-Range", "*/*").partition("/")[2]
    assert total == "*" or int(total) <= 400, shown
    if answer.status_code == 304 or "explain=true" in path:
        return
    rows = [] if who is ASKER else _rows(answer)
    if who is None:
        small = [row for row in rows if row and row.get("district") in ("south", "west")]
        assert all(value in (None, "") for row in small for name, value in row.items() if name != "district"), shown
    if who is NARROW and "/food_business" in path:
        assert total == "*" or int(total) <= len(ALLOWED), shown
        assert set(_numbers(rows)) <= NUMBERS, shown
    if who is GUARDED:
        counts = [value for row in rows for name, value in row.items() if name[:1] == "n" and value is not None]
        assert all(int(count) % 5 == 0 and int(count) > 0 for count in counts if count != ""), shown
        assert not answer.headers.get("Next-Cursor"), shown


def test_random_questions(narrowed: World, full_length: bool) -> None:
    """Whatever is asked of whichever door in whichever format, only what was granted comes back, and no fault."""
    seed = random.SystemRandom().randrange(2**32) if full_length else 5
    asker, statuses = Asker(seed), Counter[tuple[str, int]]()
    tokens = {who: narrowed.headers(*who) for who in (NARROW, GUARDED, ASKER)}

    async def one(client: httpx2.AsyncClient) -> None:
        path, who, headers = asker.question()
        answer = await client.get(path, headers={**headers, **(tokens[who] if who else {})})
        _check(path, who, answer)
        if cursor := answer.headers.get("Next-Cursor"):
            asker.cursors = [*asker.cursors[-20:], cursor]
        statuses[path.split("?")[0].split("/")[2], answer.status_code] += 1

    async def run() -> None:
        async with httpx2.AsyncClient(base_url=narrowed.url, timeout=60) as client:
            for _ in range((MANY if full_length else QUESTIONS) // AT_ONCE):
                await asyncio.gather(*(one(client) for _ in range(AT_ONCE)))

    asyncio.run(run())
    answered = sum(count for (_, status), count in statuses.items() if status < 300)
    assert answered > sum(statuses.values()) / 4, (seed, statuses)
    assert {status for _, status in statuses} >= {200, 403, 404, 422}, (seed, statuses)
