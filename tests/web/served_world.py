"""A served world: the demo's contracts, views and grants, rows of our own, a real OPA, a real uvicorn."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import sqlalchemy as sa
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from fastapi import APIRouter
from opa_process import POLICIES, pem_pair, running_opa
from open_world import BY_DISTRICT, HIDDEN, PERSON, PERSON_VIEWS
from ruamel.yaml import YAML

from bus.access.bundle import build_bundle, etag
from bus.access.decision import Decider
from bus.access.engine import Limits, PolicyEngine
from bus.access.identity import Issuer, Verifier
from bus.access.opa import OpaClient
from bus.access.revisions_store import raise_revision
from bus.access.store import GrantStore
from bus.audit.anchoring import Anchoring
from bus.audit.log import AuditLog
from bus.contracts.directory import Directory, parse_department, parse_purpose
from bus.contracts.quarantine import Kept, Quarantined
from bus.contracts.registry import Registry
from bus.core.contracts import Kind
from bus.core.grants import parse_grant_set
from bus.infra.connection import KafkaConnection
from bus.infra.database import create_tables, open_database, write
from bus.infra.records import RecordReader
from bus.sharing.budget.spending import Budget
from bus.sharing.budget.store import BudgetStore
from bus.sharing.exports.door import ExportDoor
from bus.sharing.exports.reading import ExportReader
from bus.sharing.lineage import LineageDoor
from bus.sharing.minimal.answering import MinimalDoor
from bus.sharing.query import QueryDoor
from bus.sharing.readers import open_reader
from bus.sharing.watch import Watch
from bus.views.catalogue import Declarations, Shape, shapes
from bus.views.store import POSITION, VIEW, ViewStore
from bus.views.tables import is_one_level, row_table
from bus.web.app import create_app
from bus.web.parts import Parts
from bus.web.serving import Patient

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "schemas"
BUNDLE_TOKEN = "a-token-for-rules"
XSS = "<img src=x onerror=alert(1)>"
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
SAMPLES: list[dict[str, Any]] = [
    {
        "sample_id": 1,
        "label": "普通样品",
        "score": 1.5,
        "passed": True,
        "taken_on": dt.date(2026, 1, 31),
        "seen_at": dt.datetime(2026, 1, 31, 8, 0, 0, 250, tzinfo=dt.UTC),
        "fee": Decimal("12345678901234.05"),
        "raw": b"\x00\xff",
        "parts": ["a", "b"],
    },
    {"sample_id": 2, "label": "=1+1", "score": -2.5, "passed": False, "fee": Decimal("-0.50")},
    {"sample_id": 3, "label": "", "score": 0.0, "passed": None, "fee": Decimal("7.00")},
    {"sample_id": 4, "label": None, "score": None, "passed": None},
    {"sample_id": 5, "label": 'a,"b"', "score": 3.0, "passed": True, "taken_on": dt.date(2026, 2, 1)},
    {"sample_id": 6, "label": "50%_off", "score": 4.0},
    {"sample_id": 7, "label": "50xyoff", "score": 5.0},
    {"sample_id": 8, "label": "' OR 1=1--", "score": 6.0},
]


def _yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def businesses(count: int = 400) -> list[dict[str, Any]]:
    """Rows of `food_business`: wards 1 to 50 in turn, every ninth without a ward, every fifth never inspected."""
    rows = []
    for number in range(1, count + 1):
        name = XSS if number == 2 else f"老王饭店 {number}" if number % 2 else f"Corner Deli {number}"
        row: dict[str, Any] = {
            "licence_number": number,
            "legal_name": name,
            "doing_business_as": name.upper(),
            "account_number": 9_000 + number,
            "address": f"{number} W Madison St",
            "zip_code": f"606{number % 50:02}",
            "ward": None if number % 9 == 0 else number % 50 + 1,
            "police_district": number % 25 + 1,
            "licence_description": "Retail Food Establishment",
            "status": "AAI",
            "latitude": 41.8 + number / 10_000,
            "longitude": -87.6 - number / 10_000,
        }
        if number % 5:
            inspected = {"last_result": "Fail" if number % 4 == 0 else "Pass", "risk": "Risk 1 (High)"}
            row |= inspected | {"last_inspection_date": dt.date(2026, 1, 1) + dt.timedelta(days=number % 90)}
        rows.append(row)
    return rows


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


@dataclass
class World:
    """The served world. ``opa``: the process, for tests that stop it."""

    url: str
    parts: Parts
    views: sa.Engine
    governance: sa.Engine
    opa: Any
    bundle: list[bytes] = field(default_factory=list)

    def headers(self, department: str, purpose: str | None = None, **more: str) -> dict[str, str]:
        assert self.parts.issuer is not None
        stated = {"Purpose": purpose} if purpose else {}
        return {"Authorization": f"Bearer {self.parts.issuer.token(department)}", **stated, **more}

    def get(
        self, path: str, department: str = "food", purpose: str | None = "inspection_planning", **headers: str
    ) -> httpx2.Response:
        """One question, as a department."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx2.get(self.url + path, headers={**self.headers(department, purpose), **sent}, timeout=30)

    def entries(self) -> list[Mapping[str, Any]]:
        """The bodies of the audit entries, oldest first."""
        return [entry.body for entry in self.parts.audit.entries(limit=100_000)]

    def set_state(self, view: str, state: str) -> None:
        with self.views.begin() as connection:
            connection.execute(sa.update(VIEW).where(VIEW.c.name == view).values(state=state))


