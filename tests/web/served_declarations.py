"""What is declared in the served world: the demo's contracts, views and grants, and those of a laboratory."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from open_world import PERSON, PERSON_VIEWS
from ruamel.yaml import YAML
from served_rows import XSS

from bus.access.store import GrantStore
from bus.contracts.directory import Directory, parse_department, parse_purpose
from bus.contracts.registry import Registry
from bus.core.grants import parse_grant_set
from bus.views.catalogue import Declarations

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "schemas"
EVERY_KIND = {
    "type": "record",
    "name": "Sample",
    "namespace": "lab",
    "bus.owner": "lab",
    "bus.contact": "data@lab.example",
    "bus.key": ["sample_id"],
    "bus.freshness": "P1D",
    "bus.retention": "P5Y",
    "bus.legal_basis": "Laboratory Act 1",
    "fields": [
        {"name": "sample_id", "type": "long"},
        {"name": "label", "type": ["null", "string"]},
        {"name": "score", "type": ["null", "double"]},
        {"name": "passed", "type": ["null", "boolean"]},
        {"name": "taken_on", "type": ["null", {"type": "int", "logicalType": "date"}]},
        {"name": "seen_at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
        {"name": "fee", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 2}]},
        {"name": "raw", "type": ["null", "bytes"]},
        {"name": "parts", "type": ["null", {"type": "array", "items": "string"}]},
    ],
}
SAMPLE_VIEW = {
    "view": "sample",
    "title": {"zh": "样品", "en": "Sample"},
    "owner": "lab",
    "kind": "entity",
    "key": ["sample_id"],
    "sources": {"lab": {"entity": "lab.sample"}},
    "questions": {
        "passed": {
            "title": {"zh": "合格吗？", "en": "Did it pass?"},
            "where": {"field": "passed", "op": "eq", "value": True},
        },
        "scored": {
            "title": {"zh": "有分数吗？", "en": "Has it a score?"},
            "where": {"not": {"field": "score", "op": "missing"}},
            "unknown": None,
        },
    },
    "fields": {item["name"]: {"from": f"lab.{item['name']}"} for item in EVERY_KIND["fields"][1:]}
    | {"label": {"from": "lab.label", "search": True}},
}
HIDDEN_VIEW = {**SAMPLE_VIEW, "view": "hidden_sample", "listed": False}


def _yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def grant_sets() -> Iterator[Mapping[str, Any]]:
    """The demo's grants for this year, and those on the sample view."""
    valid = {"from": dt.date(dt.date.today().year, 1, 1), "to": dt.date(dt.date.today().year, 12, 31)}
    for path in sorted((SCHEMAS / "grants").glob("*.yaml")):
        document = _yaml(path)
        yield {**document, "grants": [{**grant, "valid": valid} for grant in document["grants"]]}
    base = {"consumer": "lab", "purpose": "levy", "valid": valid, "legal_basis": "Laboratory Act 2"}
    every = [item["name"] for item in EVERY_KIND["fields"]]
    yield {
        "set": "lab",
        "author": "li.na",
        "approver": "wang.wei",
        "grants": [
            {**base, "id": "lab-sample", "view": "sample", "channels": ["query"], "fields": every},
            {
                **base,
                "id": "social-sample",
                "consumer": "social",
                "view": "sample",
                "channels": ["query"],
                "fields": every,
                "masks": {"sample_id": {"hash": True}, "seen_at": {"month": True}},
                "rows": {"field": "label", "op": "prefix", "value": "50%"},
                "limits": {"per_minute": 600, "rows": 2},
            },
            {
                **base,
                "id": "social-sample-questions",
                "consumer": "social",
                "view": "sample",
                "channels": ["question"],
                "questions": ["scored"],
                "rows": {"field": "label", "op": "prefix", "value": "50%"},
            },
            {
                **base,
                "id": "tax-sample-questions",
                "consumer": "tax",
                "view": "sample",
                "channels": ["question"],
                "questions": ["scored"],
                "limits": {"per_day": 3},
            },
            {
                **base,
                "id": "weather-sample",
                "consumer": "weather",
                "view": "sample",
                "channels": ["query"],
                "fields": every,
                "limits": {"per_minute": 3, "rows": 1},
            },
        ],
    }


@dataclass(frozen=True)
class Declared:
    """The stores that keep it."""

    registry: Registry
    directory: Directory
    declarations: Declarations
    grants: GrantStore


def declared(governance: sa.Engine, more: Sequence[Mapping[str, Any]]) -> Declared:
    """The demo's departments, purposes, contracts, views and grants, a laboratory's, and ``more`` views."""
    registry, directory = Registry(governance), Directory(governance)
    declarations, grants = Declarations(governance), GrantStore(governance)
    for document in _yaml(SCHEMAS / "departments.yaml"):
        directory.put_department(parse_department(document))
    lab = {"id": "lab", "title": {"zh": "检验所", "en": f"Laboratory {XSS}"}, "contact": "data@lab.example"}
    directory.put_department(parse_department(lab))
    for document in _yaml(SCHEMAS / "purposes.yaml"):
        directory.put_purpose(parse_purpose(document))
    for path in sorted(SCHEMAS.glob("*/*.avsc")):
        registry.register(json.loads(path.read_text()))
    registry.register(EVERY_KIND)
    registry.register(PERSON)
    documents = [_yaml(path) for path in sorted((SCHEMAS / "views").glob("*.yaml"))] + [SAMPLE_VIEW, HIDDEN_VIEW]
    documents += [*PERSON_VIEWS, *more]
    for document in sorted(documents, key=lambda item: item["kind"] == "aggregate"):
        declarations.apply(document, registry.contracts())
    for document in grant_sets():
        grants.apply(parse_grant_set(document), os_user="test")
    return Declared(registry, directory, declarations, grants)
