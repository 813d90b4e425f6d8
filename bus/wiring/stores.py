"""What serve keeps and reads: the stores behind its doors and its offices."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from sqlalchemy.engine import Engine

from bus.access.store import GrantStore
from bus.audit.log import AuditLog
from bus.contracts.directory import Directory
from bus.contracts.quarantine import Kept
from bus.contracts.refusals import Refusals
from bus.contracts.registry import Registry
from bus.governance.declassification import Declassifications
from bus.governance.promises.store import PromiseStore
from bus.infra.database import open_database
from bus.infra.stack.credentials import Secrets
from bus.infra.stack.opa import BUNDLE_KEY
from bus.settings import Settings
from bus.views.applied import AppliedShapes
from bus.views.catalogue import Declarations
from bus.views.store import ViewStore
from bus.wiring.viewing import CurrentShapes

AUDIT_WAIT_S: Final = 0.12


@dataclass(frozen=True, slots=True)
class Stores:
    """On the governance database, and ``views`` on the (read-only) views database. ``shapes``: the views as they are
    declared; ``applied``: as their tables are now."""

    governance: Engine
    views: ViewStore
    registry: Registry
    directory: Directory
    declarations: Declarations
    promises: PromiseStore
    grants: GrantStore
    refusals: Refusals
    audit: AuditLog
    declassifications: Declassifications
    shapes: CurrentShapes
    applied: AppliedShapes

    def quarantined(self) -> int:
        """How many events are set aside, of both origins."""
        return self.refusals.count() + self.views.quarantined()

    def refused(self, limit: int) -> list[Kept]:
        """The newest of them."""
        both = [*self.refusals.recent(limit), *self.views.set_aside(limit)]
        return sorted(both, key=lambda kept: kept.at_ms, reverse=True)[:limit]


def open_stores(settings: Settings, secrets: Secrets) -> Stores:
    """All of them; tables that are missing are made."""
    governance = open_database(settings.database, "governance")
    views = ViewStore(open_database(settings.database, "views", read_only=True))
    registry, directory, declarations = Registry(governance), Directory(governance), Declarations(governance)
    promises = PromiseStore(governance)
    grants, refusals = GrantStore(governance), Refusals(governance)
    # a disclosure that cannot be recorded soon is refused soon, whoever else holds the database
    audit = AuditLog(open_database(settings.database, "governance", wait_s=AUDIT_WAIT_S))
    seals = secrets.ensure_key(BUNDLE_KEY).read_bytes()
    declassifications = Declassifications(governance, seals, audit.append_sync)
    current = CurrentShapes(declarations, registry, lowered=declassifications.lowered)
    return Stores(
        governance=governance,
        views=views,
        registry=registry,
        directory=directory,
        declarations=declarations,
        promises=promises,
        grants=grants,
        refusals=refusals,
        audit=audit,
        declassifications=declassifications,
        shapes=current,
        applied=AppliedShapes(current, views, clock=time.monotonic),
    )
