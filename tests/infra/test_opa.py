"""The local OPA gives decisions to those who hold its token, and takes rules from nowhere but the signed bundle."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bus.infra.stack import LocalStack, Secrets
from bus.infra.stack.opa import BUNDLE_KEY, BUNDLE_PATH, BUNDLE_TOKEN, OPA_TOKEN
from tests.conftest import DOWNLOADS, ROOT, eventually

RULE = (
    "package bus.access\n\ndefault allow := false\n\nallow if input.n > {limit}\n\ninclude if input.row.n > {limit}\n"
)
UCAST = "application/vnd.opa.ucast.all+json"


class BundleServer:
    """What the bus is to OPA: it hands out one file to whoever shows the token."""

    def __init__(self, port: int, token: str) -> None:
        self.content = b""
        self.refused = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.headers.get("Authorization") == f"Bearer {token}" and self.path == BUNDLE_PATH
                owner.refused += not known
                self.send_response(200 if known and owner.content else 404)
                self.end_headers()
                self.wfile.write(owner.content if known else b"")

            def log_message(self, *_: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Opa:
    """A running OPA and the means to ask it."""

    def __init__(self, url: str, secrets: Secrets, bundles: BundleServer, binary: Path) -> None:
        self.url = url
        self.secrets = secrets
        self.bundles = bundles
        self._binary = binary

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        anonymous: bool = False,
        accept: str = "application/json",
    ) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json", "Accept": accept}
        if not anonymous:
            headers["Authorization"] = f"Bearer {token or self.secrets.token(OPA_TOKEN)}"
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")

    def allow(self, number: int) -> object:
        return self.ask("POST", "/v1/data/bus/access/allow", {"input": {"n": number}})[1].get("result")

    def bundle(self, folder: Path, revision: int, limit: int, key: Path | None) -> bytes:
        """The rules as OPA's own tool packs them."""
        folder.mkdir(parents=True)
        (folder / "rule.rego").write_text(RULE.format(limit=limit))
        (folder / ".manifest").write_text(json.dumps({"revision": str(revision), "roots": ["bus"]}))
        target = folder.parent / f"{folder.name}.tar.gz"
        command = [str(self._binary), "build", "-b", str(folder), "-o", str(target)]
        if key is not None:
            command += ["--signing-alg", "ES256", "--signing-key", str(key)]
        subprocess.run(command, check=True)
        return target.read_bytes()


@pytest.fixture(scope="module")
def opa(tmp_path_factory: pytest.TempPathFactory, opa_binary: Path) -> Iterator[Opa]:
    """OPA as the stack starts it, with a first bundle already active."""
    stack = LocalStack(tmp_path_factory.mktemp("opa") / "home", kafka=False, downloads=DOWNLOADS)
    state = stack.up()
    assert state.opa is not None
    bundles = BundleServer(int(state.web.rpartition(":")[2]), stack.secrets.token(BUNDLE_TOKEN))
    opa = Opa(state.opa, stack.secrets, bundles, opa_binary)
    bundles.content = opa.bundle(tmp_path_factory.mktemp("first") / "b", 1, 1, stack.secrets.ensure_key(BUNDLE_KEY))
    eventually(lambda: opa.allow(2) is True)
    yield opa
    bundles.close()
    stack.down()


def test_token_decides(opa: Opa) -> None:
    """A decision is for those who hold the token."""
    assert opa.allow(2) is True
    assert opa.allow(1) is False
    assert opa.ask("POST", "/v1/data/bus/access/allow", {"input": {"n": 2}}, anonymous=True)[0] == 401
    assert opa.ask("POST", "/v1/data/bus/access/allow", {"input": {"n": 2}}, token="wrong")[0] == 401


def test_filter_is_allowed(opa: Opa) -> None:
    """The Compile API answers for the bus's package, to those who hold the token."""
    body = {"input": {}, "unknowns": ["input.row"]}
    status, answer = opa.ask("POST", "/v1/compile/bus/access/include", body, accept=UCAST)
    assert (status, answer["result"]["query"]["operator"]) == (200, "gt")
    assert opa.ask("POST", "/v1/compile/bus/access/include", body, accept=UCAST, anonymous=True)[0] == 401


