"""The one way to rows: `Decider.decide` says `Allow` or `Deny`, and only an `Allow` opens a view's table.

Two independent answers of OPA must agree (security model, 5): ``allow is True``, and a well-formed filter,
of which an empty one counts only with ``allow_all is True``. What the deciding grant says is checked here
once more, so that neither a wrong rule nor a wrong answer can show more than a grant.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import logging
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import sqlalchemy as sa

from bus.access import granted
from bus.access.answers import EVERY_ROW, Filter, Verdict, both
from bus.access.engine import Outcome, PolicyEngine
from bus.access.facts import request_input
from bus.access.granted import Shape
from bus.access.identity import Subject
from bus.access.refusals import Asked, Directory, Standing, refusal
from bus.access.revisions_store import Revisions
from bus.access.store import GrantStore
from bus.core import names
from bus.core.contracts import Kind
from bus.core.grants import CHANNELS, PUBLIC, Grant, Limits
from bus.core.guards import is_open
from bus.core.masks import Mask
from bus.errors import BusError, DatabaseUnavailable, PolicyError, Unavailable

MAX_CACHED: Final = 10_000
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Allow:
    """What may be shown: ``columns`` in the view's order, ``masks`` of some of them, and the rows of ``filter``.

    ``least_group``: figures of fewer rows are withheld, because the grant does not show the rows; None: exact.
    ``questions``: the declared questions that may be asked over the channel ``question``. ``open_to_all``: the grant is
    everybody's."""

    view: str
    columns: tuple[str, ...]
    masks: Mapping[str, Mask]
    filter: Filter
    limits: Limits
    grant_ids: tuple[str, ...]
    decision_id: str
    policy_revision: str
    channel: str
    purpose: str
    consumer: str
    least_group: int | None = None
    questions: tuple[str, ...] = ()
    open_to_all: bool = False
    same: object = field(default_factory=object, compare=False, repr=False)
    """One object for all decisions that differ in nothing but their id: what was worked out of one holds for them."""


@dataclass(frozen=True, slots=True)
class Deny:
    """Nothing may be shown: ``error`` is a refusal (403, 404) or says that no decision could be had (503)."""

    error: BusError
    policy_revision: str = ""


Decision = Allow | Deny


@dataclass(frozen=True, slots=True)
class _Request:
    subject: Subject
    shape: Shape
    purpose: str | None
    channel: str
    at: dt.datetime
    grants: tuple[Grant, ...]
    revisions: Revisions
    digest: str
    columns: bytes

    @property
    def kinds(self) -> dict[str, Kind]:
        return {column.name: column.kind for column in self.shape.columns}


