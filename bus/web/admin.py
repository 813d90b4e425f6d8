"""What staff and the command line change over HTTP: departments, purposes, views, grants.

Handlers are plain functions: they block on the database and the broker, so they run in the thread pool.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from pydantic import BaseModel, ConfigDict

from bus.contracts.directory import parse_department, parse_purpose
from bus.core.grants import Grant
from bus.errors import Invalid, NotFound
from bus.web.callers import Administrator, Caller, TheParts

router = APIRouter(prefix="/v1")

DEMONSTRATION = (
    "approval is demonstration-grade: author and approver are named in the file and differ, "
    "but nobody proved to be either"
)
Document = Annotated[dict[str, Any], Body()]


class Applied(BaseModel):
    """A set of grants, or a declassification, as the command line sends it."""

    model_config = ConfigDict(extra="forbid")
    document: dict[str, Any]
    os_user: str


class Revocation(BaseModel):
    """Who takes a grant back, and why."""

    model_config = ConfigDict(extra="forbid")
    officer: str
    reason: str


@router.get("/departments")
def list_departments(parts: TheParts, _: Caller) -> list[dict[str, Any]]:
    return [
        {
            "id": item.id,
            "title": item.title,
            "contact": item.contact,
            "suspended": item.suspended,
            "attributes": item.attributes,
        }
        for item in parts.directory.departments()
    ]


@router.post("/departments", status_code=201)
def add_department(parts: TheParts, _: Administrator, document: Document) -> dict[str, str]:
    department = parse_department(document)
    parts.governance.add_department(department)
    return {"id": department.id}


@router.get("/departments/{department}/credentials")
def credentials(parts: TheParts, _: Administrator, department: str) -> dict[str, str]:
    parts.directory.department(department)
    return parts.credentials(department)


@router.post("/purposes", status_code=201)
def add_purpose(parts: TheParts, _: Administrator, document: Document) -> dict[str, str]:
    purpose = parse_purpose(document)
    parts.governance.add_purpose(purpose)
    return {"id": purpose.id}


@router.get("/contracts")
def list_contracts(parts: TheParts, _: Caller) -> list[dict[str, Any]]:
    found = []
    for contract in parts.registry.contracts().values():
        version, schema_id, _schema = parts.registry.version_number(contract.subject, "latest")
        numbers = {"schema_id": schema_id, "version": version, "retired": contract.retired}
        found.append({"id": contract.id, "owner": contract.owner, "key": contract.key, **numbers})
    return found


@router.post("/contracts/{entity}/retire")
def retire_contract(parts: TheParts, asking: Caller, entity: str) -> dict[str, Any]:
    retired = parts.governance.retire_contract(entity, department=asking.department, administrator=asking.administrator)
    return {"id": retired.id, "retired": True}


@router.put("/declarations/{view}")
def apply_view(parts: TheParts, _: Administrator, view: str, document: Document) -> dict[str, Any]:
    if document.get("view") != view:
        raise Invalid(f"the document declares '{document.get('view')}', the address says '{view}'.")
    return {"view": view, "changed": parts.governance.apply_view(document).changed}


@router.post("/declarations/{view}/rebuild", status_code=202)
def rebuild_view(parts: TheParts, _: Administrator, view: str) -> dict[str, str]:
    return {"view": view, "request": parts.ask(view, "rebuild").id}


@router.post("/declarations/{view}/undo", status_code=202)
def undo_view(parts: TheParts, _: Administrator, view: str) -> dict[str, str]:
    return {"view": view, "request": parts.ask(view, "undo").id}


@router.delete("/declarations/{view}", status_code=204)
def drop_view(parts: TheParts, _: Administrator, view: str) -> None:
    parts.governance.drop_view(view)


@router.get("/declassifications")
def list_declassifications(parts: TheParts, _: Administrator) -> list[dict[str, Any]]:
    return parts.governance.declassifications()


@router.post("/declassifications", status_code=201)
def declassify(parts: TheParts, _: Administrator, applied: Applied) -> dict[str, str]:
    number = parts.governance.declassify(applied.document, os_user=applied.os_user)
    return {"id": number, "notice": DEMONSTRATION.replace("author", "officer")}


@router.post("/declassifications/{number}/revoke", status_code=204)
def reclassify(parts: TheParts, _: Administrator, number: str, revocation: Revocation) -> None:
    parts.governance.reclassify(number, officer=revocation.officer, reason=revocation.reason)


@router.get("/grants")
def list_grants(
    parts: TheParts,
    subject: Caller,
    consumer: str | None = None,
    after: str = "",
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
) -> list[dict[str, Any]]:
    """By id. Where there are as many as ``limit``, the next ones come ``after`` the last id."""
    wanted = consumer if subject.administrator else subject.department
    return [_grant(grant) for grant in parts.grants.all(consumer=wanted, after=after, limit=limit)]


@router.get("/grants/{grant_id}")
def show_grant(parts: TheParts, subject: Caller, grant_id: str) -> dict[str, Any]:
    grant = parts.grants.get(grant_id)
    if not subject.administrator and grant.consumer != subject.department:
        raise NotFound(what=f"grant '{grant_id}'")
    return _grant(grant)


@router.put("/grants/sets/{name}")
def apply_grants(parts: TheParts, _: Administrator, name: str, applied: Applied) -> dict[str, Any]:
    change = parts.governance.apply_grants(applied.document, default_name=name, os_user=applied.os_user)
    changed = {"added": change.added, "changed": change.changed, "revoked": change.revoked}
    return {**changed, "notice": DEMONSTRATION}


@router.post("/grants/{grant_id}/revoke", status_code=204)
def revoke(parts: TheParts, _: Administrator, grant_id: str, revocation: Revocation) -> None:
    parts.governance.revoke(grant_id, officer=revocation.officer, reason=revocation.reason)


def _grant(grant: Grant) -> dict[str, Any]:
    return {
        **grant.document,
        "id": grant.id,
        "set": grant.set,
        "channels": grant.channels,
        "valid": {"from": grant.valid_from.isoformat(), "to": grant.valid_to.isoformat()},
        "author": grant.author,
        "approver": grant.approver,
    }