@pytest.mark.parametrize("anonymous", [True, False])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/policies/evil", "package bus.access\n\nallow := true\n"),
        ("DELETE", "/v1/policies/rules/rule.rego", None),
        ("PUT", "/v1/data/bus/access", {"allow": True}),
        ("PUT", "/v1/data/system/token_sha256", []),
        ("PATCH", "/v1/data/bus/access", [{"op": "add", "path": "/allow", "value": True}]),
        ("DELETE", "/v1/data/bus", None),
        ("POST", "/v1/query", {"query": "data"}),
        ("POST", "/v1/compile", {"query": "data.bus.access.allow"}),
        ("POST", "/v0/data/bus/access/allow", {}),
        ("POST", "/", {}),
        ("GET", "/v1/data", None),
        ("GET", "/v1/data/system", None),
        ("GET", "/v1/config", None),
        ("GET", "/metrics", None),
        ("POST", "/v1/data/bus/access", {}),
        ("POST", "/v1/data/system/token_sha256", {}),
        ("POST", "/v1/data/bus/access/../../system", {}),
        ("POST", "/v1/data/bus/access/%2e%2e/system", {}),
        ("POST", "/v1/data/bus/access/allow?explain=full", {}),
    ],
)
def test_nothing_else_is_permitted(opa: Opa, method: str, path: str, body: object, anonymous: bool) -> None:
    """Neither with the token nor without can rules or data be written, or more than decisions be read."""
    assert opa.ask(method, path, body, anonymous=anonymous)[0] == 401
    assert opa.allow(1) is False


def test_reading_what_is_loaded_is_permitted(opa: Opa) -> None:
    """Policies, status and health can be read with the token."""
    status, answer = opa.ask("GET", "/v1/policies")
    assert status == 200
    assert any("bus.access" in policy["raw"] for policy in answer["result"])
    assert opa.ask("GET", "/health?bundles=true")[0] == 200
    status, answer = opa.ask("GET", "/v1/status")
    assert (status, answer["result"]["bundles"]["rules"]["active_revision"]) == (200, "1")


def test_rules_change_only_by_a_bundle_signed_with_our_key(opa: Opa, tmp_path: Path) -> None:
    """Unsigned rules and rules signed by others are not activated; ours are, within seconds, with their revision."""
    stranger = Secrets(tmp_path / "stranger").ensure_key(BUNDLE_KEY)
    own = opa.secrets.ensure_key(BUNDLE_KEY)
    first = opa.bundles.content
    for name, key in (("unsigned", None), ("foreign", stranger)):
        opa.bundles.content = opa.bundle(tmp_path / name, 9, 0, key)
        eventually(lambda: "message" in _bundle_status(opa), what="the refusal")
        assert opa.allow(1) is False
        opa.bundles.content = first
        eventually(lambda: "message" not in _bundle_status(opa), what="the recovery")
    begun = time.monotonic()
    opa.bundles.content = opa.bundle(tmp_path / "next", 2, 5, own)
    eventually(lambda: opa.allow(3) is False)
    assert time.monotonic() - begun < 10
    _, answer = opa.ask("POST", "/v1/data/bus/access/allow?provenance=true", {"input": {"n": 6}})
    assert answer["provenance"]["bundles"]["rules"]["revision"] == "2"


def _bundle_status(opa: Opa) -> dict[str, Any]:
    return dict(opa.ask("GET", "/v1/status")[1]["result"]["bundles"]["rules"])


def test_opa_shows_its_token_when_it_fetches(opa: Opa) -> None:
    """The bundle is fetched with the token meant for it."""
    assert opa.bundles.refused == 0


def test_opa_guards_itself_by_its_own_tests(opa_binary: Path) -> None:
    """The policy that guards OPA passes its twin tests."""
    folder = ROOT / "bus" / "infra" / "stack"
    files = [str(folder / name) for name in ("authz.rego", "authz_test.rego")]
    subprocess.run([str(opa_binary), "check", "--strict", *files], check=True)
    subprocess.run([str(opa_binary), "test", *files], check=True)
