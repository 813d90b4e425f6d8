"""Reading a registry across HTTP: a real one behind a small server that can be stopped."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest
from contract_worlds import contract_of, field

from bus.contracts import registry_client
from bus.contracts.registry import Registry
from bus.contracts.registry_client import RegistryClient
from bus.errors import InvalidToken, NotFound, RegistryUnavailable, UnknownEntity
from bus.infra.database import open_database

FIRST = contract_of(field("a", "int"))
SECOND = contract_of(field("a", "int"), field("b", ["null", "string"], default=None))
SUBJECT = "dept.dept_a.thing-value"


class Server:
    """Confluent's paths over a `Registry`. ``broken``: what it answers instead, as (status, body)."""

    def __init__(self, registry: Registry, port: int = 0) -> None:
        self.registry = registry
        self.broken: tuple[int, bytes] | None = None
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                status, body = server.broken or server.answer(self.path)
                if self.headers["Authorization"] != "Bearer good":
                    status, body = 401, b'{"error_code": 40101}'
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/registry"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def answer(self, path: str) -> tuple[int, bytes]:
        try:
            return 200, json.dumps(self._found(unquote(path).removeprefix("/registry").strip("/").split("/"))).encode()
        except NotFound as error:
            return 404, json.dumps({"error_code": 40401, "message": str(error)}).encode()

    def _found(self, parts: list[str]) -> Any:
        match parts:
            case ["subjects"]:
                return self.registry.subjects()
            case ["subjects", subject, "versions"]:
                return self.registry.versions(subject)
            case ["subjects", subject, "versions", version]:
                wanted: Any = version if version == "latest" else int(version)
                number, schema_id, schema = self.registry.version_number(subject, wanted)
                return {"subject": subject, "version": number, "id": schema_id, "schema": json.dumps(schema)}
            case ["schemas", "ids", schema_id]:
                return {"schema": json.dumps(self.registry.schema(int(schema_id)))}
            case ["mode", subject]:
                newest = {found.subject: found for found in self.registry.contracts().values()}
                self.registry.versions(subject)
                return {"mode": "READWRITE", "retired": newest[subject].retired}
        raise AssertionError(parts)

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server(sqlite_url: str) -> Iterator[Server]:
    server = Server(Registry(open_database(sqlite_url, "governance")))
    yield server
    server.stop()


@pytest.fixture
def client(server: Server) -> Iterator[RegistryClient]:
    client = RegistryClient(server.url, lambda: "good")
    yield client
    client.close()


def test_it_reads_what_the_registry_has(server: Server, client: RegistryClient) -> None:
    """Every look-up answers as the registry itself does."""
    first, second = server.registry.register(FIRST), server.registry.register(SECOND)
    assert client.subjects() == [SUBJECT]
    assert client.versions(SUBJECT) == [1, 2]
    assert client.version(SUBJECT, 1) == (first.id, FIRST)
    assert client.version(SUBJECT, "latest") == (second.id, SECOND)
    assert client.schema(first.id) == FIRST
    assert client.ids("dept_a.Thing") == {first.id, second.id}
    assert client.contract("dept_a.thing") == server.registry.contract("dept_a.thing")


def test_a_schema_is_asked_for_once(server: Server, client: RegistryClient) -> None:
    """Ids never change their meaning, so a second look-up asks nobody."""
    schema_id = server.registry.register(FIRST).id
    client.schema(schema_id)
    asked = len(server.asked)
    client.schema(schema_id)
    assert len(server.asked) == asked


def test_new_ids_are_seen_at_once(server: Server, client: RegistryClient) -> None:
    """Who asks for ids has met an unknown one, so the answer is never from the cache."""
    first = server.registry.register(FIRST).id
    assert client.ids("dept_a.thing") == {first}
    second = server.registry.register(SECOND).id
    assert client.ids("dept_a.thing") == {first, second}


def test_a_new_contract_is_seen(server: Server, client: RegistryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest contract is asked for again after a moment, and is the same object while it is the same."""
    monkeypatch.setattr(registry_client, "FRESH_S", 0.0)
    server.registry.register(FIRST)
    known = client.contract("dept_a.thing")
    assert client.contract("dept_a.thing") is known
    server.registry.register(SECOND)
    assert client.contract("dept_a.thing").schema == SECOND


def test_a_retired_contract_is_seen(server: Server, client: RegistryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its schema is the same, and yet it is another contract: publishers must hear of it."""
    monkeypatch.setattr(registry_client, "FRESH_S", 0.0)
    server.registry.register(FIRST)
    assert not client.contract("dept_a.thing").retired
    server.registry.retire("dept_a.thing")
    assert client.contract("dept_a.thing").retired
    assert client.contract("dept_a.thing").schema == FIRST


def test_what_is_known_survives_an_outage(
    server: Server, client: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known contracts and ids are answered, unknown ones raise `RegistryUnavailable`, never `NotFound` (F14)."""
    monkeypatch.setattr(registry_client, "FRESH_S", 0.0)
    schema_id = server.registry.register(FIRST).id
    client.contract("dept_a.thing")
    server.stop()
    assert client.contract("dept_a.thing").schema == client.schema(schema_id) == FIRST
    for unknown in (lambda: client.schema(99), lambda: client.contract("b.c"), lambda: client.ids("dept_a.thing")):
        with pytest.raises(RegistryUnavailable):
            unknown()


@pytest.mark.parametrize(
    "broken", [(404, b"<html>no such page</html>"), (404, b"{}"), (502, b"Bad gateway"), (500, b"{}"), (200, b"{")]
)
def test_only_the_registry_says_not_found(server: Server, client: RegistryClient, broken: tuple[int, bytes]) -> None:
    """A 404 of a proxy or of a wrong address is an outage: a good event must not go to quarantine for it."""
    server.broken = broken
    with pytest.raises(RegistryUnavailable):
        client.schema(1)


def test_not_found(client: RegistryClient) -> None:
    """What the registry says it does not know is `NotFound`; an entity is `UnknownEntity`."""
    with pytest.raises(NotFound):
        client.schema(99)
    for look_up in (client.contract, client.ids):
        with pytest.raises(UnknownEntity):
            look_up("dept_a.thing")


def test_a_refused_token(server: Server) -> None:
    """It says so, with what to do."""
    with pytest.raises(InvalidToken):
        RegistryClient(server.url, lambda: "bad").subjects()
