"""The local OPA: one process on loopback, every request authorised, rules only from the bus's signed bundle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bus.infra.stack.credentials import Secrets
from bus.infra.stack.files import private_folder, write_private
from bus.infra.stack.plan import Part
from bus.infra.stack.ports import LOOPBACK

OPA_TOKEN = "opa"  # noqa: S105
"""Name of the token that callers of OPA send, in `Secrets.token`."""
BUNDLE_TOKEN = "bundle"  # noqa: S105
"""Name of the token that OPA sends when it fetches the rules."""
BUNDLE_KEY = "bundle"
"""Name of the ES256 key that signs the rules, in `Secrets.ensure_key`."""
BUNDLE_KEY_ID = "bus"
BUNDLE_PATH = "/internal/bundles/rules.tar.gz"


@dataclass(frozen=True, slots=True)
class OpaServer:
    """Where the server keeps its files, what runs it, and its port; `web` is the URL that serves the bundle."""

    home: Path
    binary: Path
    port: int
    web: str

    @property
    def folder(self) -> Path:
        """Configuration and the policy that guards OPA itself."""
        return self.home / "opa"

    def configure(self, secrets: Secrets) -> str:
        """Write the configuration and return its digest."""
        private_folder(self.folder)
        contents = configuration(
            self.web,
            token=secrets.token(OPA_TOKEN),
            bundle_token_path=secrets.token_path(BUNDLE_TOKEN),
            public_key=secrets.public_key(BUNDLE_KEY).read_text(),
        )
        for name, content in contents.items():
            write_private(self.folder / name, content)
        return _sha256("\0".join(contents.values()))[:16]

    def part(self, version: str) -> Part:
        """The process."""
        argv = [str(self.binary), "run", "--server", "--addr", f"{LOOPBACK}:{self.port}"]
        argv += ["--authentication=token", "--authorization=basic", "--disable-telemetry", "--log-level=error"]
        argv += ["--config-file", str(self.folder / "config.json")]
        argv += [str(self.folder / "authz.rego"), str(self.folder / "data.json")]
        return Part("opa", tuple(argv), port=self.port, version=version)


def configuration(web: str, *, token: str, bundle_token_path: Path, public_key: str) -> dict[str, str]:
    """The files that an OPA of the bus starts with, by name: ``config.json``, ``authz.rego``, ``data.json``.

    `web` is the URL that serves the bundle, `token` what callers of OPA send (only its hash is written), and
    `bundle_token_path` the file, as OPA sees it, with the token that OPA sends to `web`.
    """
    return {
        "config.json": json.dumps(_config(web, bundle_token_path, public_key), indent=1),
        "authz.rego": resources.files("bus.infra.stack").joinpath("authz.rego").read_text(),
        "data.json": json.dumps({"system": {"token_sha256": [_sha256(token)]}}),
    }


def _config(web: str, bundle_token_path: Path, public_key: str) -> dict[str, object]:
    rules = {
        "service": "bus",
        "resource": BUNDLE_PATH,
        "polling": {"min_delay_seconds": 0, "max_delay_seconds": 1, "long_polling_timeout_seconds": 20},
        "signing": {"keyid": BUNDLE_KEY_ID},
    }
    return {
        "services": {"bus": {"url": web, "credentials": {"bearer": {"token_path": str(bundle_token_path)}}}},
        "keys": {BUNDLE_KEY_ID: {"algorithm": "ES256", "key": public_key}},
        "bundles": {"rules": rules},
        # without a status plugin there is no /v1/status; nothing is printed
        "status": {"console": False},
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
