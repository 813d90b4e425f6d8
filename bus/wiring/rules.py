"""The signed rules, for `bus policy build`."""

from __future__ import annotations

from bus.access.bundle import build_bundle, content_hash
from bus.access.store import GrantStore
from bus.infra.database import open_database
from bus.infra.stack.opa import BUNDLE_KEY
from bus.wiring.site import Site


def build_rules(site: Site) -> tuple[bytes, int]:
    """The signed rules and their revision, for `bus policy build`."""
    grants = GrantStore(open_database(site.settings.database, "governance"))
    revision = grants.rules_revision(content_hash(site.settings.policies))
    key = site.secrets.ensure_key(BUNDLE_KEY).read_bytes()
    return build_bundle(site.settings.policies, revision, key), revision
