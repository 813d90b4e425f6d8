"""What is asked of the query door, and what it hands out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from bus.access.decision import Allow
from bus.access.identity import Subject
from bus.sharing.past import as_texts
from bus.sharing.permitted import Shown
from bus.views.derived.history import NOW, Moment


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks which view, for which purpose; None: none or several were stated.

    ``address``: whoever asks without a token is told apart by it. ``known``: entity tags of answers that the asker
    has; ``variant``: what the body depends on beside the rows. ``export``: the rows as a file.
    """

    subject: Subject
    view: str
    purpose: str | None
    request_id: str = ""
    address: str = ""
    known: frozenset[str] = frozenset()
    variant: str = ""
    export: bool = False

    @property
    def who(self) -> Hashable:
        """Whose questions are counted together."""
        return (self.subject.department, self.address)


@dataclass(frozen=True, slots=True)
class Inside:
    """A related view that an answer shows beside each row: under which name, decision and columns, and how far behind
    its sources it is."""

    name: str
    decision: Allow
    shown: tuple[Shown, ...]
    freshness: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the door hands out: rows in the order of ``shown``, and under which decision.

    ``total``: how many rows there are in all within the row filter, where it was asked for.
    ``rows`` is empty for an explained question; ``moment``: what it was to be read as of. ``stale``:
    why the rows are not those of a view that is caught up. ``next_cursor``: where the next page begins, if there is
    one; ``paged``: this one began at a cursor. ``tag``: its entity tag; ``unchanged``: the asker has it already.
    ``withheld``: how many rows or figures were withheld in part because they are of few; None: none could be.
    ``inside``: the related views that it shows.
    """

    view: str
    shown: tuple[Shown, ...]
    rows: Sequence[Sequence[Any]]
    offset: int
    total: int | None
    freshness: str
    decision: Allow
    explained: bool = False
    moment: Moment = NOW
    stale: str = ""
    next_cursor: str | None = None
    paged: bool = False
    tag: str = ""
    unchanged: bool = False
    withheld: int | None = None
    inside: tuple[Inside, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(shown.name for shown in self.shown)

    @property
    def masked(self) -> tuple[str, ...]:
        """The masked columns of this answer, sorted."""
        own = [shown.name for shown in self.shown if shown.mask is not None]
        inside = [f"{item.name}.{one.name}" for item in self.inside for one in item.shown if one.mask is not None]
        return tuple(sorted([*own, *inside]))

    @property
    def personal(self) -> bool:
        """Whether a column of this answer is about persons."""
        return any(shown.column.personal for shown in self.shown)

    @property
    def partial(self) -> bool:
        """Whether the total is known and there are rows beyond these."""
        return self.total is not None and len(self.rows) < self.total

    @property
    def content_range(self) -> str:
        """``0-9/120``; ``*`` where there are no rows, or the total is not known, or the page began at a cursor."""
        span = f"{self.offset}-{self.offset + len(self.rows) - 1}" if self.rows and not self.paged else "*"
        return f"{span}/{'*' if self.total is None else self.total}"


def explanation(answer: Answer) -> dict[str, Any]:
    """The decision as a document: what the asker may see and under which grants, no rows and no policy text."""
    allow = answer.decision
    inside = {item.name: _decided(item.decision) for item in answer.inside}
    return {
        "allow": True,
        "view": answer.view,
        "purpose": allow.purpose,
        "channel": allow.channel,
        **_figures(allow),
        **as_texts(answer.moment),
        "decision": allow.decision_id,
        "policy_revision": allow.policy_revision,
        **_decided(allow),
        **({"embedded": inside} if inside else {}),
    }


def _decided(allow: Allow) -> dict[str, Any]:
    """What one grant shows."""
    return {
        "grants": list(allow.grant_ids),
        "columns": list(allow.columns),
        "masks": {name: mask.as_fact() for name, mask in sorted(allow.masks.items())},
        "limits": {"per_minute": allow.limits.per_minute, "rows": allow.limits.rows},
    }


def _figures(allow: Allow) -> dict[str, Any]:
    """Below how many rows a figure is withheld, and how many questions there are in a day."""
    told = {"least_group": allow.least_group, "per_day": allow.limits.per_day}
    return {name: value for name, value in told.items() if value is not None and allow.channel == "aggregate"}
