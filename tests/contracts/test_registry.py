"""The registry on both databases: ids, versions, idempotence."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from contract_worlds import MICROS, MILLIS, contract_of, field

from bus.contracts import store
from bus.contracts.registry import Registry
from bus.errors import ContractRetired, IncompatibleSchema, InvalidSchema, NotFound, RecursiveSchema, UnknownEntity
from bus.infra.database import open_database

FIRST = contract_of(field("a", "int"))
SECOND = contract_of(field("a", "int"), field("b", ["null", "string"], default=None))
SUBJECT = "dept.dept_a.thing-value"


@pytest.fixture
def engine(database_url: str) -> sa.Engine:
    return open_database(database_url, "governance")


@pytest.fixture
def registry(engine: sa.Engine) -> Registry:
    return Registry(engine)


def test_versions_and_ids(registry: Registry) -> None:
    """Each new schema of a subject is its next version; the entity's ids are those of all versions."""
    first, second = registry.register(FIRST), registry.register(SECOND)
    assert (first.version, second.version) == (1, 2)
    assert registry.subjects() == [SUBJECT]
    assert registry.versions(SUBJECT) == [1, 2]
    assert registry.version(SUBJECT, 1) == (first.id, FIRST)
    assert registry.version(SUBJECT, "latest") == (second.id, SECOND)
    assert registry.ids("dept_a.Thing") == registry.ids("dept_a.thing") == {first.id, second.id}
    assert registry.contract("dept_a.thing").schema == SECOND
    assert registry.schema(first.id) == FIRST


def test_the_same_schema_again(registry: Registry) -> None:
    """Registering what is there changes nothing, however its JSON is ordered or its types are spelled."""
    registered = registry.register(FIRST)
    revision = registry.revision()
    again = dict(reversed(FIRST.items()))
    again["fields"] = [FIRST["fields"][0], {"type": {"type": "int"}, "name": "a"}]
    assert registry.register(again).id == registered.id
    assert registry.revision() == revision
    assert registry.versions(SUBJECT) == [1]


def test_an_attribute_is_part_of_the_contract(registry: Registry) -> None:
    """Another contact is another version, though Avro's canonical form would call both the same."""
    first = registry.register(FIRST)
    assert registry.register({**FIRST, "bus.contact": "b@example.org"}).id != first.id


def test_an_incompatible_schema(registry: Registry) -> None:
    """It is refused with the field and the version that it breaks, and leaves no trace."""
    registry.register(contract_of(field("a", MILLIS)))
    before = registry.revision()
    with pytest.raises(IncompatibleSchema, match=r"version 1: field 'a': timestamp-millis") as refused:
        registry.register(contract_of(field("a", MICROS)))
    assert refused.value.status == 409
    assert registry.versions(SUBJECT) == [1]
    assert registry.revision() == before


def test_meaning_is_kept_across_all_versions(registry: Registry) -> None:
    """A field that was dropped may not come back with another unit: the topic still has the old events."""
    registry.register(contract_of(field("a", MILLIS)))
    registry.register(contract_of())
    with pytest.raises(IncompatibleSchema, match="version 1"):
        registry.register(contract_of(field("a", MICROS, default=0)))


def test_ids_are_never_used_again(registry: Registry, engine: sa.Engine) -> None:
    """Even when the newest schema is deleted behind the registry's back (pitfall 26)."""
    registry.register(FIRST)
    newest = registry.register(SECOND).id
    with engine.begin() as connection:
        connection.execute(sa.delete(store.VERSIONS).where(store.VERSIONS.c.schema_id == newest))
        connection.execute(sa.delete(store.SCHEMAS).where(store.SCHEMAS.c.id == newest))
    assert Registry(engine).register(SECOND).id > newest


def test_another_process_sees_it(registry: Registry, engine: sa.Engine) -> None:
    """A registry that has cached everything notices a registration made by another."""
    other = Registry(engine)
    with pytest.raises(UnknownEntity):
        other.contract("dept_a.thing")
    registry.register(FIRST)
    assert other.contract("dept_a.thing").id == "dept_a.thing"
    registry.register(SECOND)
    assert other.contract("dept_a.thing").schema == SECOND
    assert set(other.contracts()) == {"dept_a.thing"}


