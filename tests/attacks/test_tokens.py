"""Forged and broken tokens (A19): each is 401 `invalid_token`, whatever is wrong with it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OKPKey, RSAKey

from bus.access.identity import Issuer, Verifier
from bus.errors import InvalidToken

CODECS = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
SPKI = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
KEY = ed25519.Ed25519PrivateKey.generate()
PRIVATE, PUBLIC = KEY.private_bytes(*CODECS), KEY.public_key().public_bytes(*SPKI)
RSA = rsa.generate_private_key(65537, 2048)
RSA_PUBLIC = RSA.public_key().public_bytes(*SPKI)
OUR, OUR_RSA = OKPKey.import_key(PRIVATE), RSAKey.import_key(RSA_PUBLIC)
KID = OUR.thumbprint()
VERIFIER = Verifier(PUBLIC, RSA_PUBLIC)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {"iss": "bus", "aud": "bus", "sub": "tax", "iat": now, "exp": now + 900} | changes
    return {name: value for name, value in made.items() if value is not ...}


def signed(payload: dict[str, Any], **header: Any) -> str:
    head = {"alg": "Ed25519", "kid": KID} | header
    return jwt.encode({name: value for name, value in head.items() if value is not ...}, payload, OUR, ["Ed25519"])


def raw(header: dict[str, Any], payload: dict[str, Any], key: bytes = b"") -> str:
    """A token put together by hand, with an HMAC or with no signature."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, payload)]
    signature = hmac.digest(key, b".".join(parts), hashlib.sha256) if key else b""
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def refused(header: str | None) -> str:
    with pytest.raises(InvalidToken) as raised:
        VERIFIER.subject(header)
    assert raised.value.status == 401
    assert raised.value.code == "invalid_token"
    return raised.value.detail


def test_the_valid_token_beside_them_is_accepted() -> None:
    """The near miss: the same helper makes a token that passes."""
    assert VERIFIER.subject(f"Bearer {signed(claims())}").department == "tax"


@pytest.mark.parametrize(
    "token",
    [
        raw({"alg": "none", "kid": KID}, claims()),
        raw({"alg": "None", "kid": KID}, claims()),
        raw({"alg": "HS256", "kid": OUR_RSA.thumbprint()}, claims(), RSA_PUBLIC),
        raw({"alg": "HS256", "kid": KID}, claims(), PUBLIC),
        raw({"kid": KID}, claims()),
        signed(claims(exp=int(time.time()) - 61)),
        signed(claims(exp=...)),
        signed(claims(exp="2099-01-01")),
        signed(claims(exp=True)),
        signed(claims(exp=None)),
        signed(claims(exp=10**30)),
        signed(claims(nbf=int(time.time()) + 600)),
        signed(claims(aud="other")),
        signed(claims(aud=...)),
        signed(claims(iss="other")),
        signed(claims(iss=...)),
        signed(claims(sub=...)),
        signed(claims(sub="")),
        signed(claims(sub="public")),
        signed(claims(sub="TAX")),
        signed(claims(sub=["tax"])),
        signed(claims(sub="../x")),
        signed(claims(sub='a"; allow := true')),
        signed(claims(sub="__proto__")),
        signed(claims(sub="a" * 64)),
        signed(claims(act="zhang")),
        signed(claims(act={"sub": ""})),
        signed(claims(act={"sub": "x\r\nSet-Cookie: a"})),
        signed(claims(act={"sub": "\x1b[2J"})),
        signed(claims(act={"sub": "a" * 201})),
        signed(claims(bus_attributes={"ward": [1]})),
        signed(claims(bus_attributes={"../ward": 1})),
        signed(claims(bus_attributes="ward")),
        signed(claims(), kid="../../etc/passwd"),
        signed(claims(), kid=...),
        signed(claims(), kid=OUR_RSA.thumbprint()),
        jwt.encode({"alg": "Ed25519", "kid": "evil"}, claims(), OKPKey.generate_key("Ed25519"), ["Ed25519"]),
        jwt.encode({"alg": "Ed25519", "kid": KID}, claims(), OKPKey.generate_key("Ed25519"), ["Ed25519"]),
        signed(claims(padding="a" * 9_000)),
        "a" * 100_000,
        "a.b.c",
        "..",
        "",
        "中.中.中",
        "[" * 5_000,
    ],
)
def test_a_token_that_is_not_ours_is_refused(token: str) -> None:
    """Algorithm, key, issuer, audience, expiry, subject and size are each checked."""
    refused(f"Bearer {token}")


@pytest.mark.parametrize("member", ["jku", "x5u", "jwk"])
def test_a_key_that_the_token_brings_along_is_not_used(member: str) -> None:
    """A header that names another key source changes nothing: without our `kid` it is refused."""
    evil = OKPKey.generate_key("Ed25519")
    value: Any = evil.as_dict(private=False) if member == "jwk" else "https://evil.example/keys"
    registry = jwt.JWSRegistry(algorithms=["Ed25519"], strict_check_header=False)
    header = {"alg": "Ed25519", "kid": KID, member: value}
    refused(f"Bearer {jwt.encode(header, claims(), evil, registry=registry)}")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dGF4Og==", "tax", "Bearer tax", "Token x"])
def test_a_header_without_a_token_is_refused(header: str | None) -> None:
    """Nothing but `Bearer TOKEN` names anybody."""
    refused(header)


def test_the_refusal_does_not_repeat_the_token() -> None:
    """What was sent is not shown again, only what to do."""
    detail = refused("Bearer s3cr3t-" + "a" * 50)
    assert "s3cr3t" not in detail
    assert "bus token" in detail


@given(position=st.integers(0, 10_000), replacement=st.sampled_from("AZaz09-_."))
def test_one_changed_character_is_enough(position: int, replacement: str) -> None:
    """No token that differs from a valid one in signed parts is accepted."""
    token = Issuer(PRIVATE).token("tax")
    index = position % (token.rindex("."))
    changed = token[:index] + replacement + token[index + 1 :]
    if changed != token:
        refused(f"Bearer {changed}")
