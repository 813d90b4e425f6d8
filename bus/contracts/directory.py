"""Who takes part and why data may be read: the registers of departments and purposes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy.engine import Engine

from bus.contracts import store
from bus.core.names import is_id, nearest
from bus.errors import InvalidDeclaration, UnknownDepartment
from bus.infra.database import translated_errors, write


@dataclass(frozen=True, slots=True)
class Department:
    """An organisation that publishes or reads. ``title``: by language (zh, en). Suspended: it may do neither."""

    id: str
    title: Mapping[str, str]
    contact: str
    suspended: bool = False
    legal_basis: str = ""
    attributes: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """What row conditions may read of the department, such as its district; goes before what a token says."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """What data may be read for, and the law that says so."""

    id: str
    title: Mapping[str, str]
    legal_basis: str


def parse_department(doc: Mapping[str, Any]) -> Department:
    """A department as ``departments.yaml`` lists it. Raises `InvalidDeclaration`."""
    _check(doc, {"id", "title", "contact", "legal_basis", "attributes"}, {"id", "title", "contact"})
    return Department(
        doc["id"],
        dict(doc["title"]),
        str(doc["contact"]),
        legal_basis=str(doc.get("legal_basis", "")),
        attributes=dict(doc.get("attributes") or {}),
    )


def parse_purpose(doc: Mapping[str, Any]) -> Purpose:
    """A purpose as ``purposes.yaml`` lists it. Raises `InvalidDeclaration`."""
    _check(doc, {"id", "title", "legal_basis"}, {"id", "title", "legal_basis"})
    return Purpose(doc["id"], dict(doc["title"]), str(doc["legal_basis"]))


def _check(doc: Mapping[str, Any], known: set[str], required: set[str]) -> None:
    problems = [f"'{name}' is missing." for name in sorted(required - set(doc))]
    problems += [f"'{name}' is not known here. {nearest(str(name), known)}" for name in sorted(set(doc) - known)]
    if "id" in doc and not is_id(doc["id"]):
        problems.append(f"'{doc['id']}' is not an id: [a-z][a-z0-9_]*, at most 63 characters.")
    if not isinstance(doc.get("title", {}), Mapping):
        problems.append("'title' has one text for each language, such as {zh: …, en: …}.")
    elif not all(isinstance(text, str) for text in (*doc.get("title", {}), *doc.get("title", {}).values())):
        problems.append("'title' has texts only.")
    problems += [
        f"'{name}' is a text." for name in ("contact", "legal_basis") if not isinstance(doc.get(name, ""), str)
    ]
    problems += _attribute_problems(doc.get("attributes"))
    if problems:
        raise InvalidDeclaration(count=len(problems), problems=" ".join(problems))


def _attribute_problems(attributes: Any) -> list[str]:
    if attributes is None:
        return []
    if not isinstance(attributes, Mapping):
        return ["'attributes' has one value for each name, such as {district: 7}."]
    return [
        f"attribute '{name}' is an id with a text, a finite number, true or false."
        for name, value in attributes.items()
        if not is_id(name)
        or not isinstance(value, str | int | float)
        or (isinstance(value, float) and not math.isfinite(value))
    ]


class Directory:
    """The registers on the governance database. Safe to use from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        with translated_errors():
            store.make_tables(engine)

    def put_department(self, department: Department) -> None:
        """Adds a department, or changes what is kept of it."""
        if not is_id(department.id):
            raise InvalidDeclaration(count=1, problems=f"'{department.id}' is not an id.")
        with translated_errors(), write(self._engine) as connection:
            store.put_department(connection, asdict(department))

    def department(self, department_id: str) -> Department:
        """Raises `UnknownDepartment`."""
        with translated_errors(), self._engine.connect() as connection:
            found = store.departments(connection, department_id)
        if not found:
            raise UnknownDepartment(department=department_id)
        return Department(**found[0])

    def departments(self) -> list[Department]:
        """All departments, by id."""
        with translated_errors(), self._engine.connect() as connection:
            return [Department(**values) for values in store.departments(connection)]

    def put_purpose(self, purpose: Purpose) -> None:
        """Adds a purpose, or changes its title or legal basis."""
        if not is_id(purpose.id):
            raise InvalidDeclaration(count=1, problems=f"'{purpose.id}' is not an id.")
        with translated_errors(), write(self._engine) as connection:
            store.put_purpose(connection, asdict(purpose))

    def purpose(self, purpose_id: str) -> Purpose | None:
        """None where the register has no such purpose."""
        return next((purpose for purpose in self.purposes() if purpose.id == purpose_id), None)

    def purposes(self) -> list[Purpose]:
        """All purposes, by id."""
        with translated_errors(), self._engine.connect() as connection:
            return [Purpose(**values) for values in store.purposes(connection)]