def test_registrations_at_once(registry: Registry) -> None:
    """Sixteen registrations at once get sixteen versions in a row, all different, all fetchable (F15)."""

    def register(number: int) -> Any:
        return registry.register(contract_of(field("a", "int"), doc=f"number {number}"))

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(register, range(16)))
    assert sorted(each.version for each in made) == list(range(1, 17))
    assert len({each.id for each in made}) == 16
    assert all(registry.schema(each.id)["doc"] for each in made)


def test_a_slow_reader_takes_nothing_back(
    registry: Registry, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one thread has read of a new revision is not replaced by what a slower one read before it."""
    registry.register(FIRST)
    read, go_on = threading.Event(), threading.Event()
    revision = store.revision

    def slow(connection: sa.Connection) -> int:
        found = revision(connection)
        if not read.is_set():
            read.set()
            assert go_on.wait(30)
        return found

    monkeypatch.setattr(store, "revision", slow)
    with ThreadPoolExecutor(1) as pool:
        slower = pool.submit(registry.versions, SUBJECT)
        assert read.wait(30)
        Registry(engine).register(SECOND)
        assert registry.versions(SUBJECT) == [1, 2]
        go_on.set()
        slower.result()
    assert registry._known.revision == 2


def test_what_is_not_there(registry: Registry) -> None:
    """Every look-up says what it did not find."""
    registry.register(FIRST)
    for look_up in (
        lambda: registry.schema(99),
        lambda: registry.versions("dept.x.y-value"),
        lambda: registry.version(SUBJECT, 7),
        lambda: registry.ids("dept_a.thong"),
        lambda: registry.contract("dept_b.thing"),
    ):
        with pytest.raises((NotFound, UnknownEntity)):
            look_up()


def test_a_subject_of_another_entity(registry: Registry) -> None:
    """A schema cannot be registered as the contract of something else; beside `dept.` it can."""
    with pytest.raises(InvalidSchema, match=r"dept\.dept_a\.other-value"):
        registry.register(FIRST, subject="dept.dept_a.other-value")
    shared = registry.register(FIRST, subject="share.tax.thing-value")
    assert shared.version == 1
    assert registry.contracts() == {}


def test_dangerous_schemas_get_no_id(registry: Registry) -> None:
    """What `structure` refuses leaves nothing in the registry."""
    with pytest.raises(RecursiveSchema):
        registry.register(contract_of(field("a", ["null", "Thing"])))
    assert registry.subjects() == []


def test_a_retired_contract(registry: Registry) -> None:
    """It takes no new version and not its own again; what is there stays readable, and others go on."""
    first = registry.register(FIRST)
    before = registry.revision()
    assert registry.retire("dept_a.Thing").retired
    registry.retire("dept_a.thing")
    assert registry.revision() > before
    for again in (FIRST, SECOND):
        with pytest.raises(ContractRetired, match="Ask dept_a"):
            registry.register(again)
    assert registry.contract("dept_a.thing").retired
    assert registry.ids("dept_a.thing") == {first.id}
    assert not registry.register(contract_of(field("a", "int"), namespace="dept_b")).contract.retired
    with pytest.raises(UnknownEntity):
        registry.retire("dept_a.nothing")


def test_a_streams_schema_is_whatever_its_grant_says(registry: Registry) -> None:
    """No version is compared with another; a grant that is as it was has its old schema as the newest again."""
    subject, narrow = "share.tax.thing-value", {"type": "record", "name": "thing", "fields": []}
    wide = {**narrow, "fields": [{"name": "a", "type": ["null", "long"], "default": None}]}
    first = registry.register_share(subject, wide)
    assert registry.register_share(subject, wide) == first
    second = registry.register_share(subject, narrow)
    assert registry.version_number(subject, "latest") == (2, second, narrow)
    assert registry.register_share(subject, wide) == first
    assert registry.version_number(subject, "latest") == (3, first, wide)
    assert registry.schema(second) == narrow
    with pytest.raises(InvalidSchema):
        registry.register_share("dept.food.thing-value", wide)
