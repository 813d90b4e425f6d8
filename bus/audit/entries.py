"""What an audit entry says of a disclosure: who, what, why and under which rules. Never a value that was shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """An answer that is about to leave. ``condition``: the row condition (UCAST-like JSON); ``rows``: how many rows
    it has, None where that is not known before the first byte; then a `Closing` entry follows."""

    request_id: str
    who: str
    view: str
    purpose: str
    channel: str
    decision_id: str
    policy_revision: str
    columns: Sequence[str]
    masked: Sequence[str]
    condition: Any
    officer: str | None = None
    rows: int | None = None
    grants: Sequence[str] = ()
    question: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["disclosure"] = "disclosure"

    def body(self) -> dict[str, Any]:
        """The entry's body; lists sorted where order says nothing."""
        return {**_members(self), "columns": list(self.columns), "masked": sorted(self.masked)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """The end of a streamed answer: how many rows left, and whether it was complete."""

    request_id: str
    opening: int
    rows: int
    complete: bool
    kind: Literal["closing"] = "closing"

    def body(self) -> dict[str, Any]:
        """The entry's body."""
        return _members(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A question that was refused: ``code`` is the error code of the answer."""

    request_id: str
    who: str
    view: str
    purpose: str | None
    channel: str
    code: str
    policy_revision: str
    officer: str | None = None
    kind: Literal["refusal"] = "refusal"

    def body(self) -> dict[str, Any]:
        """The entry's body; a purpose from outside is cut."""
        return {**_members(self), "purpose": None if self.purpose is None else self.purpose[:63]}


def _members(entry: Any) -> dict[str, Any]:
    """The entry's members as they are: `asdict` would copy every list in depth, at a third of a question's time."""
    return {item.name: getattr(entry, item.name) for item in fields(entry)}
