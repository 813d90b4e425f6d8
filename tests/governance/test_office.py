"""The office over HTTP as staff and departments reach it: declassifying, open data, retiring contracts."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ruamel.yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI
from starlette.testclient import TestClient

from bus.access.identity import Issuer, Verifier
from bus.access.store import GrantStore
from bus.audit.log import AuditLog
from bus.contracts.directory import Directory, parse_department, parse_purpose
from bus.contracts.registry import Registry
from bus.governance.declassification import Declassifications
from bus.governance.office import Governance
from bus.infra.database import open_database
from bus.views.catalogue import Declarations
from bus.web import admin, problems, registry

SCHEMAS = Path(__file__).parents[2] / "schemas"
TODAY = dt.datetime.now(dt.UTC).date()
LEGAL_NAME = "market.business_licence.legal_name"
UNTOUCHED: Any = None


def yaml(path: str) -> Any:
    return ruamel.yaml.YAML(typ="safe").load(SCHEMAS / path)


class World:
    """The demo's contracts and views behind the HTTP API, without Kafka; ``announced``: what workers were told."""

    def __init__(self, url: str) -> None:
        engine = open_database(url, "governance")
        self.registry, directory, declarations = Registry(engine), Directory(engine), Declarations(engine)
        for path in sorted(SCHEMAS.glob("*/*.avsc")):
            self.registry.register(json.loads(path.read_text()))
        for document in yaml("departments.yaml"):
            directory.put_department(parse_department(document))
        for document in yaml("purposes.yaml"):
            directory.put_purpose(parse_purpose(document))
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.audit, self.announced = AuditLog(engine), list[str]()
        self.declassifications = Declassifications(engine, private, self.audit.append_sync)
        self.office = Governance(
            registry=self.registry,
            directory=directory,
            declarations=declarations,
            grants=GrantStore(engine),
            declassifications=self.declassifications,
            broker=UNTOUCHED,
            announce=self.announced.append,
        )
        self._issuer = Issuer(private)
        app = FastAPI()
        app.state.parts = SimpleNamespace(
            registry=self.registry, governance=self.office, verifier=Verifier(public), directory=directory
        )
        problems.install(app)
        app.include_router(admin.router)
        app.include_router(registry.router)
        self._client = TestClient(app)

    def send(self, method: str, path: str, body: Any = None, department: str | None = None) -> Any:
        """The answer's status and JSON, asked by an administrator or a department."""
        token = self._issuer.token(department or "governance", administrator=department is None)
        answer = self._client.request(method, path, json=body, headers={"Authorization": f"Bearer {token}"})
        return answer.status_code, answer.json() if answer.content else None

    def declare(self, name: str, **changes: Any) -> Any:
        return self.send("PUT", f"/v1/declarations/{name}", {**yaml(f"views/{name}.yaml"), **changes})

    def declassify(self, **changes: Any) -> Any:
        document = {
            "view": "food_business",
            "field": "legal_name",
            "source": LEGAL_NAME,
            "from": "conditional",
            "to": "open",
            "legal_basis": "Interim Regulation on Enterprise Information Disclosure, Article 6",
            "officer": "zhao.min@market",
            "approver": "wang.wei@governance",
            "valid_until": (TODAY + dt.timedelta(days=90)).isoformat(),
        }
        return self.send("POST", "/v1/declassifications", {"document": {**document, **changes}, "os_user": "root"})

    def publish(self, **changes: Any) -> Any:
        """Grants columns of `food_business` to everybody."""
        grant = {
            "id": "public-food-business",
            "consumer": "public",
            "view": "food_business",
            "purpose": "open_data",
            "channels": ["query"],
            "fields": ["licence_number", "legal_name"],
            "valid": {"from": TODAY.isoformat(), "to": TODAY.isoformat()},
            "legal_basis": "Open Government Information Regulation",
        }
        document = {"author": "li.na", "approver": "wang.wei", "grants": [{**grant, **changes}]}
        return self.send("PUT", "/v1/grants/sets/public", {"document": document, "os_user": "root"})


@pytest.fixture
def world(sqlite_url: str) -> Any:
    world = World(sqlite_url)
    assert world.declare("food_business") == (200, {"view": "food_business", "changed": True})
    yield world
    world.audit.close()


