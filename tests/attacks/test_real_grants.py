"""The demo's own grants on the real data: what leaves over HTTP is what OPA allows row by row, and nothing else."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

sys.path += [str(Path(__file__).parents[1] / room) for room in ("access", "web")]

from served_declarations import grant_sets
from served_rows import rows_of
from served_world import World, served

from bus.access.facts import grant_fact
from bus.access.identity import Subject
from bus.core.columns import Column
from bus.core.contracts import Kind
from bus.core.grants import Grant
from bus.core.masks import apply_mask, consumer_key
from bus.views.catalogue import Shape
from tests.conftest import ROOT

DATA = ROOT / "producers" / "data"
FILES = {
    "food_business": "business_licences.csv.gz",
    "complaint": "sanitation_complaints.csv.gz",
    "inspection_history": "food_inspections.csv.gz",
}
SAMPLE = 150
"""Rows of each view; every one is a question to OPA of its own."""


def _typed(column: Column, text: str) -> Any:
    if text == "":
        return None
    if column.kind is Kind.INTEGER:
        return int(text)
    if column.kind is Kind.NUMBER:
        return float(text)
    return dt.date.fromisoformat(text) if column.kind is Kind.DATE else text


def _sample(shape: Shape) -> list[dict[str, Any]]:
    """Rows of the real file, spread over all of it, no key twice; rows without a ward among them."""
    with gzip.open(DATA / FILES[shape.view.name], "rt", encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if all(line[key] for key in shape.view.key)]
    found = {tuple(line[key] for key in shape.view.key): line for line in lines[:: max(1, len(lines) // SAMPLE)]}
    rows = [
        {column.name: _typed(column, line[column.name]) for column in shape.columns if column.name in line}
        for line in found.values()
    ]
    if "ward" in rows[0]:
        rows[0]["ward"] = None
    return rows


@pytest.fixture(scope="module")
def real(opa_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The served world, filled with rows of the departments' files."""
    folder = tmp_path_factory.mktemp("real")
    with served(f"sqlite:///{folder / 'data'}", opa_binary, folder / "opa", rows=_rows) as world:
        yield world


def _rows(shape: Shape, complaints: int) -> list[dict[str, Any]]:
    return _sample(shape) if shape.view.name in FILES else rows_of(shape, complaints)


def _allowed(world: World, grant: Grant, shape: Shape, rows: list[dict[str, Any]], asking: str) -> list[dict[str, Any]]:
    """The rows that OPA includes, each asked with the row known: another way than the Compile API's filter."""
    subject = Subject(asking)
    kinds = {column.name: column.kind for column in shape.columns}
    facts = {
        "subject": {"department": asking, "officer": None, "attributes": {}},
        "view": grant.view,
        "purpose": grant.purpose,
        "channel": "query",
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "grants": [grant_fact(grant, subject, kinds, dt.datetime.now(dt.UTC).date())],
    }
    return [row for row in rows if _includes(world, {**facts, "row": row})]


def _includes(world: World, facts: Mapping[str, Any]) -> bool:
    document = orjson.loads(orjson.dumps({"input": facts}))
    return world.opa.post("/v1/data/bus/access/include", document).get("result") is True


GRANTS = [
    (grant["id"], grant["consumer"])
    for document in grant_sets()
    for grant in document["grants"]
    if grant["view"] in FILES
]


@pytest.mark.parametrize(("grant_id", "consumer"), GRANTS, ids=[grant_id for grant_id, _ in GRANTS])
def test_what_leaves_is_what_opa_allows_row_by_row(real: World, grant_id: str, consumer: str) -> None:
    """For each grant of the demo: the same rows, only the granted columns, each value masked as the reference does."""
    grant = real.parts.grants.get(grant_id)
    shape = real.parts.shapes()[grant.view]
    rows = [{column.name: None for column in shape.columns} | row for row in _sample(shape)]
    answer = real.get(f"/v1/views/{grant.view}?limit=1000", consumer, grant.purpose, Prefer="count=exact")
    if "query" not in grant.channels:
        assert answer.json()["code"] == "channel_not_granted"
        return
    allowed = _allowed(real, grant, shape, rows, consumer)
    columns = [column.name for column in shape.columns if column.name in grant.fields]
    wanted = [
        {name: apply_mask(row[name], grant.masks.get(name), consumer_key(b"for tests", consumer)) for name in columns}
        for row in allowed
    ]
    key = shape.view.key[0]
    assert len(rows) >= SAMPLE
    assert sorted(answer.json(), key=lambda row: row[key]) == sorted(
        orjson.loads(orjson.dumps(wanted)), key=lambda row: row[key]
    )
    assert answer.headers["Content-Range"].endswith(f"/{len(allowed)}")
    if grant.rows.clauses != ((),):
        assert 0 < len(allowed) < len(rows), "the sample tells allowed rows from hidden ones"


@pytest.mark.parametrize("view", FILES)
def test_everybody_else_gets_nothing(real: World, view: str) -> None:
    """A department without a grant on the view is refused, whatever purpose it names."""
    granted = {grant.consumer for grant in real.parts.grants.all() if grant.view == view}
    departments = {department.id for department in real.parts.directory.departments()} - granted - {"public"}
    assert departments
    for department in departments:
        for purpose in (None, *(purpose.id for purpose in real.parts.directory.purposes())):
            answer = real.get(f"/v1/views/{view}", department, purpose)
            assert (answer.status_code, answer.json()["code"]) == (403, "not_granted")
