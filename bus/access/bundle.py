"""The rules as one signed bundle, as OPA fetches it.

Source of the format: openpolicyagent.org/docs/management-bundles, "Bundle File Format" and "Signing".
The same policies and revision give the same files byte for byte; only an ES256 signature differs.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from joserfc import jws

from bus.access.identity import algorithm, load_key
from bus.errors import SetupError

ROOTS: Final = ("bus",)
MANIFEST: Final = ".manifest"
SIGNATURES: Final = ".signatures.json"


def policy_files(policies: Path) -> dict[str, bytes]:
    """The Rego files that travel, by path below ``policies``; tests stay at home. Raises `SetupError` for none."""
    found = {
        path.relative_to(policies).as_posix(): path.read_bytes()
        for path in sorted(policies.rglob("*.rego"))
        if not path.name.endswith("_test.rego")
    }
    if not found:
        raise SetupError(why=f"there are no rules in {policies}", ways_out="restore the folder `policies`")
    return found


def content_hash(policies: Path) -> str:
    """One hash for the rules below the folder."""
    return hash_of(policy_files(policies))


def hash_of(files: Mapping[str, bytes]) -> str:
    """One hash for rule files by path: what revisions are told apart by."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def build_bundle(policies: Path, revision: int, private_pem: bytes, key_id: str = "bus") -> bytes:
    """A gzipped tar of the rules under ``policies`` with manifest and signature."""
    return sign_bundle(policy_files(policies), revision, private_pem, key_id)


def sign_bundle(rules: Mapping[str, bytes], revision: int, private_pem: bytes, key_id: str = "bus") -> bytes:
    """A gzipped tar of rule files, by path, with manifest and signature."""
    manifest = json.dumps({"revision": str(revision), "roots": list(ROOTS), "rego_version": 1}, sort_keys=True)
    files = {**rules, MANIFEST: manifest.encode()}
    signatures = {"signatures": [_signature(files, private_pem, key_id)]}
    return pack({**files, SIGNATURES: json.dumps(signatures).encode()})


def _signature(files: Mapping[str, bytes], private_pem: bytes, key_id: str) -> str:
    entries = [
        {"name": name, "hash": _hash(name, content), "algorithm": "SHA-256"} for name, content in sorted(files.items())
    ]
    key = load_key(private_pem)
    header = {"alg": algorithm(key), "typ": "JWT", "kid": key_id}
    payload = json.dumps({"files": entries, "keyid": key_id}, sort_keys=True).encode()
    return jws.serialize_compact(header, payload, key, algorithms=[header["alg"]])


def _hash(name: str, content: bytes) -> str:
    """Policies by their bytes, JSON by its canonical form (members sorted, no spaces), as OPA does."""
    if name == MANIFEST:
        content = json.dumps(json.loads(content), sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(content).hexdigest()


def pack(files: Mapping[str, bytes]) -> bytes:
    """A gzipped tar with sorted names and no times."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(f"/{name}")
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)


def etag(bundle: bytes) -> str:
    """A quoted entity tag for a bundle."""
    return f'"{base64.urlsafe_b64encode(hashlib.sha256(bundle).digest()[:18]).decode()}"'