@dataclass(slots=True)
class _Decided:
    """What the engine said, and what that last came to: for the shape ``of``, under the revision ``grants``."""

    outcome: Outcome
    of: Shape | None = None
    grants: int = -1
    allow: Allow | None = None


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Decider:
    """Decides requests. Belongs to one event loop; `run_canary` must run beside it."""

    def __init__(
        self,
        engine: PolicyEngine,
        grants: GrantStore,
        directory: Directory,
        *,
        clock: Callable[[], dt.datetime] = _utc_now,
    ) -> None:
        self._engine = engine
        self._grants = grants
        self._standing = Standing(directory)
        self._directory = directory
        self._clock = clock
        self._decided: OrderedDict[tuple[Any, ...], _Decided] = OrderedDict()
        self._asking: dict[tuple[Any, ...], asyncio.Future[Outcome]] = {}
        # SQLite answers the two small reads in the loop faster than a thread could take them over
        self._aside = grants.engine.dialect.name != "sqlite"
        self._revisions = grants.glance()
        self._columns: dict[str, tuple[Shape, bytes]] = {}

    async def run_canary(self) -> None:
        """Asks the built-in decision every second, for ever."""
        await self._engine.watch()

    async def decide(self, subject: Subject, shape: Shape, purpose: str | None, channel: str) -> Decision:
        """Whether and what ``subject`` may see of the view. ``channel``: one of `CHANNELS`."""
        if channel not in CHANNELS:
            raise ValueError(f"'{channel}' is not a channel")
        revisions = None
        try:
            request = await self._read(subject, shape, purpose, channel)
            revisions = request.revisions
            return await self._decide(request)
        except Unavailable as error:
            log.error("No decision on %s: %s", shape.view.name, type(error).__name__)
            return Deny(error, f"{self._engine.revision or 0}.{revisions.grants if revisions else 0}")

    async def require(self, subject: Subject, shape: Shape, purpose: str | None, channel: str) -> Allow:
        """The `Allow`; raises the error of a `Deny`."""
        decision = await self.decide(subject, shape, purpose, channel)
        if isinstance(decision, Deny):
            raise decision.error
        return decision

    def policy_revision(self) -> str:
        """Rules and grants revision, as ``rules.grants``. Raises `DatabaseUnavailable`."""
        return f"{self._engine.revision or 0}.{self._grants.revision()}"

    async def _read(self, subject: Subject, shape: Shape, purpose: str | None, channel: str) -> _Request:
        arguments = (subject, shape, purpose, channel)
        try:
            return await asyncio.to_thread(self._request, *arguments) if self._aside else self._request(*arguments)
        except sa.exc.SQLAlchemyError as error:  # whatever is wrong with the facts, there is no decision without them
            raise DatabaseUnavailable() from error

    def _request(self, subject: Subject, shape: Shape, purpose: str | None, channel: str) -> _Request:
        """The request with the grants as they are now: those of the department, and those of everybody."""
        revisions, at = self._revisions(), self._clock()
        stand = self._standing.of(subject.department)
        if stand.attributes:
            subject = replace(subject, attributes={**subject.attributes, **stand.attributes})
        columns = self._columns_of(shape)
        if stand.suspended:
            return _Request(subject, shape, purpose, channel, at, (), revisions, "suspended", columns)
        consumers = dict.fromkeys((subject.department, PUBLIC))
        pairs = [self._grants.pair(consumer, shape.view.name, revisions.grants) for consumer in consumers]
        held = (grant for pair in pairs for grant in pair.grants if grant.active(at))
        grants = tuple(grant for grant in held if not granted.tells_too_much(grant, shape))
        digest = " ".join(pair.digest for pair in pairs)
        return _Request(subject, shape, purpose, channel, at, grants, revisions, digest, columns)

    def _columns_of(self, shape: Shape) -> bytes:
        """A digest of the columns that a decision is about, worked out once for each shape."""
        known = self._columns.get(shape.view.name)
        if known is None or known[0] is not shape:
            columns = [(column.name, str(column.kind), is_open(column)) for column in shape.columns]
            known = (shape, hashlib.sha256(repr(columns).encode()).digest())
            self._columns[shape.view.name] = known
        return known[1]

    async def _decide(self, request: _Request) -> Decision:
        rules = await self._engine.ready(request.revisions.rules, request.revisions.rules_at)
        key = _cache_key(request, rules)
        decided = self._decided.get(key)
        if decided is not None:
            self._decided.move_to_end(key)
        else:
            decided = _Decided(await self._asked(key, request))
            if decided.outcome.revision == rules:
                self._remember(key, decided)
        return self._concluded(request, decided)

    def _concluded(self, request: _Request, decided: _Decided) -> Decision:
        """What follows of an outcome: worked out once for each shape and revision of the grants, which takes a tenth
        of a question's time. Each decision has an id of its own."""
        if decided.of is request.shape and decided.allow is not None and decided.grants == request.revisions.grants:
            return replace(decided.allow, decision_id=uuid.uuid4().hex)
        decision = self._conclude(request, decided.outcome)
        if isinstance(decision, Allow):
            decided.of, decided.grants, decided.allow = request.shape, request.revisions.grants, decision
        return decision

    async def _asked(self, key: tuple[Any, ...], request: _Request) -> Outcome:
        """What the engine says. Whoever asks the same meanwhile waits for that answer."""
        asking = self._asking.get(key)
        if asking is None:
            facts = request_input(
                request.subject,
                request.shape.view.name,
                request.kinds,
                purpose=request.purpose,
                channel=request.channel,
                at=request.at,
                grants=request.grants,
            )
            asking = self._asking[key] = asyncio.ensure_future(self._engine.ask(facts, request.kinds))
            asking.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(asking)

    def _answered(self, key: tuple[Any, ...], done: asyncio.Future[Outcome]) -> None:
        self._asking.pop(key, None)
        if not done.cancelled():
            done.exception()  # looked at, though everybody who waited may have left

    def _remember(self, key: tuple[Any, ...], decided: _Decided) -> None:
        self._decided[key] = decided
        while len(self._decided) > MAX_CACHED:
            self._decided.popitem(last=False)

    def _conclude(self, request: _Request, outcome: Outcome) -> Decision:
        revision = f"{outcome.revision}.{request.revisions.grants}"
        if not outcome.verdict.allow:
            return Deny(self._refusal(request, outcome.verdict), revision)
        grant = _deciding_grant(request, outcome)
        narrowing = outcome.verdict.narrowing
        if narrowing.ruled and not narrowing.allow:
            return Deny(self._refusal(request, outcome.verdict), revision)
        if (outcome.rows == EVERY_ROW) is not outcome.verdict.allow_all:
            raise PolicyError()
        if (outcome.narrowed == EVERY_ROW) is not (narrowing.allow_all or not narrowing.ruled):
            raise PolicyError()
        columns = tuple(column for column in request.shape.columns if granted.may_show(grant, column))
        return Allow(
            view=grant.view,
            columns=tuple(column.name for column in columns),
            masks=granted.masks(grant, columns),
            filter=both(outcome.rows, outcome.narrowed),
            limits=grant.limits,
            grant_ids=(grant.id,),
            decision_id=uuid.uuid4().hex,
            policy_revision=revision,
            channel=request.channel,
            purpose=grant.purpose,
            consumer=request.subject.department,
            least_group=granted.least_group(grant, request.shape),
            open_to_all=grant.consumer == PUBLIC,
            questions=tuple(name for name in grant.questions if granted.may_ask(grant, request.shape, name)),
        )

    def _refusal(self, request: _Request, verdict: Verdict) -> BusError:
        purposes = sorted({grant.purpose for grant in request.grants})
        asked = Asked(request.subject.department, request.purpose, request.channel, tuple(purposes))
        return refusal(asked, request.shape.view, verdict, self._directory)


