"""Real OPA with a real signed bundle, and both databases."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from opa_process import POLICIES, ROOT, Opa, pem_pair, running_opa
from postgresql_process import running_postgresql

from bus.access.bundle import build_bundle
from bus.access.masks import register_functions
from bus.infra.database import open_database


@pytest.fixture(scope="session")
def opa_binary() -> str:
    """OPA from PATH, or where `BUS_TEST_OPA` says, or as the local stack built it."""
    found = os.environ.get("BUS_TEST_OPA") or shutil.which("opa") or str(ROOT / ".bus" / "bin" / "opa")
    if not Path(found).exists():
        pytest.fail("OPA 1.22+ is needed: put it on PATH or set BUS_TEST_OPA")
    return found


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
    opa_binary: str, tmp_path_factory: pytest.TempPathFactory, bundle_keys: tuple[bytes, bytes]
) -> Iterator[Opa]:
    """One OPA with the bus's rules at revision 1, for tests that leave it as it is."""
    bundle = build_bundle(POLICIES, 1, bundle_keys[0])
    with running_opa(opa_binary, tmp_path_factory.mktemp("opa"), bundle, bundle_keys[1]) as (opa, _):
        yield opa


@pytest.fixture
def governance(tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty governance database on SQLite."""
    engine = open_database(f"sqlite:///{tmp_path}", "governance")
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def access_postgresql() -> Iterator[str]:
    """The URL of a throw-away PostgreSQL."""
    with running_postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)], scope="session")
def views_engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Engine]:
    """A views database, on each of the two."""
    postgresql = request.param == "postgresql"
    url = request.getfixturevalue("access_postgresql") if postgresql else f"sqlite:///{tmp_path_factory.mktemp('views')}"
    engine = open_database(url, "views", durable=False)
    register_functions(engine)
    yield engine
    engine.dispose()
