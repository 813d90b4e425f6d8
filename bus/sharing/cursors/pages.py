"""What a page is bound to, where the next one begins, and the tag that says whether an answer is still the same."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from bus.access.decision import Allow
from bus.errors import BadCursor
from bus.sharing.cursors.sealing import Cursors
from bus.sharing.permitted import Permitted
from bus.sharing.question import Query
from bus.sharing.watch import Standing
from bus.views.catalogue import Shape

START: Final = "start"
"""The cursor that asks for the first of several pages."""


@dataclass(frozen=True, slots=True)
class Paging:
    """How one answer is paged. ``bound``: who asks what under which decision, as a digest. ``after``: the place it
    begins after, None for the first page; ``hidden``: key columns that may not order, see `store.turned`."""

    bound: bytes
    turns: bool
    hidden: tuple[str, ...] = ()
    after: tuple[Any, ...] | None = None


class Pages:
    """Pages of the answers of one bus. ``secret``: its own."""

    def __init__(self, secret: bytes) -> None:
        self._cursors = Cursors(secret)
        self._tags = hmac.digest(secret, b"bus.etag", "sha256")

    def paging(self, shape: Shape, query: Query, permitted: Permitted, allow: Allow) -> Paging:
        """How the answer to a question is paged. Where the view's key is hidden from the asker, its hash must order,
        which costs a sort: only who asks for pages (``cursor=start``) gets them. Raises `BadCursor`."""
        bound, hidden = binding(shape, permitted, allow), hidden_key(shape, allow)
        if query.cursor is None and (allow.channel == "lookup" or not permitted.limit or permitted.offset):
            return Paging(bound, turns=False, hidden=hidden)
        if query.cursor is None or query.cursor == START:
            turns = bool(permitted.order or hidden) and not permitted.figures and (not hidden or query.cursor == START)
            return Paging(bound, turns, hidden)
        place = self._cursors.open(query.cursor, bound)
        if len(place) != len(permitted.order) + len(hidden):
            raise BadCursor()
        return Paging(bound, turns=True, hidden=hidden, after=place)

    def next(self, paging: Paging, row: Sequence[Any], places: Sequence[int]) -> str | None:
        """The cursor of the page after ``row``."""
        return self._cursors.seal([row[place] for place in places], paging.bound)

    def tag(self, paging: Paging, query: Query, permitted: Permitted, standing: Standing, variant: str) -> str:
        """The entity tag of an answer (RFC 9110, 8.8.3): of the question, the decision and the number of the view's
        last transaction, and of nothing that any row holds. ``variant``: what else the body depends on. Empty for an
        answer that depends on more than one view, or on one that is not caught up."""
        if query.embedded or standing.stale:
            return ""
        window = (permitted.limit, permitted.offset, permitted.count, query.cursor)
        text = repr((standing.state.seq, window, variant)).encode()
        return hmac.digest(self._tags, paging.bound + text, "sha256").hex()[:32]


def hidden_key(shape: Shape, allow: Allow) -> tuple[str, ...]:
    """The columns of the view's key that the asker does not see as they are."""
    return tuple(name for name in shape.view.key if name not in allow.columns or name in allow.masks)


def binding(shape: Shape, permitted: Permitted, allow: Allow) -> bytes:
    """Who asks which question under which decision, as 32 bytes: other rules, another grant, another purpose or
    another order, and they are others."""
    decision = (
        allow.consumer,
        allow.view,
        shape.fingerprint,
        allow.purpose,
        allow.channel,
        allow.policy_revision.partition(".")[0],
        allow.grant_ids,
        allow.columns,
        tuple(sorted((name, mask.kind, repr(mask.argument)) for name, mask in allow.masks.items())),
        allow.filter,
        allow.least_group,
    )
    shown = tuple((item.column.name, item.name) for item in permitted.shown)
    figures = tuple((item.function, item.column and item.column.name, item.name) for item in permitted.figures)
    return _digest((decision, shown, figures, permitted.filters, permitted.order, permitted.moment))


@lru_cache(maxsize=1_000)
def _digest(bound: tuple[Any, ...]) -> bytes:
    """Kept, since writing it out takes several times as long as looking it up."""
    return hashlib.sha256(repr(bound).encode()).digest()
