"""Published rules: numbered, kept, and taken back only by two people (F20)."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from access_worlds import decider, grant, grant_set, shape
from opa_process import POLICIES, running_opa, wait_until

from bus.access.bundle import sign_bundle
from bus.access.decision import Allow, Decision, Deny
from bus.access.identity import Subject
from bus.access.rules.book import RuleBook
from bus.access.rules.store import RULES
from bus.access.store import GrantStore
from bus.errors import AuditUnavailable, FourEyes, Invalid, InvalidDeclaration, NotFound, PolicyStale

VIEW = Path("bus") / "views" / "business.rego"
NARROW = 'package bus.views.business\n\nallow if input.channel == "lookup"\n\ninclude if allow\n'
PEOPLE = {"author": "li.na", "approver": "wang.wei", "reason": "the new rule was wrong", "os_user": "root"}


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A folder of rules that a test may change."""
    return shutil.copytree(POLICIES, tmp_path / "policies")


@pytest.fixture
def entries() -> list[dict[str, Any]]:
    """What went to the audit log."""
    return []


@pytest.fixture
def book(
    governance: sa.Engine, policies: Path, bundle_keys: tuple[bytes, bytes], entries: list[dict[str, Any]]
) -> Callable[[], RuleBook]:
    """Makes the rule book of one process."""
    return lambda: RuleBook(governance, policies, bundle_keys[0], lambda body: entries.append(dict(body)))


def test_rules_are_numbered_as_they_change(book: Callable[[], RuleBook], policies: Path, governance: sa.Engine) -> None:
    """The same rules keep their number in every process; other rules get the next, which doors read."""
    first, second = book(), book()
    assert [first.current().revision, second.current().revision, first.current().revision] == [1, 1, 1]
    (policies / VIEW).write_text(NARROW)
    assert [second.current().revision, first.current().revision] == [2, 2]
    assert first.current().files[VIEW.as_posix()] == NARROW.encode()
    assert GrantStore(governance).revisions().rules == 2


