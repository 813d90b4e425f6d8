"""Names and texts that an administrator could be talked into."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from bus.contracts.directory import Department, parse_department
from bus.errors import BusError, Invalid, InvalidDeclaration
from bus.governance.office import Governance
from bus.infra.database import open_database
from bus.infra.stack.kafka import ADMINISTRATOR

UNTOUCHED: Any = None


@pytest.mark.parametrize("name", [ADMINISTRATOR, "worker", "controller", "broker", "streams"])
def test_no_department_takes_a_name_of_the_bus(name: str) -> None:
    """It would be given the password of the bus's own principal."""
    office = Governance(
        registry=UNTOUCHED,
        directory=UNTOUCHED,
        declarations=UNTOUCHED,
        grants=UNTOUCHED,
        declassifications=UNTOUCHED,
        broker=UNTOUCHED,
        announce=UNTOUCHED,
    )
    with pytest.raises(Invalid, match=name):
        office.add_department(Department(name, {"en": "Ours now"}, "x@y.example"))


@pytest.mark.parametrize(
    "change", [{"contact": ["a"]}, {"title": {"en": 5}}, {"title": {"en": None}}, {"title": {5: "x"}}]
)
def test_texts_of_a_department_are_texts(change: dict[str, Any]) -> None:
    """What pages and refusals show is text."""
    with pytest.raises(InvalidDeclaration):
        parse_department({"id": "lab", "title": {"en": "Lab"}, "contact": "a@b.example"} | change)


def test_errors_of_the_database_keep_values_to_themselves(database_url: str) -> None:
    """A failing statement is logged with its text, never with what was bound to it (A26, security model 11)."""
    engine = open_database(database_url, "views", durable=False)
    with pytest.raises((sa.exc.DBAPIError, BusError)) as raised, engine.connect() as connection:
        connection.execute(sa.text("SELECT * FROM nowhere WHERE name = :name"), {"name": "Zhang Wei"})
    assert "nowhere" in str(raised.value)
    assert "Zhang Wei" not in str(raised.value)
