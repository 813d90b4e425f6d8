"""A certified OpenID provider as a process: npm's `oidc-provider`, installed from its lock file when it is missing."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
from joserfc.jwk import ECKey

from bus.infra.stack.files import locked
from tests.conftest import DOWNLOADS, eventually

FOLDER = Path(__file__).with_name("oidc_provider")
SYSTEM = ("tax", "secret-of-tax")
PORTAL = ("portal", "secret-of-portal")


def signing_key(kid: str) -> dict[str, Any]:
    """A P-256 key as the provider takes it."""
    key = ECKey.generate_key("P-256", parameters={"kid": kid, "use": "sig", "alg": "ES256"})
    return dict(key.as_dict(private=True))


@contextlib.contextmanager
def running_provider(port: int, keys: list[Mapping[str, Any]], redirect: str, folder: Path) -> Iterator[str]:
    """The provider's issuer while it runs. It signs with the first of ``keys`` that fits."""
    with locked(DOWNLOADS / "oidc.lock"):
        if not (FOLDER / "node_modules" / ".package-lock.json").exists():
            subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=FOLDER, check=True, capture_output=True)
    written, log = folder / "keys.json", folder / "provider.log"
    written.write_text(json.dumps({"keys": keys}))
    with log.open("wb") as output:
        command = ["node", "provider.mjs", str(port), str(written), redirect]
        process = subprocess.Popen(command, cwd=FOLDER, stdout=output, stderr=output)
        try:
            eventually(lambda: b"ready" in log.read_bytes(), what="the provider")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def system_token(issuer: str) -> str:
    """What the tax office's system gets by its client credentials."""
    answer = httpx2.post(f"{issuer}/token", data={"grant_type": "client_credentials"}, auth=SYSTEM, timeout=20)
    return str(answer.json()["access_token"])