def _fill(views: sa.Engine, shape: Shape, rows: Sequence[Mapping[str, Any]], *, state: str = "live") -> None:
    """Makes a view's table with these rows, and its entry as a worker would."""
    table = row_table(shape)
    create_tables(views, table.metadata)
    hidden: dict[str, Any] = {}
    if is_one_level(shape):
        hidden = {"_v1": 1, "_v2": 1, "_v3": 1, "_live": True, "_partition": 0}
    blank = dict.fromkeys((column.name for column in shape.columns), None)
    sources = {source.name: f"dept.{source.entity}" for source in shape.view.sources}
    now_ms = int(time.time() * 1_000)
    with views.begin() as connection:
        for start in range(0, len(rows), 5_000):
            chunk = [{**blank, **row, **hidden, **_group(shape, row)} for row in rows[start : start + 5_000]]
            connection.execute(sa.insert(table), chunk)
        kept = json.dumps([{"name": table.name, "live": bool(hidden)}])
        entry = {"name": shape.view.name, "fingerprint": shape.fingerprint, "state": state, "tables": kept}
        connection.execute(sa.insert(VIEW).values(**entry, sources=json.dumps(sources), seq=7))
        for topic in sources.values():
            place = {"view": shape.view.name, "topic": topic, "partition": 0, "next_offset": 10, "end_offset": 12}
            connection.execute(sa.insert(POSITION).values(**place, sequenced=False, complete_ms=now_ms - 1_500))


def _group(shape: Shape, row: Mapping[str, Any]) -> dict[str, Any]:
    """An aggregate's row is kept by its group; none of ours lacks a value."""
    if shape.view.kind != "aggregate":
        return {}
    return {"_nulls": 0, "_rows": 1, **{f"_k{index}": row[name] for index, name in enumerate(shape.view.key)}}


def _rows_of(shape: Shape, complaints: int) -> list[dict[str, Any]]:
    if shape.view.name == "food_business":
        return businesses()
    if shape.view.name in ("sample", "hidden_sample"):
        return SAMPLES
    if shape.view.name == "complaint":
        texts = [column.name for column in shape.columns if column.kind is Kind.TEXT]
        blank = dict.fromkeys(texts, "dark alley, many rats seen at night " * 12)
        key = shape.view.key[0]
        return [{**blank, key: f"{number:08}"} for number in range(complaints)]
    if shape.view.name == "resident":
        return [{"citizen_id": "11010519491231002X", "name": "张伟", "birth_date": dt.date(1949, 12, 31)}]
    if shape.view.name == "ward_hygiene":
        numbers = [column.name for column in shape.columns if column.kind is Kind.INTEGER]
        return [dict.fromkeys(numbers, ward) for ward in range(1, 51)]
    if shape.view.name == "persons_by_district":
        return [{**row, **HIDDEN} for row in BY_DISTRICT]
    return []


def _declared(
    governance: sa.Engine, more: Sequence[Mapping[str, Any]]
) -> tuple[Registry, Directory, Declarations, GrantStore]:
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
    return registry, directory, declarations, grants


