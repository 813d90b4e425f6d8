"""OPA as a real process, and the server of its bundle."""

from __future__ import annotations

import contextlib
import http.server
import json
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization

from bus.access.bundle import etag

ROOT = Path(__file__).parents[2]
POLICIES = ROOT / "policies"


def pem_pair(key: Any) -> tuple[bytes, bytes]:
    """Private and public PEM of a key."""
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    """Waits for a condition to hold; fails the test when it never does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {condition}")


@dataclass
class BundleServer:
    """Serves `content` as OPA's bundle; counts what it served."""

    content: bytes
    port: int = field(default_factory=free_port)
    served: int = 0

    def __post_init__(self) -> None:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                tag = etag(outer.content)
                outer.served += 1
                fresh = self.headers.get("If-None-Match") == tag
                self.send_response(304 if fresh else 200)
                self.send_header("ETag", tag)
                body = b"" if fresh else outer.content
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Opa:
    """One OPA process that fetches its rules from a bundle server."""

    binary: Path
    folder: Path
    bundles: str
    public_pem: bytes
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, wait: bool = True) -> None:
        config = {
            "services": {"bus": {"url": self.bundles}},
            "keys": {"bus": {"algorithm": "ES256", "key": self.public_pem.decode()}},
            "bundles": {
                "rules": {
                    "service": "bus",
                    "resource": "/rules.tar.gz",
                    "polling": {"min_delay_seconds": 0, "max_delay_seconds": 1},
                    "signing": {"keyid": "bus"},
                }
            },
            "status": {"console": False},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.json").write_text(json.dumps(config))
        argv = [str(self.binary), "run", "--server", "--addr", f"127.0.0.1:{self.port}", "--skip-version-check"]
        argv += ["--log-level=error", "--config-file", str(self.folder / "config.json")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        wait_until(self.answers)
        if wait:
            wait_until(lambda: self.revision() is not None)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def answers(self) -> bool:
        try:
            self.get("/health")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return True

    def revision(self) -> str | None:
        bundles = self.get("/v1/data/bus/access/canary?provenance=true")["provenance"].get("bundles", {})
        return bundles.get("rules", {}).get("revision")

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running_opa(binary: Path, folder: Path, content: bytes, public_pem: bytes, **kwargs: Any) -> Iterator[Any]:
    """An OPA and its bundle server."""
    server = BundleServer(content)
    opa = Opa(binary, folder, f"http://127.0.0.1:{server.port}", public_pem)
    try:
        opa.start(**kwargs)
        yield opa, server
    finally:
        opa.kill()
        server.close()
