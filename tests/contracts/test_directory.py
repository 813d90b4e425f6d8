"""Departments and purposes on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from bus.contracts.directory import Department, Directory, Purpose, parse_department, parse_purpose
from bus.errors import InvalidDeclaration, UnknownDepartment
from bus.infra.database import open_database

SCHEMAS = Path(__file__).parents[2] / "schemas"


@pytest.fixture
def directory(database_url: str) -> Directory:
    return Directory(open_database(database_url, "governance"))


def test_departments(directory: Directory) -> None:
    """What was put is found, in the order of ids; putting again replaces."""
    market = Department("market", {"zh": "市场监管", "en": "Market"}, "a@example.org")
    directory.put_department(market)
    directory.put_department(Department("food", {"en": "Food"}, "b@example.org", legal_basis="a law"))
    south = {"id": "south", "title": {"en": "South"}, "contact": "s@example.org"}
    directory.put_department(parse_department({**south, "attributes": {"ward": 7, "code": "S", "open": True}}))
    assert directory.department("south").attributes == {"ward": 7, "code": "S", "open": True}
    assert directory.department("market") == market
    assert [department.id for department in directory.departments()] == ["food", "market", "south"]
    directory.put_department(Department("market", {"en": "Market"}, "c@example.org", suspended=True))
    assert directory.department("market").suspended
    assert len(directory.departments()) == 3


@pytest.mark.parametrize("attributes", [{"A": 1}, {"ward": None}, {"ward": [1]}, {"ward": float("nan")}, [1], "a"])
def test_attributes_that_no_condition_could_read(attributes: object) -> None:
    """A name that is no id, or a value that is neither text nor number nor truth, is refused."""
    doc = {"id": "south", "title": {"en": "South"}, "contact": "s@example.org", "attributes": attributes}
    with pytest.raises(InvalidDeclaration, match="attribute"):
        parse_department(doc)


def test_an_unknown_department(directory: Directory) -> None:
    """It is named in the error."""
    with pytest.raises(UnknownDepartment, match="nobody"):
        directory.department("nobody")


def test_purposes(directory: Directory) -> None:
    """Purposes are found by id; there is none for an unknown one."""
    levy = Purpose("levy", {"zh": "征收", "en": "Levy"}, "a law")
    directory.put_purpose(levy)
    assert directory.purpose("levy") == levy
    assert directory.purpose("Levy") is None
    assert directory.purposes() == [levy]


@pytest.mark.parametrize("bad", ['a"; allow := true', "__proto__", "../x", "A", "", "x" * 64])
def test_ids_that_are_none(directory: Directory, bad: str) -> None:
    """An id that could mean something elsewhere is refused (A15)."""
    with pytest.raises(InvalidDeclaration):
        directory.put_department(Department(bad, {}, ""))
    with pytest.raises(InvalidDeclaration):
        directory.put_purpose(Purpose(bad, {}, ""))


def test_the_demos_files() -> None:
    """Both files of the demo parse, every entry with a Chinese and an English title."""
    yaml = YAML(typ="safe")
    departments = [parse_department(doc) for doc in yaml.load(SCHEMAS / "departments.yaml")]
    purposes = [parse_purpose(doc) for doc in yaml.load(SCHEMAS / "purposes.yaml")]
    assert {"market", "food", "sanitation", "weather", "police", "tax", "social"} <= {each.id for each in departments}
    assert {
        "levy",
        "inspection_planning",
        "case_investigation",
        "employment_support",
        "service_handling",
        "open_data",
    } == {each.id for each in purposes}
    assert all(set(each.title) == {"zh", "en"} for each in (*departments, *purposes))


def test_unknown_members_are_refused() -> None:
    """A misspelt member is named with what was probably meant."""
    with pytest.raises(InvalidDeclaration, match="Did you mean 'contact'"):
        parse_department({"id": "a", "title": {}, "contct": "x"})
