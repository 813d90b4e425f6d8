"""Declassifications in the governance database: signed, verified each time, of no use once touched."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jws

from bus.access.identity import load_key
from bus.access.seals import Seal
from bus.core.columns import Column, Influence
from bus.core.contracts import Kind
from bus.errors import AuditUnavailable, InvalidDeclaration, NotFound
from bus.governance.declassification import KIND, Declassifications
from bus.governance.store import DECLASSIFICATIONS
from bus.infra.database import open_database

SOURCE = "market.licence.name"
DOC: dict[str, Any] = {
    "view": "business",
    "field": "name",
    "source": SOURCE,
    "from": "conditional",
    "to": "open",
    "legal_basis": "Open Government Information Regulation, Article 13",
    "officer": "zhao.min@market",
    "approver": "wang.wei@governance",
    "valid_until": "2026-12-31",
}
IN_FORCE = {("business", "name", SOURCE): ("conditional", "open")}


def pem() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


KEY = pem()


def columns(view: str) -> Mapping[str, Column] | None:
    made = (Influence("market.licence", "name", "market", "conditional", False, "value"),)
    return (
        {"name": Column("name", Kind.TEXT, True, {}, "conditional", False, made_of=made)}
        if view == "business"
        else None
    )


class World:
    """The office on a database, with what it recorded; ``now`` may be moved."""

    def __init__(self, url: str) -> None:
        self.engine = open_database(url, "governance")
        self.now = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
        self.audited: list[Mapping[str, Any]] = []
        self.office = self.with_key(KEY)

    def with_key(self, key: bytes) -> Declassifications:
        return Declassifications(self.engine, key, self.audited.append, clock=lambda: self.now)

    def apply(self, **changes: Any) -> str:
        return self.office.apply({**DOC, **changes}, columns, os_user="root")

    def write(self, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.update(DECLASSIFICATIONS).values(**values))

    def row(self) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(sa.select(DECLASSIFICATIONS)).one()


@pytest.fixture
def world(database_url: str) -> World:
    return World(database_url)


def test_one_is_in_force_until_its_last_day(world: World) -> None:
    """From the moment it is applied, recorded, and listed with its state."""
    number = world.apply()
    assert world.office.lowered() == IN_FORCE
    assert [(entry["change"], entry["id"], entry["officer"]) for entry in world.audited] == [
        ("applied", number, "zhao.min@market")
    ]
    assert world.office.all() == [{**DOC, "id": number, "state": "in force"}]
    world.now = dt.datetime(2026, 12, 31, 23, 59, tzinfo=dt.UTC)
    assert world.office.lowered() == IN_FORCE
    world.now = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
    assert world.office.lowered() == {}
    assert world.office.all()[0]["state"] == "ended on 2026-12-31"


def test_taken_back(world: World) -> None:
    """At once, recorded, and not to be had back by writing into the row."""
    number = world.apply()
    world.office.revoke(number, officer="qian.jin@market", reason="wrong field")
    assert world.office.lowered() == {}
    assert world.audited[-1]["change"] == "revoked"
    assert "wrong field" in world.office.all()[0]["state"]
    world.write(revoked="")
    assert world.office.lowered() == {}
    for unknown in (number, "nothing"):
        world.write(revoked="x")
        with pytest.raises(NotFound):
            world.office.revoke(unknown, officer="a", reason="b")
    assert world.apply() == number
    assert world.office.lowered() == IN_FORCE


def test_any_changed_byte_of_the_signed_text(world: World) -> None:
    """Whatever character is another, it does not count; the text as it was does."""
    world.apply()
    sealed = world.row().sealed
    for place in range(0, len(sealed), 7):
        world.write(sealed=sealed[:place] + ("A" if sealed[place] != "A" else "B") + sealed[place + 1 :])
        assert world.office.lowered() == {}, place
    for loose in (sealed[:-1] + chr(ord(sealed[-1]) + 1), sealed + "=", sealed + "A", sealed[:-1], "", "a.b.c", "é"):
        world.write(sealed=loose)
        assert world.office.lowered() == {}, loose
        assert world.office.all()[0]["state"] == "its signature does not verify"
    world.write(sealed=sealed)
    assert world.office.lowered() == IN_FORCE


@pytest.mark.parametrize("column", ["id", "view", "field", "source"])
def test_a_row_moved_elsewhere(world: World, column: str) -> None:
    """A true signature of another view, field or source is foreign."""
    world.apply()
    world.write(**{column: "another"})
    assert world.office.lowered() == {}
    assert world.office.all()[0]["state"] == "it was signed for something else"


def test_a_foreign_signature(world: World) -> None:
    """Of another key, of our key for another kind of record, of no key, or by another algorithm."""
    number = world.apply()
    record = {**DOC, "id": number, "at": "", "os_user": ""}
    key = load_key(KEY)
    plain = jws.serialize_compact({"alg": "ES256"}, b"{}", key, algorithms=["ES256"])
    header = base64.urlsafe_b64encode(b'{"alg": "none"}').rstrip(b"=").decode()
    none = f"{header}.{world.row().sealed.split('.')[1]}."
    for sealed in (Seal(pem(), KIND).sign(record), Seal(KEY, "JWT").sign(record), plain, none):
        world.write(sealed=sealed)
        assert world.office.lowered() == {}
    assert world.with_key(pem()).lowered() == {}
    world.write(sealed=Seal(KEY, KIND).sign(record))
    assert world.office.lowered() == IN_FORCE


def test_nothing_is_signed_that_is_not_sound_or_not_recorded(world: World) -> None:
    """A refused document leaves no row; nor does one whose record could not be written."""
    with pytest.raises(InvalidDeclaration, match="not of market"):
        world.apply(officer="zhao.min@food")
    with pytest.raises(InvalidDeclaration, match="there is no view"):
        world.apply(view="busines")

    def full(_entry: Mapping[str, Any]) -> None:
        raise AuditUnavailable()

    office = Declassifications(world.engine, KEY, full, clock=lambda: world.now)
    with pytest.raises(AuditUnavailable):
        office.apply(DOC, columns, os_user="root")
    assert office.all() == []
