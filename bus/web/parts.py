"""What the web app is made of; `bus.wiring` puts it together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bus.access.decision import Decider
from bus.access.identity import Issuer, Verifier
from bus.access.oidc.verifying import Verifiers
from bus.access.store import GrantStore
from bus.audit.anchoring import Anchoring
from bus.audit.log import AuditLog
from bus.contracts.directory import Directory
from bus.contracts.quarantine import Kept
from bus.contracts.refusals import Refusals
from bus.contracts.registry import Registry
from bus.governance.office import Governance
from bus.governance.promises.store import Promise
from bus.governance.report import DepartmentReport
from bus.governance.shares.reconciling import Shares
from bus.sharing.exports.door import ExportDoor
from bus.sharing.lineage import LineageDoor
from bus.sharing.minimal.answering import MinimalDoor
from bus.sharing.query import QueryDoor
from bus.sharing.subscribing.door import ChangesDoor
from bus.views.catalogue import Declarations, Shape
from bus.views.rebuilding.requests import Kind, Request
from bus.views.store import ViewStore
from bus.web.session import Sessions


@dataclass(frozen=True, slots=True)
class StreamParts:
    """The door to streams, and what its clients are told of the broker: ``broker``: bootstrap_servers and the like;
    ``topic_id`` of a topic and ``schema_id`` of a subject (None: there is none yet) may block."""

    door: ChangesDoor
    broker: Mapping[str, str]
    topic_id: Callable[[str], str]
    schema_id: Callable[[str], int | None]


@dataclass(frozen=True, slots=True)
class Parts:
    """The running parts behind the handlers.

    ``ask``: tells workers what to do with a view. ``issuer``: only where the portal may ask as a department (``demo``).
    ``bundle``: the signed rules and their ETag. ``quarantined``: events set aside, both origins; ``refused``: the
    newest of them.
    ``promises``: of freshness, by entity, as they stand. ``credentials``: how a department's systems reach the
    broker. ``hosts``: the names this host answers to.
    ``sessions``: where people can sign in; ``proxies``: whose forwarded client certificates are believed.
    """

    registry: Registry
    directory: Directory
    declarations: Declarations
    shapes: Callable[[], Mapping[str, Shape]]
    decider: Decider
    grants: GrantStore
    audit: AuditLog
    anchoring: Anchoring
    views: ViewStore
    ask: Callable[[str, Kind], Request]
    door: QueryDoor
    exports: ExportDoor
    lineage: LineageDoor
    minimal: MinimalDoor
    verifier: Verifier | Verifiers
    bundle: Callable[[], tuple[bytes, str]]
    bundle_token: str
    quarantined: Callable[[], int]
    governance: Governance
    refusals: Refusals
    refused: Callable[[int], Sequence[Kept]]
    report: DepartmentReport
    credentials: Callable[[str], dict[str, str]]
    promises: Callable[[], Mapping[str, Promise]] = dict
    issuer: Issuer | None = None
    streams: StreamParts | None = None
    shares: Shares | None = None
    subscriptions: Callable[[], list[dict[str, Any]]] = list
    sessions: Sessions | None = None
    proxies: frozenset[str] = frozenset()
    demo: bool = False
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    version: str = "0.1.0"
