"""The signed rules: for OPA, and for ``bus policy build | history | rollback``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import Engine

from bus.access.bundle import etag, sign_bundle
from bus.access.rules.book import Audit, RuleBook
from bus.audit.log import AuditLog
from bus.infra.database import open_database
from bus.infra.stack.credentials import Secrets
from bus.infra.stack.opa import BUNDLE_KEY
from bus.settings import Settings
from bus.wiring.site import Site


def rule_book(settings: Settings, governance: Engine, audit: Audit) -> RuleBook:
    """The published rules of this installation."""
    key = Secrets(settings.home).ensure_key(BUNDLE_KEY).read_bytes()
    return RuleBook(governance, settings.policies, key, audit)


def signed_rules(settings: Settings, governance: Engine, audit: Audit) -> Callable[[], tuple[bytes, str]]:
    """Gives the signed bundle and its ETag; signed again when other rules came into force."""
    book, key = rule_book(settings, governance, audit), Secrets(settings.home).ensure_key(BUNDLE_KEY).read_bytes()
    signed: dict[int, tuple[bytes, str]] = {}
    lock = threading.Lock()

    def bundle() -> tuple[bytes, str]:
        with lock:
            rules = book.current()
            if rules.revision not in signed:
                signed.clear()
                built = sign_bundle(rules.files, rules.revision, key)
                signed[rules.revision] = (built, etag(built))
            return signed[rules.revision]

    return bundle


def build_rules(site: Site) -> tuple[bytes, int]:
    """The signed rules and their revision, for `bus policy build`."""
    rules = _book(site).current()
    key = site.secrets.ensure_key(BUNDLE_KEY).read_bytes()
    return sign_bundle(rules.files, rules.revision, key), rules.revision


def rules_history(site: Site) -> list[dict[str, Any]]:
    """Every published revision, the newest first."""
    return _book(site).all()


def rollback_rules(site: Site, revision: int, *, author: str, approver: str, reason: str, os_user: str) -> int:
    """Puts an older revision's rules in force under the next number, which is returned."""
    return _book(site).rollback(revision, author=author, approver=approver, reason=reason, os_user=os_user)


def _book(site: Site) -> RuleBook:
    governance = open_database(site.settings.database, "governance")
    return rule_book(site.settings, governance, AuditLog(governance).append_sync)
