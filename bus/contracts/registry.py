"""The register of contracts: each entity's schema, its versions, and the id that stands before every event."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from sqlalchemy.engine import Connection, Engine

from bus.contracts import store
from bus.contracts.compatibility import changed_meaning, check_compatible
from bus.contracts.structure import check_attributes, check_structure
from bus.core.contracts import Contract, Json, parse_contract
from bus.core.names import entity_id, subject_of
from bus.core.shares import is_share
from bus.errors import ContractRetired, IncompatibleSchema, InvalidSchema, NotFound, UnknownEntity
from bus.infra.database import translated_errors, write


class SchemaSource(Protocol):
    """What reads and writes events need of a registry; here or across HTTP (`registry_client`)."""

    def schema(self, schema_id: int, /) -> Json:
        """The schema with this id. Raises `NotFound` only when the registry says that there is none."""

    def ids(self, entity: str, /) -> frozenset[int]:
        """The ids of all versions of an entity's contract: what its topic may carry (A21)."""

    def contract(self, entity: str, /) -> Contract:
        """The newest contract of ``department.entity``. Raises `UnknownEntity`."""


@dataclass(frozen=True, slots=True)
class Registered:
    """The answer to a registration: the schema's id, its version in the subject, the contract it states."""

    id: int
    version: int
    contract: Contract


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """All that is registered at one revision."""

    revision: int
    schemas: Mapping[int, Json]
    versions: Mapping[str, tuple[tuple[int, int], ...]]
    contracts: Mapping[str, Contract]


class Registry:
    """The registry on the governance database. Safe to use from several threads and processes.

    Answers come from memory as long as the database's revision stays the same; a schema by its id never changes.
    """

    def __init__(self, engine: Engine, *, level: str = "BACKWARD") -> None:
        self._engine = engine
        self._level = level
        self._lock = threading.Lock()
        self._known = _Snapshot(-1, {}, {}, {})
        with translated_errors():
            store.make_tables(engine)

    def register(self, schema: Json, *, subject: str | None = None) -> Registered:
        """Adds a version to the contract's subject; the same schema again changes nothing.

        ``subject``: the contract's own (``dept.<department>.<entity>-value``) unless given, e.g. for ``share.`` topics.
        Raises `InvalidSchema`, `RecursiveSchema`, `ZeroSizeItems`, `OwnerMissing`, `IncompatibleSchema`,
        `ContractRetired`.
        """
        contract = checked_contract(schema)
        subject = subject or contract.subject
        if subject.startswith("dept.") and subject != contract.subject:
            raise InvalidSchema(why=f"it states the contract of {contract.subject}, not of {subject}.")
        with translated_errors(), write(self._engine) as connection:
            store.lock(connection)
            if contract.id in store.retired(connection):
                raise ContractRetired(entity=contract.id, owner=contract.owner)
            schema_id, version = self._add(connection, subject, schema)
        return Registered(schema_id, version, contract)

    def register_share(self, subject: str, schema: Json) -> int:
        """The id of the schema of a consumer's stream, added to its subject where it is new there. It is no contract:
        a grant that changes says what it is, whatever it was before, so nothing is compared. Raises `InvalidSchema` for
        a subject that is no stream's."""
        if not is_share(subject):
            raise InvalidSchema(why=f"{subject} is no stream's subject.")
        with translated_errors(), self._engine.connect() as connection:
            if (known := _known_id(connection, subject, schema)) is not None:
                return known
        with translated_errors(), write(self._engine) as connection:
            store.lock(connection)
            if (known := _known_id(connection, subject, schema)) is not None:
                return known
            versions = store.subject_versions(connection, subject)
            document = canonical(schema)
            schema_id = store.schema_id_of(connection, _fingerprint(document), document)
            if schema_id in (number for _, number in versions):
                store.drop_version(connection, subject, schema_id)  # it is the newest again
            store.add_version(connection, subject, versions[-1][0] + 1 if versions else 1, schema_id)
            store.raise_revision(connection)
        return schema_id

    def retire(self, entity: str) -> Contract:
        """From now on the contract takes no new version, and publishers refuse its events. Topic and data stay.
        Harmless when repeated. Raises `UnknownEntity`."""
        contract = self.contract(entity)
        with translated_errors(), write(self._engine) as connection:
            store.lock(connection)
            store.retire(connection, contract.id)
            store.raise_revision(connection)
        return replace(contract, retired=True)

    def _add(self, connection: Connection, subject: str, schema: Json) -> tuple[int, int]:
        document = canonical(schema)
        schema_id = store.schema_id_of(connection, _fingerprint(document), document)
        versions = store.subject_versions(connection, subject)
        for version, known in versions:
            if known == schema_id:
                return schema_id, version
        self._check(connection, subject, versions, schema)
        version = versions[-1][0] + 1 if versions else 1
        store.add_version(connection, subject, version, schema_id)
        store.raise_revision(connection)
        return schema_id, version

    def _check(self, connection: Connection, subject: str, versions: list[tuple[int, int]], schema: Json) -> None:
        """The level of compatibility with the newest version; the same meaning as every version, since
        topics keep the events of all of them."""
        for version, schema_id in reversed(versions):
            old = json.loads(store.schema_document(connection, schema_id) or "{}")
            whole = version == versions[-1][0] or self._level.endswith("_TRANSITIVE")
            problems = check_compatible(old, schema, self._level) if whole else changed_meaning(old, schema)
            if problems:
                raise IncompatibleSchema(subject=subject, version=version, why="; ".join(problems))

    def schema(self, schema_id: int) -> Json:
        """The schema with this id. Raises `NotFound`."""
        known = self._known.schemas.get(schema_id) or self._snapshot().schemas.get(schema_id)
        if known is None:
            raise NotFound(what=f"schema {schema_id}")
        return known

    def subjects(self) -> list[str]:
        """All subjects, sorted."""
        return sorted(self._snapshot().versions)

    def versions(self, subject: str) -> list[int]:
        """The versions of a subject, oldest first. Raises `NotFound`."""
        return [version for version, _ in self._versions(subject)]

    def version(self, subject: str, version: int | Literal["latest"]) -> tuple[int, Json]:
        """The schema id and the schema of one version. Raises `NotFound`."""
        return self.version_number(subject, version)[1:]

    def version_number(self, subject: str, version: int | Literal["latest"]) -> tuple[int, int, Json]:
        """The version as a number, the schema id and the schema. Raises `NotFound`."""
        versions = self._versions(subject)
        wanted = versions[-1][0] if version == "latest" else version
        for number, schema_id in versions:
            if number == wanted:
                return number, schema_id, self.schema(schema_id)
        raise NotFound(what=f"version {version} of {subject}")

    def version_of(self, subject: str, schema_id: int) -> int | None:
        """Which version of the subject a schema is; None if it is none of it. Raises `NotFound`."""
        return next((number for number, known in self._versions(subject) if known == schema_id), None)

    def ids(self, entity: str) -> frozenset[int]:
        """The ids of all versions of an entity's contract. Raises `UnknownEntity`."""
        versions = self._snapshot().versions.get(subject_of(entity_id(entity)))
        if versions is None:
            raise UnknownEntity(entity=entity)
        return frozenset(schema_id for _, schema_id in versions)

    def contract(self, entity: str) -> Contract:
        """The newest contract of ``department.entity``. Raises `UnknownEntity`."""
        contract = self._snapshot().contracts.get(entity_id(entity))
        if contract is None:
            raise UnknownEntity(entity=entity)
        return contract

    def contracts(self) -> dict[str, Contract]:
        """The newest contract of each entity, by entity id."""
        return dict(self._snapshot().contracts)

    def revision(self) -> int:
        """Raised by every registration of something new."""
        with translated_errors(), self._engine.connect() as connection:
            return store.revision(connection)

    def _versions(self, subject: str) -> tuple[tuple[int, int], ...]:
        versions = self._snapshot().versions.get(subject)
        if versions is None:
            raise NotFound(what=f"subject {subject}")
        return versions

    def _snapshot(self) -> _Snapshot:
        with translated_errors(), self._engine.connect() as connection:
            current = store.revision(connection)
            if current == self._known.revision:
                return self._known
            # The revision was read first, so what is read now is at least as new; the next call notices more.
            loaded = _load(connection, current, self._known)
        with self._lock:
            if loaded.revision > self._known.revision:  # a slower thread never takes back what a faster one read
                self._known = loaded
            return loaded