def _cache_key(request: _Request, rules: int) -> tuple[Any, ...]:
    """Everything that goes into a decision. Grants begin and end at midnight UTC, so the day stands for the time."""
    subject = request.subject
    return (
        rules,
        request.revisions.rules,
        request.digest,
        subject.department,
        subject.officer,
        tuple(sorted((name, type(value).__name__, value) for name, value in subject.attributes.items())),
        request.shape.view.name,
        request.columns,
        request.purpose if names.is_id(request.purpose) else None,
        request.channel,
        request.at.astimezone(dt.UTC).date(),
    )


def _deciding_grant(request: _Request, outcome: Outcome) -> Grant:
    """The one grant that OPA named, if it really covers the request."""
    by_id = {grant.id: grant for grant in request.grants}
    if len(outcome.verdict.grants) != 1 or outcome.verdict.grants[0] not in by_id:
        raise PolicyError()
    grant = by_id[outcome.verdict.grants[0]]
    channels = {*grant.channels, *(("lookup", "aggregate") if "query" in grant.channels else ())}
    consumers = (request.subject.department, PUBLIC)
    asked = (request.shape.view.name, request.purpose)
    if grant.consumer not in consumers or (grant.view, grant.purpose) != asked or request.channel not in channels:
        raise PolicyError()
    return grant
