"""What may follow what: Avro's rules, and those that Avro does not have (E20, F13)."""

from __future__ import annotations

from typing import Any

import pytest
from contract_worlds import COLOUR, MICROS, MILLIS, contract_of, field

from bus.contracts.compatibility import check_compatible


def _money(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def _enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "Colour", "symbols": list(symbols), **more}


def _problems(old: Any, new: Any, level: str = "BACKWARD") -> list[str]:
    return check_compatible(contract_of(field("f", old)), contract_of(field("f", new)), level)


REFUSED = [
    (_money(8, 2), _money(8, 4)),
    (_money(8, 2), _money(9, 2)),
    (_money(8, 2), "bytes"),
    (["null", _money(8, 2)], ["null", _money(8, 4)]),
    ({"type": "array", "items": MILLIS}, {"type": "array", "items": MICROS}),
    (["null", "string", MILLIS], ["null", "string", MICROS]),
    (MILLIS, MICROS),
    ("long", MICROS),
    (MICROS, "long"),
    (COLOUR, _enum("RED", "GREEN")),
    (COLOUR, _enum("RED", "GREEN", default="RED")),
    ("string", "long"),
    ("long", "int"),
    (["null", "string"], "string"),
]
ACCEPTED = [
    (_money(8, 2), _money(8, 2)),
    (_money(8, 2), ["null", _money(8, 2)]),
    (COLOUR, _enum("RED", "GREEN", "BLUE", "BLACK")),
    ("int", "long"),
    ("string", ["null", "string"]),
    (MILLIS, ["null", MILLIS]),
]


@pytest.mark.parametrize(("old", "new"), REFUSED, ids=str)
def test_changes_that_break_readers(old: Any, new: Any) -> None:
    """Each is refused, naming the field."""
    problems = _problems(old, new)
    assert problems
    assert all("'f" in problem for problem in problems)


@pytest.mark.parametrize(("old", "new"), ACCEPTED, ids=str)
def test_changes_that_do_not(old: Any, new: Any) -> None:
    """Near misses of the above pass."""
    assert _problems(old, new) == []


def test_a_new_field_needs_a_default() -> None:
    """Old events do not have it; with a default they can be read."""
    old = contract_of(field("f", "int"))
    assert check_compatible(old, contract_of(field("f", "int"), field("g", "int")))
    assert check_compatible(old, contract_of(field("f", "int"), field("g", "int", default=0))) == []


def test_a_field_is_not_renamed_by_an_alias() -> None:
    """Old events would lose the value without a word: the bus reads fields by their names."""
    old = contract_of(field("f", ["null", "string"], default=None))
    renamed = contract_of({**field("g", ["null", "string"], default=None), "aliases": ["f"]})
    assert any("'f'" in problem and "'g'" in problem for problem in check_compatible(old, renamed))
    beside = contract_of(*(field(name, ["null", "string"], default=None) for name in ("f", "g")))
    assert check_compatible(old, beside) == []


def test_the_key_stays() -> None:
    """Another key would make other records of the same events; Avro has no opinion on it."""
    old = contract_of(field("id", "string"), field("other", "string"))
    new = contract_of(field("id", "string"), field("other", "string"), key="other")
    assert check_compatible(old, new) == ["bus.key was ['id'] and may not become ['other']"]
    assert check_compatible(old, {**old, "bus.key": "id"}) == []


def test_the_version_field_stays() -> None:
    """Events ordered by one field cannot be compared with events ordered by another."""
    old = contract_of(field("revision", "long"), **{"bus.version": "revision"})
    new = {name: value for name, value in old.items() if name != "bus.version"}
    assert check_compatible(old, new)


def test_levels() -> None:
    """FORWARD turns the question round, FULL asks both, NONE asks nothing."""
    assert _problems("int", "long", "FORWARD")
    assert _problems("long", "int", "FORWARD") == []
    assert _problems("int", "long", "FULL")
    assert _problems("string", "long", "NONE") == []
