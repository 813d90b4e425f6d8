"""Passwords, tokens and signing keys of the local stack: generated at first use, kept 0600 in a 0700 folder."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bus.infra.stack.files import locked, private_folder, write_private

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
TOKEN_BYTES = 32


class Secrets:
    """The secrets under ``<home>/secrets``. Names match ``[a-z][a-z0-9_-]{0,62}``; a value never changes."""

    def __init__(self, home: Path) -> None:
        self.folder = home.resolve() / "secrets"

    def kafka_password(self, principal: str) -> str:
        """The SCRAM password of `principal`."""
        return self._text(f"kafka-{_checked(principal)}.password")

    def token(self, name: str) -> str:
        """A bearer token of 256 bits, as URL-safe text."""
        return self._text(f"{_checked(name)}.token")

    def token_path(self, name: str) -> Path:
        """The file that holds `token(name)` and nothing else."""
        self.token(name)
        return self.folder / f"{name}.token"

    def ensure_key(self, name: str) -> Path:
        """The PEM file (PKCS 8) of an ES256 private key; its public key is beside it, see `public_key`."""
        private = self.folder / f"{_checked(name)}.pem"
        with locked(self.folder / ".lock"):
            if not private.exists():
                key = ec.generate_private_key(ec.SECP256R1())
                write_private(self._public_path(name), _public_pem(key))
                # the private key last: who finds it also finds the public one
                write_private(private, _private_pem(key))
        return private

    def public_key(self, name: str) -> Path:
        """The PEM file of the public key that belongs to `ensure_key(name)`."""
        self.ensure_key(name)
        return self._public_path(name)

    def _public_path(self, name: str) -> Path:
        return self.folder / f"{name}.pub.pem"

    def _text(self, filename: str) -> str:
        path = private_folder(self.folder) / filename
        if not path.exists():
            with locked(self.folder / ".lock"):
                if not path.exists():
                    write_private(path, secrets.token_urlsafe(TOKEN_BYTES))
        return path.read_text()


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' cannot name a secret: it must match {_NAME.pattern}")
    return name


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