def _load(connection: Connection, revision: int, known: _Snapshot) -> _Snapshot:
    documents = store.all_schemas(connection)
    schemas = {number: known.schemas.get(number) or json.loads(text) for number, text in documents.items()}
    versions: dict[str, tuple[tuple[int, int], ...]] = {}
    for subject, version, schema_id in store.all_versions(connection):
        versions[subject] = (*versions.get(subject, ()), (version, schema_id))
    parsed = (parse_contract(schemas[pairs[-1][1]]) for name, pairs in versions.items() if name.startswith("dept."))
    retired = store.retired(connection)
    contracts = (replace(contract, retired=contract.id in retired) for contract in parsed)
    return _Snapshot(revision, schemas, versions, {contract.id: contract for contract in contracts})


def _known_id(connection: Connection, subject: str, schema: Json) -> int | None:
    """The id of the subject's newest version where it is this schema."""
    versions = store.subject_versions(connection, subject)
    newest = versions[-1][1] if versions else None
    same = newest is not None and store.schema_document(connection, newest) == canonical(schema)
    return newest if same else None


def _fingerprint(document: str) -> str:
    return hashlib.sha256(document.encode()).hexdigest()


def checked_contract(schema: Json) -> Contract:
    """The contract that a schema states, after every check that a registration makes on it alone."""
    check_structure(schema)
    contract = parse_contract(schema)
    check_attributes(contract)
    return contract


def canonical(schema: Any) -> str:
    """A schema as one text, whatever the order of its attributes or the way a plain type is spelled."""
    return json.dumps(_normal(schema), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _normal(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        if set(schema) == {"type"} and isinstance(schema["type"], str):
            return schema["type"]
        return {key: _normal(value) for key, value in schema.items()}
    return [_normal(item) for item in schema] if isinstance(schema, list | tuple) else schema
