"""The schema registry's HTTP API, as Confluent's clients speak it (subjects, versions, schemas by id)."""

from __future__ import annotations

from typing import Any, Literal

import orjson
from fastapi import APIRouter

from bus.errors import Invalid, InvalidSchema
from bus.web.callers import Caller, TheParts

router = APIRouter(prefix="/registry")
"""Reading needs a department's token, registering the owner's or an administrator's."""


@router.get("/subjects")
def subjects(parts: TheParts, _: Caller) -> list[str]:
    return parts.registry.subjects()


@router.get("/subjects/{subject}/versions")
def versions(parts: TheParts, _: Caller, subject: str) -> list[int]:
    return parts.registry.versions(subject)


@router.get("/subjects/{subject}/versions/{version}")
def version(parts: TheParts, _: Caller, subject: str, version: str) -> dict[str, Any]:
    number, schema_id, schema = parts.registry.version_number(subject, _version(version))
    return {"subject": subject, "version": number, "id": schema_id, "schema": _text(schema)}


@router.get("/mode/{subject}")
def mode(parts: TheParts, _: Caller, subject: str) -> dict[str, Any]:
    """Whether the subject takes new versions; ``retired``: nor does its topic take events."""
    parts.registry.versions(subject)
    retired = any(contract.retired for contract in parts.registry.contracts().values() if contract.subject == subject)
    return {"mode": "READONLY" if retired else "READWRITE", "retired": retired}


@router.get("/schemas/ids/{schema_id}")
def schema(parts: TheParts, _: Caller, schema_id: int) -> dict[str, str]:
    return {"schema": _text(parts.registry.schema(schema_id))}


@router.post("/subjects/{subject}/versions")
def register(parts: TheParts, asking: Caller, subject: str, submitted: dict[str, Any]) -> dict[str, int]:
    document = _document(submitted)
    registered = parts.governance.register_contract(
        document, subject=subject, department=asking.department, administrator=asking.administrator
    )
    return {"id": registered.id, "version": registered.version}


def _version(text: str) -> int | Literal["latest"]:
    if text in ("latest", "-1"):
        return "latest"
    if not text.isdecimal() or int(text) < 1:
        raise Invalid(f"'{text}' is not a version: a number from 1, or latest.")
    return int(text)


def _document(submitted: dict[str, Any]) -> dict[str, Any]:
    text = submitted.get("schema")
    if not isinstance(text, str) or submitted.get("schemaType", "AVRO") != "AVRO":
        raise InvalidSchema(why='send {"schema": "<the Avro schema as text>"}.')
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidSchema(why=f"line {error.lineno}: {error.msg}.") from error
    if not isinstance(document, dict):
        raise InvalidSchema(why="a contract is an Avro record.")
    return document


def _text(schema: Any) -> str:
    return orjson.dumps(schema).decode()