def test_a_folder_with_older_rules_changes_nothing(
    book: Callable[[], RuleBook], policies: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the process that saw the newer ones, nor in one that starts on the old folder; the log says so once."""
    rules = book()
    rules.current()
    (policies / VIEW).write_text(NARROW)
    rules.current()
    (policies / VIEW).unlink()
    with caplog.at_level(logging.ERROR):
        for other in (rules, book(), rules):
            assert other.current().revision == 2
            assert VIEW.as_posix() in other.current().files
    assert len([record for record in caplog.records if "bus policy rollback" in record.getMessage()]) == 2


def test_two_people_take_rules_back(
    book: Callable[[], RuleBook], policies: Path, entries: list[dict[str, Any]], governance: sa.Engine
) -> None:
    """The old files come into force under a higher number, with a record; other rules may follow."""
    rules = book()
    old = rules.current()
    (policies / VIEW).write_text(NARROW)
    rules.current()
    assert rules.rollback(1, **PEOPLE) == 3
    for process in (rules, book()):
        assert process.current().revision == 3
        assert process.current().files == old.files
    assert entries == [{"kind": "rules_rollback", "to": 1, "from": 2, **PEOPLE}]
    assert GrantStore(governance).revisions().rules == 3
    history = rules.all()
    assert [(one["revision"], one["verified"], one.get("rollback_of")) for one in history] == [
        (3, True, 1),
        (2, True, None),
        (1, True, None),
    ]
    (policies / VIEW).write_text(NARROW + "\n# better\n")
    assert rules.current().revision == 4


@pytest.mark.parametrize(
    ("revision", "changes", "error"),
    [
        (1, {"approver": "LI.NA "}, FourEyes),
        (1, {"approver": "ＬＩ.na"}, FourEyes),
        (1, {"author": " "}, Invalid),
        (1, {"reason": ""}, Invalid),
        (2, {}, Invalid),
        (3, {}, NotFound),
        (0, {}, NotFound),
    ],
)
def test_a_rollback_that_is_refused(
    book: Callable[[], RuleBook],
    policies: Path,
    entries: list[dict[str, Any]],
    revision: int,
    changes: dict[str, str],
    error: type[Exception],
) -> None:
    """One person alone, no reason, what is in force already or was never published: nothing is done or recorded."""
    rules = book()
    rules.current()
    (policies / VIEW).write_text(NARROW)
    rules.current()
    with pytest.raises(error):
        rules.rollback(revision, **{**PEOPLE, **changes})
    assert rules.current().revision == 2
    assert entries == []


def test_a_rollback_that_cannot_be_recorded_is_none(
    governance: sa.Engine, policies: Path, bundle_keys: tuple[bytes, bytes]
) -> None:
    """Without its audit entry nothing happens."""

    def fail(_: Any) -> None:
        raise AuditUnavailable()

    rules = RuleBook(governance, policies, bundle_keys[0], fail)
    rules.current()
    (policies / VIEW).write_text(NARROW)
    rules.current()
    with pytest.raises(AuditUnavailable):
        rules.rollback(1, **PEOPLE)
    assert rules.current().revision == 2


def test_rules_that_somebody_wrote_into_the_database_are_not_signed(
    book: Callable[[], RuleBook], policies: Path, governance: sa.Engine
) -> None:
    """Other files under a record, another revision's record or none, and a made-up revision: nothing is given out."""
    first = book()
    first.current()
    (policies / VIEW).write_text(NARROW)
    assert first.current().revision == 2
    of = sa.select(RULES).where(RULES.c.revision == 1)
    with governance.connect() as connection:
        row = connection.execute(of).one()._asdict()
    for changes in ({"files": row["files"]}, {"sealed": row["sealed"]}, {"sealed": ""}):
        with governance.begin() as connection:
            kept = connection.execute(sa.select(RULES).where(RULES.c.revision == 2)).one()._asdict()
            connection.execute(RULES.update().where(RULES.c.revision == 2).values(changes))
        with pytest.raises(PolicyStale):
            book().current()
        with governance.begin() as connection:
            connection.execute(RULES.update().where(RULES.c.revision == 2).values(kept))
    assert book().current().revision == 2
    with governance.begin() as connection:
        connection.execute(RULES.insert().values(row | {"revision": 9}))
    with pytest.raises(PolicyStale):
        book().current()


def test_evil_rules_are_not_published(book: Callable[[], RuleBook], policies: Path) -> None:
    """What was published before stays in force; with nothing before, there is nothing."""
    evil = NARROW + "allow := true\n"
    (policies / VIEW).write_text(evil)
    with pytest.raises(InvalidDeclaration, match="true without a condition"):
        book().current()
    (policies / VIEW).unlink()
    rules = book()
    assert rules.current().revision == 1
    (policies / VIEW).write_text(evil)
    assert rules.current().revision == 1
    assert VIEW.as_posix() not in rules.current().files


def test_a_rollback_reaches_opa_and_the_door(
    opa_binary: Path,
    tmp_path: Path,
    bundle_keys: tuple[bytes, bytes],
    book: Callable[[], RuleBook],
    policies: Path,
    governance: sa.Engine,
) -> None:
    """OPA loads the older rules as the newer revision they are; the door follows, and never took the old bundle."""
    rules, store = book(), GrantStore(governance)
    store.apply(grant_set(grant()), os_user="root")

    def bundle() -> bytes:
        current = rules.current()
        return sign_bundle(current.files, current.revision, bundle_keys[0])

    old = bundle()
    (policies / VIEW).write_text(NARROW)

    with running_opa(opa_binary, tmp_path / "opa", bundle(), bundle_keys[1]) as (opa, server):
        door: list[Any] = []

        async def decide() -> Decision:
            door[:] = door or [decider(opa.url, store)]
            return await door[0].decide(Subject("tax"), shape(), "levy", "query")

        with asyncio.Runner() as runner:
            assert isinstance(runner.run(decide()), Deny)
            server.content = old
            wait_until(lambda: opa.revision() == "1")
            wait_until(lambda: isinstance(getattr(runner.run(decide()), "error", None), PolicyStale))
            assert rules.rollback(1, **PEOPLE) == 3
            server.content = bundle()
            wait_until(lambda: opa.revision() == "3")
            wait_until(lambda: isinstance(runner.run(decide()), Allow))