def opened(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {**fields, "legal_name": {**fields["legal_name"], "class": "open"}}


def test_the_only_way_around(world: World) -> None:
    """A view more open than its source is refused, at its place; signed for, it is taken; taken back, guarded again."""
    fields = opened(yaml("views/food_business.yaml")["fields"])
    status, refused = world.declare("food_business", fields=fields)
    assert (status, refused["code"], refused["places"]) == (422, "invalid_declaration", ["fields.legal_name.class"])
    for part in (LEGAL_NAME, "conditional", "data of market", "bus views declassify"):
        assert part in refused["problems"][0]
    status, signed = world.declassify()
    assert status == 201
    assert "demonstration-grade" in signed["notice"]
    assert "officer" in signed["notice"]
    assert world.declare("food_business", fields=fields)[0] == 200
    assert world.office.shapes()["food_business"].columns[1].classification == "open"
    listed = world.send("GET", "/v1/declassifications")[1]
    assert [(item["id"], item["state"]) for item in listed] == [(signed["id"], "in force")]
    body = {"officer": "qian.jin@market", "reason": "by mistake"}
    assert world.send("POST", f"/v1/declassifications/{signed['id']}/revoke", body)[0] == 204
    assert world.office.shapes()["food_business"].columns[1].classification == "conditional"
    assert world.declare("food_business", fields=fields)[0] == 422
    assert [entry.body["change"] for entry in world.audit.entries()] == ["applied", "revoked"]
    assert world.announced.count("views") == 4


def test_who_may_declassify(world: World) -> None:
    """Two people, of the owner and of governance, by an administrator's hand."""
    assert world.declassify(approver="Zhao.Min@governance")[1]["code"] == "four_eyes"
    assert "not of market" in world.declassify(officer="sun.li@food")[1]["detail"]
    for method, path in (("GET", "/v1/declassifications"), ("POST", "/v1/declassifications/x/revoke")):
        body = {"officer": "a", "reason": "b"} if method == "POST" else None
        assert world.send(method, path, body, "market")[0] == 403
    assert world.send("POST", "/v1/declassifications/x/revoke", {"officer": "a", "reason": "b"})[0] == 404


def test_open_data_is_open(world: World) -> None:
    """A grant to everybody of a column that is not open, or of rows chosen by one, is refused in the same words."""
    status, refused = world.publish()
    assert status == 422
    assert f"food_business.legal_name: would be open, but {LEGAL_NAME} is conditional" in refused["problems"][0]
    rows = {"field": "legal_name", "op": "prefix", "value": "A"}
    assert "data of market would leak" in world.publish(fields=["ward"], rows=rows)[1]["detail"]
    assert world.publish(fields=["ward"])[0] == 200
    assert world.declassify()[0] == 201
    assert world.publish()[0] == 200


def test_a_contract_that_views_read_is_not_retired(world: World) -> None:
    """The views are named; once they are gone it takes nothing more, and says so to whoever tries."""
    world.declare("inspection_history")
    status, refused = world.send("POST", "/v1/contracts/food.Inspection/retire", {}, "food")
    assert (status, refused["problems"]) == (422, ["food_business", "inspection_history"])
    for view in ("food_business", "inspection_history"):
        assert world.send("DELETE", f"/v1/declarations/{view}")[0] == 204
    assert world.send("POST", "/v1/contracts/food.inspection/retire", {}, "market")[0] == 403
    assert world.send("POST", "/v1/contracts/food.inspection/retire", {}, "food") == (
        200,
        {"id": "food.inspection", "retired": True},
    )
    assert world.announced[-1] == "contracts"
    subject = "dept.food.inspection-value"
    assert world.send("GET", f"/registry/mode/{subject}")[1] == {"mode": "READONLY", "retired": True}
    assert world.send("GET", "/registry/mode/dept.weather.daily-value")[1]["mode"] == "READWRITE"
    schema = (SCHEMAS / "food" / "inspection.avsc").read_text()
    status, again = world.send("POST", f"/registry/subjects/{subject}/versions", {"schema": schema})
    assert (status, again["code"]) == (409, "contract_retired")
    listed = {item["id"]: item["retired"] for item in world.send("GET", "/v1/contracts")[1]}
    assert [entity for entity, retired in listed.items() if retired] == ["food.inspection"]
    assert "is retired" in world.declare("inspection_history")[1]["detail"]


def test_a_view_that_another_looks_up_is_not_dropped(world: World) -> None:
    """The view that reads it is named, as are grants on it."""
    fields = {"ward": {"from": "business.ward"}, "licence_number": {"from": "inspection.licence_number"}}
    lookups = {"business": {"view": "food_business", "by": "licence_number"}}
    assert world.declare("inspection_history", fields=fields, lookups=lookups)[0] == 200
    assert "inspection_history" in world.send("DELETE", "/v1/declarations/food_business")[1]["detail"]
    assert world.send("DELETE", "/v1/declarations/inspection_history")[0] == 204
    assert world.publish(fields=["ward"])[0] == 200
    assert "public-food-business" in world.send("DELETE", "/v1/declarations/food_business")[1]["detail"]
