"""A registry across HTTP: the bus's own or any that speaks Confluent's REST API, read with a cache.

What was read once by its id or version never changes, so it is kept for good; what is newest is asked again after
`FRESH_S`. While the registry is down, what is known goes on being answered (F14).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import httpx2

from bus.core.contracts import Contract, Json, parse_contract
from bus.core.names import entity_id, subject_of
from bus.errors import InvalidToken, NotFound, RegistryUnavailable, UnknownEntity

FRESH_S: Final = 1.0
_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest version of a subject and the ids of all of them, as of a moment of the monotonic clock."""

    read_at: float
    contract: Contract
    ids: frozenset[int]


class RegistryClient:
    """Reads a registry. ``url`` ends before ``/subjects``; ``token`` gives a bearer token. Safe for several threads.

    Every method raises `RegistryUnavailable` when the registry does not answer and nothing is known; `NotFound` (or
    `UnknownEntity`) only when the registry itself says so, never for a 404 of something else on the way.
    """

    def __init__(self, url: str, token: Callable[[], str]) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._client = httpx2.Client(timeout=_TIMEOUT_S, trust_env=False)
        self._lock = threading.Lock()
        self._schemas: dict[int, Json] = {}
        self._version_ids: dict[tuple[str, int], int] = {}
        self._newest: dict[str, _Newest] = {}

    def schema(self, schema_id: int) -> Json:
        """The schema with this id."""
        known = self._schemas.get(schema_id)
        if known is None:
            known = _parsed(self._get(f"/schemas/ids/{schema_id}", f"schema {schema_id}"))
            self._schemas[schema_id] = known
        return known

    def subjects(self) -> list[str]:
        """All subjects, sorted."""
        return sorted(map(str, self._get("/subjects", "registry")))

    def versions(self, subject: str) -> list[int]:
        """The versions of a subject, oldest first."""
        return sorted(map(int, self._get(f"/subjects/{subject}/versions", f"subject {subject}")))

    def version(self, subject: str, version: int | Literal["latest"]) -> tuple[int, Json]:
        """The schema id and the schema of one version."""
        answer = self._get(f"/subjects/{subject}/versions/{version}", f"version {version} of {subject}")
        schema_id = int(answer["id"])
        self._schemas.setdefault(schema_id, _parsed(answer))
        self._version_ids[subject, int(answer["version"])] = schema_id
        return schema_id, self._schemas[schema_id]

    def ids(self, entity: str) -> frozenset[int]:
        """The ids of all versions of an entity's contract, asked anew each time: who asks has met an id that he does
        not know, and an old answer would call a good event foreign."""
        name = entity_id(entity)
        with self._lock:
            return self._fresh(name, self._newest.get(name)).ids

    def contract(self, entity: str) -> Contract:
        """The newest contract of ``department.entity``."""
        return self._entity(entity).contract

    def close(self) -> None:
        """Gives the connections back."""
        self._client.close()

    def _entity(self, entity: str) -> _Newest:
        name = entity_id(entity)
        known = self._newest.get(name)
        if known is not None and time.monotonic() - known.read_at < FRESH_S:
            return known
        with self._lock:
            try:
                return self._fresh(name, known)
            except RegistryUnavailable:
                if known is None:
                    raise
                self._newest[name] = _Newest(time.monotonic(), known.contract, known.ids)
                return self._newest[name]

    def _fresh(self, name: str, known: _Newest | None) -> _Newest:
        try:
            self._newest[name] = self._read_newest(name, known)
        except NotFound as error:
            raise UnknownEntity(entity=name) from error
        return self._newest[name]

    def _read_newest(self, name: str, known: _Newest | None) -> _Newest:
        subject, read_at = subject_of(name), time.monotonic()
        versions = self.versions(subject)
        if not versions:
            raise NotFound(what=f"version of {subject}")
        ids = frozenset(self._id_of(subject, version) for version in versions)
        schema = self.schema(self._id_of(subject, versions[-1]))
        retired = self._is_retired(subject)
        # The same object as before while the schema is the same: users cache what they derive by it.
        same = known is not None and known.contract.schema is schema and known.contract.retired is retired
        contract = known.contract if known and same else replace(parse_contract(schema), retired=retired)
        return _Newest(read_at, contract, ids)

    def _is_retired(self, subject: str) -> bool:
        """Whether the bus's own registry says so beside the subject's mode; others know no such thing."""
        try:
            answer = self._get(f"/mode/{subject}", f"mode of {subject}")
        except NotFound:
            return False
        return isinstance(answer, dict) and answer.get("retired") is True

    def _id_of(self, subject: str, version: int) -> int:
        known = self._version_ids.get((subject, version))
        return known if known is not None else self.version(subject, version)[0]

    def _get(self, path: str, what: str) -> Any:
        try:
            answer = self._client.get(self._url + path, headers={"Authorization": f"Bearer {self._token()}"})
            body = answer.json() if answer.content else None
        except (httpx2.HTTPError, OSError, ValueError) as error:
            raise RegistryUnavailable() from error
        if answer.status_code == httpx2.codes.OK:
            return body
        if answer.status_code == httpx2.codes.NOT_FOUND and _is_registrys(body):
            raise NotFound(what=what)
        if answer.status_code in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
            raise InvalidToken(why=f"the registry answered {answer.status_code}")
        raise RegistryUnavailable()


def _is_registrys(body: Any) -> bool:
    """Confluent's codes for what is not there: 40401 subject, 40402 version, 40403 schema."""
    return isinstance(body, dict) and str(body.get("error_code", "")).startswith("404")


def _parsed(answer: Any) -> Json:
    """The schema in an answer, which carries it as text."""
    try:
        document: Json = json.loads(answer["schema"])
    except (KeyError, TypeError, ValueError) as error:
        raise RegistryUnavailable() from error
    return document
