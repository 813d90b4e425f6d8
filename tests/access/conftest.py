"""Real OPA with a real signed bundle, and both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from opa_process import POLICIES, Opa, pem_pair, running_opa

from bus.access.bundle import build_bundle
from bus.access.masks import register_functions
from bus.infra.database import open_database


@pytest.fixture(scope="session")
def bundle_keys() -> tuple[bytes, bytes]:
    """The ES256 key pair that signs the rules."""
    return pem_pair(ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="session")
def token_keys() -> tuple[bytes, bytes]:
    """An Ed25519 key pair for tokens."""
    return pem_pair(ed25519.Ed25519PrivateKey.generate())


@pytest.fixture(scope="session")
def shared_opa(
    opa_binary: Path, tmp_path_factory: pytest.TempPathFactory, bundle_keys: tuple[bytes, bytes]
) -> Iterator[Opa]:
    """One OPA with the bus's rules at revision 1, for tests that leave it as it is."""
    bundle = build_bundle(POLICIES, 1, bundle_keys[0])
    with running_opa(opa_binary, tmp_path_factory.mktemp("opa"), bundle, bundle_keys[1]) as (opa, _):
        yield opa


@pytest.fixture
def governance(sqlite_url: str) -> Iterator[sa.Engine]:
    """An empty governance database on SQLite."""
    engine = open_database(sqlite_url, "governance")
    yield engine
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)], scope="session")
def views_engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Engine]:
    """A views database, on each of the two."""
    url = f"sqlite:///{tmp_path_factory.mktemp('views')}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_cluster").url("postgres")
    engine = open_database(url, "views", durable=False)
    register_functions(engine)
    yield engine
    engine.dispose()
