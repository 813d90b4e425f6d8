"""Which rules are in force: those of the folder, numbered as they change, and never older ones by accident (F20).

Each revision is kept with its files and a signed record. A folder that holds what was published before, and has been
replaced since, changes nothing: only a rollback that two people answer for brings old rules back, as a revision of
their own with a higher number, so the number that doors compare never goes down.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy.engine import Connection, Engine

from bus.access.bundle import hash_of, policy_files
from bus.access.revisions_store import METADATA as REVISIONS
from bus.access.revisions_store import one_at_a_time, raise_revision
from bus.access.rules import store
from bus.access.rules.lint import builtins_of, check_rules
from bus.access.rules.store import Kept
from bus.access.seals import Seal
from bus.core.grants import same_person
from bus.errors import FourEyes, Invalid, InvalidDeclaration, NotFound, PolicyStale
from bus.infra.database import create_tables, translated_errors, write

KIND: Final = "bus-rules"
Audit = Callable[[Mapping[str, Any]], object]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules in force: Rego files by path, under their revision."""

    revision: int
    files: Mapping[str, bytes]


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class RuleBook:
    """The published rules in the governance database. Thread-safe; methods block.

    ``policies``: the folder; ``private_pem``: the key that signs and verifies the records; ``audit``: records what is
    done, or raises; then nothing is. All methods raise `DatabaseUnavailable`.
    """

    def __init__(
        self,
        engine: Engine,
        policies: Path,
        private_pem: bytes,
        audit: Audit,
        *,
        clock: Callable[[], dt.datetime] = _utc_now,
    ) -> None:
        self._engine, self._policies, self._audit, self._clock = engine, policies, audit, clock
        self._seal = Seal(private_pem, KIND)
        self._lock = threading.Lock()
        self._refused = ""
        self._in_force: tuple[tuple[str, int | None], Rules] | None = None
        create_tables(engine, REVISIONS)
        create_tables(engine, store.METADATA)

    def current(self) -> Rules:
        """The rules in force; those of the folder are published first if they are new.

        New rules that the lint refuses are logged and not published: the newest published ones stay in force. Raises
        `InvalidDeclaration` where there are none, `PolicyStale` where the newest were not signed by this bus.
        """
        files = policy_files(self._policies)
        content = hash_of(files)
        with translated_errors(), self._engine.connect() as connection:
            seen = (content, store.newest_revision(connection))
            if self._in_force is not None and self._in_force[0] == seen:
                return self._in_force[1]
            newest, known = store.newest(connection), store.was_published(connection, content)
        rules = self._choose(files, content, newest, known)
        self._in_force = ((content, rules.revision), rules)
        return rules

    def _choose(self, files: Mapping[str, bytes], content: str, newest: Kept | None, known: bool) -> Rules:
        if newest is not None and (newest.content == content or known):
            self._report(
                content, newest, "were published before, and newer ones since: `bus policy rollback` is the way"
            )
            return self._verified(newest)
        try:
            check_rules(files, builtins_of(self._policies))
        except InvalidDeclaration as error:
            if newest is None:
                raise
            self._report(content, newest, error.detail)
            return self._verified(newest)
        return self._publish(files, content)

    def rollback(self, revision: int, *, author: str, approver: str, reason: str, os_user: str) -> int:
        """Puts the files of an older revision in force again, under the next number, which is returned.

        Raises `NotFound`, `Invalid` for the newest revision or without a reason, `FourEyes`, `AuditUnavailable`,
        `InvalidDeclaration` where the lint of today refuses the rules of then.
        """
        if not author.strip() or not approver.strip() or not reason.strip():
            raise Invalid("A rollback needs an author, an approver and a reason.")
        if same_person(author, approver):
            raise FourEyes("A rollback needs two people: author and approver are the same person.", author=author)
        with translated_errors(), self._engine.connect() as connection:
            kept, newest = store.of_revision(connection, revision), store.newest(connection)
        if kept is None or newest is None:
            raise NotFound(what=f"rules revision {revision}")
        if kept.content == newest.content:
            raise Invalid(f"Revision {revision} is what is in force.")
        files = self._verified(kept).files
        check_rules(files, builtins_of(self._policies))
        people = {"author": author, "approver": approver, "reason": reason, "os_user": os_user}
        self._audit({"kind": "rules_rollback", "to": revision, "from": newest.revision, **people})
        return self._publish(files, kept.content, rollback_of=revision, after=newest.revision, **people).revision

    def all(self) -> list[dict[str, Any]]:
        """Every revision as its signed record says, the newest first; ``verified`` tells whether it does count."""
        with translated_errors(), self._engine.connect() as connection:
            found = [(kept.revision, self._record(kept)) for kept in store.all_kept(connection)]
        return [{"revision": revision, "verified": record is not None, **(record or {})} for revision, record in found]

    def _publish(self, files: Mapping[str, bytes], content: str, *, after: int | None = None, **said: Any) -> Rules:
        """The files under the next revision; ``after``: only if that is still the newest."""
        with translated_errors(), write(self._engine) as connection:
            one_at_a_time(connection)
            newest = store.newest(connection)
            if after is not None and (newest is None or newest.revision != after):
                raise Invalid("Other rules were published meanwhile; look at `bus policy history` and repeat.")
            if after is None and newest is not None and newest.content == content:
                return self._verified(newest)
            revision = self._put(connection, files, content, said)
        log.info("Rules revision %d is published", revision)
        return Rules(revision, files)

    def _put(self, connection: Connection, files: Mapping[str, bytes], content: str, said: Mapping[str, Any]) -> int:
        at = self._clock()
        revision = raise_revision(connection, "rules", at, content)
        record = {**said, "revision": revision, "content": content, "at": at.isoformat(timespec="seconds")}
        texts = json.dumps({path: text.decode() for path, text in files.items()}, sort_keys=True)
        store.put(connection, Kept(revision, content, texts, self._seal.sign(record)))
        return revision

    def _record(self, kept: Kept) -> dict[str, Any] | None:
        """The signed record, if it was signed for this revision and these files; a rollback by two people."""
        record = self._seal.open(kept.sealed)
        if record is None or (record.get("revision"), record.get("content")) != (kept.revision, kept.content):
            return None
        if "rollback_of" in record and same_person(str(record.get("author")), str(record.get("approver"))):
            return None
        return record

    def _verified(self, kept: Kept) -> Rules:
        files = {path: text.encode() for path, text in json.loads(kept.files).items()}
        if self._record(kept) is None or hash_of(files) != kept.content:
            log.error("Rules revision %d in the database is not what the bus signed", kept.revision)
            raise PolicyStale()
        return Rules(kept.revision, files)

    def _report(self, content: str, newest: Kept, why: str) -> None:
        """Once for each folder that is not in force."""
        with self._lock:
            told, self._refused = self._refused == content, "" if newest.content == content else content
        if self._refused and not told:
            log.error("The rules in the folder are not in force, revision %d stays: they %s", newest.revision, why)