def _kept() -> Kept:
    reasons = [{"field": "licence_term_id", "expected": "a whole number", "received": "nothing"}]
    entry = Quarantined("publish", "market.business_licence", reasons, None, None, None, 9_103, None, None)
    return Kept(1, 1_700_000_000_000, entry)


@contextlib.contextmanager
def served(
    database_url: str,
    opa_binary: Path,
    folder: Path,
    *,
    complaints: int = 2_000,
    timeout_s: float = 5.0,
    demo: bool = True,
    kafka: KafkaConnection | None = None,
    more: Sequence[Mapping[str, Any]] = (),
    extend: Callable[[Parts], Parts] = lambda parts: parts,
    routers: Sequence[APIRouter] = (),
) -> Iterator[World]:
    """The world on a free loopback port, until the block ends. ``more``: further views to declare; ``extend``: adds
    parts of one's own; ``routers``: of further audiences."""
    signing, tokens = (
        pem_pair(ec.generate_private_key(ec.SECP256R1())),
        pem_pair(ed25519.Ed25519PrivateKey.generate()),
    )
    governance = open_database(database_url, "governance")
    views = open_database(database_url, "views", durable=False)
    store = ViewStore(views)
    registry, directory, declarations, grants = _declared(governance, more)
    with write(governance) as connection:
        revision = raise_revision(connection, "rules", dt.datetime.now(dt.UTC))
    current = shapes(declarations, registry.contracts())
    for shape in current.values():
        _fill(
            views,
            shape,
            _rows_of(shape, complaints),
            state="building" if shape.view.name == "weather_daily" else "live",
        )
    bundle = [build_bundle(POLICIES, revision, signing[0])]
    with running_opa(opa_binary, folder, bundle[0], signing[1]) as (opa, _):
        audit = AuditLog(governance)
        # a busy machine may take longer than the budget that the doors allow
        limits = Limits(budget=5.0, canary_good=10.0)
        decider = Decider(PolicyEngine(OpaClient(opa.url, timeout_s=5), limits=limits), grants, directory)
        nothing: Any = None  # administration has its own tests
        reader = open_reader(database_url, timeout_s=timeout_s)
        budget = Budget(BudgetStore(governance), b"for tests")
        door = QueryDoor(
            decider=decider,
            reader=reader,
            audit=audit,
            shapes=lambda: current,
            watch=Watch(store, time.monotonic),
            budget=budget,
            contacts=lambda department: directory.department(department).contact,
            mask_secret=b"for tests",
        )
        records = RecordReader(kafka or KafkaConnection("127.0.0.1:9", "nobody", "none"), timeout_s=5 if kafka else 0.5)
        parts = Parts(
            registry=registry,
            directory=directory,
            declarations=declarations,
            shapes=lambda: current,
            decider=decider,
            grants=grants,
            audit=audit,
            anchoring=Anchoring(audit, (), clock=lambda: dt.datetime.now(dt.UTC)),
            views=store,
            ask=nothing,
            door=door,
            exports=ExportDoor(door, reader=ExportReader(database_url), audit=audit),
            lineage=LineageDoor(door, decider=decider, reader=reader, audit=audit, records=records, versions=registry),
            minimal=MinimalDoor(door, reader=reader, audit=audit, budget=budget),
            verifier=Verifier(tokens[1]),
            issuer=Issuer(tokens[0]),
            bundle=lambda: (bundle[0], etag(bundle[0])),
            bundle_token=BUNDLE_TOKEN,
            quarantined=lambda: 1,
            governance=nothing,
            refusals=nothing,
            refused=lambda limit: [_kept()],
            report=nothing,
            credentials=nothing,
            demo=demo,
        )
        parts = extend(parts)
        with running(parts, routers) as url:
            yield World(url, parts, views, governance, opa, bundle)
        audit.close()
    views.dispose()
    governance.dispose()


@contextlib.contextmanager
def running(parts: Parts, routers: Sequence[APIRouter] = ()) -> Iterator[str]:
    """A real uvicorn over the parts, on a free loopback port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        app = create_app(parts, routers)
        config = uvicorn.Config(app, http=Patient, log_config=None, access_log=False, timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            url = f"http://127.0.0.1:{port}"
            _until_ready(url)
            yield url
        finally:
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


def _until_ready(url: str, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(f"{url}/health/ready", timeout=5).status_code == 200:
                return
        assert time.monotonic() < deadline, "the server did not become ready"
        time.sleep(0.05)
