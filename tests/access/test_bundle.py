"""OPA takes the rules as the bus signs them, and no others."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from opa_process import POLICIES, pem_pair, running_opa, wait_until

from bus.access.bundle import SIGNATURES, build_bundle, etag, pack, policy_files
from bus.errors import SetupError

Keys = tuple[bytes, bytes]


def unpacked(bundle: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(bundle))) as archive:
        return {entry.name.lstrip("/"): archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]


def tampered(bundle: bytes, **changes: bytes | None) -> bytes:
    """The bundle with files replaced or taken away."""
    files: dict[str, bytes | None] = {**unpacked(bundle), **changes}
    return pack({name: content for name, content in files.items() if content is not None})


def test_opa_takes_the_signed_rules_and_their_next_revision(
    opa_binary: Path, tmp_path: Path, bundle_keys: Keys
) -> None:
    """The revision that OPA reports is the one that was signed, and follows the next bundle."""
    first = build_bundle(POLICIES, 7, bundle_keys[0])
    with running_opa(opa_binary, tmp_path, first, bundle_keys[1]) as (opa, server):
        assert opa.revision() == "7"
        assert opa.get("/v1/data/bus/access/canary")["result"] is True
        server.content = build_bundle(POLICIES, 8, bundle_keys[0])
        wait_until(lambda: opa.revision() == "8")


@pytest.mark.parametrize("attack", ["edited rule", "edited revision", "added rule", "unsigned", "other key", "no rule"])
def test_opa_refuses_rules_that_were_not_signed_so(
    opa_binary: Path, tmp_path: Path, bundle_keys: Keys, attack: str
) -> None:
    """The rules that were in force stay, whatever is served."""
    good = build_bundle(POLICIES, 1, bundle_keys[0])
    name = "bus/access/access.rego"
    newer = build_bundle(POLICIES, 2, bundle_keys[0])
    served = {
        "edited rule": lambda: tampered(newer, **{name: policy_files(POLICIES)[name] + b"\nallow := true\n"}),
        "edited revision": lambda: tampered(good, **{".manifest": json.dumps({"revision": "2",
        "roots": ["bus"]}).encode()}),
        "added rule": lambda: tampered(newer, **{"bus/evil.rego": b"package bus.evil\nallow := true\n"}),
        "unsigned": lambda: tampered(newer, **{SIGNATURES: None}),
        "other key": lambda: build_bundle(POLICIES, 2, pem_pair(ec.generate_private_key(ec.SECP256R1()))[0]),
        "no rule": lambda: tampered(newer, **{name: None}),
    }[attack]()  # fmt: skip
    with running_opa(opa_binary, tmp_path, good, bundle_keys[1]) as (opa, server):
        server.content = served
        seen = server.served
        wait_until(lambda: server.served >= seen + 3)
        assert opa.revision() == "1"
        assert opa.get("/v1/data/bus/evil/allow") == {}
        assert opa.post("/v1/data/bus/access/allow", {"input": {}})["result"] is False


def test_an_opa_that_never_got_signed_rules_reports_none(opa_binary: Path, tmp_path: Path, bundle_keys: Keys) -> None:
    """Started on an unsigned bundle, it has no revision: `PolicyStale` at the doors."""
    unsigned = tampered(build_bundle(POLICIES, 1, bundle_keys[0]), **{SIGNATURES: None})
    with running_opa(opa_binary, tmp_path, unsigned, bundle_keys[1], wait=False) as (opa, server):
        wait_until(lambda: server.served >= 2)
        assert "result" not in opa.get("/v1/data/bus/access/allow")


def test_the_same_rules_make_the_same_files(bundle_keys: Keys) -> None:
    """Everything but the ES256 signature is equal byte for byte, and the tests stay at home."""
    first, second = (unpacked(build_bundle(POLICIES, 1, bundle_keys[0])) for _ in range(2))
    rules = {path.relative_to(POLICIES).as_posix() for path in POLICIES.rglob("*.rego")}
    assert set(first) == {".manifest", SIGNATURES, *(name for name in rules if not name.endswith("_test.rego"))}
    assert {**first, SIGNATURES: b""} == {**second, SIGNATURES: b""}
    assert etag(b"a") != etag(b"b")


def test_a_folder_without_rules_is_refused(tmp_path: Path) -> None:
    """An empty bundle would take every rule away."""
    with pytest.raises(SetupError):
        build_bundle(tmp_path, 1, b"")
