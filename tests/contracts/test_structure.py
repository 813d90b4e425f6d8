"""Schemas that could crash or deceive a reader never get an id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from contract_worlds import COLOUR, DATE, contract_of, field

from bus.contracts.registry import checked_contract
from bus.errors import BusError, InvalidSchema, OwnerMissing, RecursiveSchema, ZeroSizeItems

SCHEMAS = sorted((Path(__file__).parents[2] / "schemas").glob("*/*.avsc"))
NOTHING = {"type": "record", "name": "Nothing", "fields": []}


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_the_demos_contracts_are_accepted(path: Path) -> None:
    """Every contract of the demo passes, with a Chinese and an English title and a class on each field."""
    document = json.loads(path.read_text())
    contract = checked_contract(document)
    assert path.parent.name == contract.department
    assert path.stem == contract.entity
    assert all({"zh", "en"} <= set(field.title) for field in contract.fields)
    assert all("bus.class" in field for field in document["fields"])


def test_there_are_contracts() -> None:
    """The test above saw the five contracts of the demo."""
    assert len(SCHEMAS) >= 5


@pytest.mark.parametrize(
    "avro",
    [
        ["null", "Thing"],
        ["null", "dept_a.Thing"],
        {"type": "array", "items": "Thing"},
        {"type": "map", "values": {"type": "record", "name": "In", "fields": [{"name": "again", "type": "Thing"}]}},
        {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]},
        {"type": "record", "name": "Node", "namespace": "x", "fields": [{"name": "next", "type": ["null", "x.Node"]}]},
    ],
    ids=str,
)
def test_recursive_schemas_are_refused(avro: Any) -> None:
    """A 5 KB message of a recursive schema kills a reader (E16), so a schema that reaches itself is refused."""
    with pytest.raises(RecursiveSchema):
        checked_contract(contract_of(field("f", avro)))


def test_a_type_named_twice_is_not_recursion() -> None:
    """Near miss: a named type used again after it is closed is accepted."""
    checked_contract(contract_of(field("a", COLOUR), field("b", ["null", "Colour"])))


@pytest.mark.parametrize(
    "items", ["null", {"type": "null"}, NOTHING, {"type": "fixed", "name": "Zero", "size": 0}], ids=str
)
@pytest.mark.parametrize("kind", ["array", "map"])
def test_items_without_size_are_refused(kind: str, items: Any) -> None:
    """Seven bytes could announce 2^40 items that take no bytes (E17)."""
    with pytest.raises(ZeroSizeItems):
        checked_contract(contract_of(field("f", {"type": kind, "items" if kind == "array" else "values": items})))


def test_items_without_size_are_refused_by_name() -> None:
    """A named type without size is found where it is only referred to."""
    with pytest.raises(ZeroSizeItems):
        checked_contract(contract_of(field("a", NOTHING), field("b", {"type": "array", "items": "Nothing"})))


@pytest.mark.parametrize(
    "avro",
    [
        {"type": "int", "logicalType": "nonsense"},
        {"type": "string", "logicalType": "date"},
        {"type": "long", "logicalType": "local-timestamp-micros"},
        {"type": "long", "logicalType": "timestamp-nanos"},
        {"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 5},
        {"type": "bytes", "logicalType": "decimal", "precision": 39},
        {"type": "bytes", "logicalType": "decimal", "precision": True},
        {"type": "fixed", "name": "F", "size": 1, "logicalType": "decimal", "precision": 3},
        {"type": "array", "items": {"type": "bytes", "logicalType": "decimal", "precision": 3}},
        {"type": {"type": "int"}, "logicalType": "date"},
        "unheard_of",
        {"type": "enum", "name": "E", "symbols": ["A", "A"]},
        {"items": "string"},
        7,
        None,
    ],
    ids=str,
)
def test_types_without_meaning_are_refused(avro: Any) -> None:
    """Avro drops a logical type that it does not know; the registration does not (pitfall 34)."""
    with pytest.raises(InvalidSchema):
        checked_contract(contract_of(field("f", avro)))


def test_a_logical_type_beside_the_type_is_refused() -> None:
    """Written on the field instead of in its type, a logical type has no effect in Avro."""
    document = contract_of(field("f", "int"))
    document["fields"][1]["logicalType"] = "date"
    with pytest.raises(InvalidSchema, match="belongs inside"):
        checked_contract(document)


@pytest.mark.parametrize(
    "bad",
    [
        field("f", "string", identifier="citizen"),
        field("f", "long", identifier="citizen_id"),
        field("f", "string", pattern="("),
        field("f", "long", pattern="[0-9]"),
        field("f", "double", values=[1.5]),
        field("f", "string", minimum=1),
        field("f", "long", minimum=1.5),
        field("f", "long", minimum=10**30),
        field("f", DATE, minimum="yesterday"),
        field("f", "double", maximum="much"),
    ],
    ids=str,
)
def test_attributes_that_cannot_be_checked_are_refused(bad: dict[str, Any]) -> None:
    """A rule that would never hold or never run is an error of the contract, not of each event."""
    with pytest.raises(InvalidSchema):
        checked_contract(contract_of(bad))


@pytest.mark.parametrize("attribute", ["bus.owner", "bus.contact", "bus.key", "bus.retention", "bus.legal_basis"])
def test_required_attributes(attribute: str) -> None:
    """A contract that nobody answers for is refused, naming what is missing."""
    document = contract_of(field("f", "int"))
    del document[attribute]
    with pytest.raises(OwnerMissing, match=attribute):
        checked_contract(document)


def test_durations() -> None:
    """Freshness and retention are ISO 8601 durations."""
    with pytest.raises(InvalidSchema, match=r"bus\.freshness"):
        checked_contract(contract_of(field("f", "int"), **{"bus.freshness": "a day"}))


def test_too_many_fields() -> None:
    """A thousand fields are enough (A22)."""
    with pytest.raises(InvalidSchema, match="1001 fields"):
        checked_contract(contract_of(*(field(f"f{number}", "int") for number in range(1_000))))


def test_too_deep() -> None:
    """Nesting is bounded, so that no walk over a schema or a value runs out of stack."""
    avro: Any = "string"
    for _ in range(5_000):
        avro = {"type": "array", "items": avro}
    with pytest.raises(BusError):
        checked_contract(contract_of(field("f", avro)))
