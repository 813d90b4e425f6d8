"""Every condition of the demo's grants, and every operator on every column of its views, goes through the real OPA."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from access_worlds import NOW
from opa_process import Opa
from ruamel.yaml import YAML
from sqlalchemy.dialects import postgresql, sqlite

from bus.access.answers import NO_ROW, And, Filter, Or
from bus.access.facts import request_input
from bus.access.filters import condition
from bus.access.identity import Subject
from bus.access.opa import OpaClient
from bus.access.predicates import predicate
from bus.contracts.registry import Registry
from bus.core.conditions import OPERATORS
from bus.core.contracts import Kind
from bus.core.grants import Grant, parse_grant_set
from bus.infra.database import open_database
from bus.views.catalogue import Declarations, Shape, shapes
from bus.views.values import sql_type

SCHEMAS = Path(__file__).parents[2] / "schemas"
VALID = {"from": "2026-01-01", "to": "2026-12-31"}
WRITTEN = {"not_in": "in", "not_prefix": "prefix", "present": "missing"}
VALUES: dict[Kind, Any] = {
    Kind.TEXT: "a",
    Kind.INTEGER: 1,
    Kind.NUMBER: 1.5,
    Kind.DECIMAL: Decimal("1.5"),
    Kind.BOOLEAN: True,
    Kind.DATE: dt.date(2026, 1, 1),
    Kind.TIMESTAMP: NOW,
}


def documents(folder: str) -> list[Any]:
    yaml = YAML(typ="safe")
    return [yaml.load(path.read_text()) for path in sorted((SCHEMAS / folder).glob("*.yaml"))]


def dated(document: Mapping[str, Any]) -> dict[str, Any]:
    return {**document, "grants": [{**grant, "valid": VALID} for grant in document["grants"]]}


GRANTS = [grant for document in documents("grants") for grant in parse_grant_set(dated(document)).grants]


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Shape]:
    """The demo's views with their columns."""
    governance = open_database(f"sqlite:///{tmp_path_factory.mktemp('declared')}", "governance", durable=False)
    registry, declarations = Registry(governance), Declarations(governance)
    for path in sorted(SCHEMAS.glob("*/*.avsc")):
        registry.register(json.loads(path.read_text()))
    for document in sorted(documents("views"), key=lambda document: document["kind"] == "aggregate"):
        declarations.apply(document, registry.contracts())
    return shapes(declarations, registry.contracts())


def kinds_of(shape: Shape) -> dict[str, Kind]:
    return {column.name: column.kind for column in shape.columns}


def compiled(opa: Opa, asked: Sequence[tuple[Grant, Mapping[str, Kind]]]) -> list[Filter]:
    """OPA's filter for each grant on the columns of its view; both databases and the stream understand it."""

    async def ask() -> list[Filter]:
        client = OpaClient(opa.url, timeout_s=20)
        try:
            return [await _compiled(client, grant, kinds) for grant, kinds in asked]
        finally:
            await client.close()

    return asyncio.run(ask())


async def _compiled(client: OpaClient, grant: Grant, kinds: Mapping[str, Kind]) -> Filter:
    arguments = {"purpose": grant.purpose, "channel": grant.channels[0], "at": NOW, "grants": [grant]}
    facts = request_input(Subject(grant.consumer), grant.view, kinds, **arguments)
    verdict = await client.verdict(facts)
    assert verdict.allow, verdict
    rows = await client.rows(facts, kinds)
    table = sa.table("v", *(sa.column(name, sql_type(kind, 2)) for name, kind in kinds.items()))
    clause = condition(rows, dict(table.c.items()))
    for dialect in (sqlite.dialect(), postgresql.dialect()):
        assert str(sa.select(table).where(clause).compile(dialect=dialect))
    predicate(rows, list(kinds))([None] * len(kinds))
    return rows


def test_every_grant_of_the_demo_compiles(shared_opa: Opa, declared: Mapping[str, Shape]) -> None:
    """On the view that it is for, with a filter that shows rows."""
    assert len(GRANTS) >= 8
    assert NO_ROW not in compiled(shared_opa, [(grant, kinds_of(declared[grant.view])) for grant in GRANTS])


@pytest.mark.parametrize("view", [document["view"] for document in documents("views")])
def test_every_operator_compiles_on_every_column(shared_opa: Opa, declared: Mapping[str, Shape], view: str) -> None:
    """One condition for each column that the operator fits, all of them found again in OPA's filter."""
    kinds = {name: kind for name, kind in kinds_of(declared[view]).items() if kind in VALUES}
    fitting = {op: [name for name in kinds if "prefix" not in op or kinds[name] is Kind.TEXT] for op in OPERATORS}
    fitting = {op: names for op, names in fitting.items() if names}
    asked = [_granted(view, {"any": [_written(name, op, kinds[name]) for name in fitting[op]]}) for op in fitting]
    found = compiled(shared_opa, [(grant, kinds) for doc in asked for grant in parse_grant_set(doc).grants])
    assert [_fields(rows) for rows in found] == [set(names) for names in fitting.values()]


def _written(name: str, op: str, kind: Kind) -> dict[str, Any]:
    document: dict[str, Any] = {"field": name, "op": WRITTEN.get(op, op)}
    if document["op"] != "missing":
        document["value"] = [VALUES[kind], VALUES[kind]] if document["op"] == "in" else VALUES[kind]
    return {"not": document} if op in WRITTEN else document


def _granted(view: str, rows: Any) -> dict[str, Any]:
    grant = {"id": "g", "consumer": "tax", "view": view, "purpose": "levy", "channels": ["lookup"], "fields": ["x"]}
    return {
        "author": "li.na",
        "approver": "wang.wei",
        "set": "tax",
        "grants": [{**grant, "rows": rows, "valid": VALID, "legal_basis": "a law"}],
    }


def _fields(rows: Filter) -> set[str]:
    if isinstance(rows, And | Or):
        return set().union(*map(_fields, rows.items))
    return {getattr(rows, "field", None) or rows.item.field}  # type: ignore[union-attr]
