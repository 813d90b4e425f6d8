"""Why not, whom to ask, and how to apply: what a refused department is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from bus.access.answers import Verdict
from bus.core.grants import PUBLIC
from bus.core.views import View
from bus.errors import (
    BusError,
    ChannelNotGranted,
    NotGranted,
    PolicyError,
    PurposeNotGranted,
    UnknownDepartment,
    UnknownView,
)

STANDING_S: Final = 1.0
MAX_KNOWN: Final = 10_000
Attributes = Mapping[str, str | int | float | bool]


class HasContact(Protocol):
    """A department, as far as a decision needs it."""

    @property
    def contact(self) -> str: ...
    @property
    def suspended(self) -> bool: ...
    @property
    def attributes(self) -> Attributes: ...


class Directory(Protocol):
    """Where to ask: raises `UnknownDepartment`."""

    def department(self, department: str, /) -> HasContact: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked. ``purposes``: those that the department could have named."""

    department: str
    purpose: str | None
    channel: str
    purposes: tuple[str, ...]


def refusal(asked: Asked, view: View, verdict: Verdict, directory: Directory) -> BusError:
    """The error for a denying verdict; the first check that failed, in the order of interface.md.

    Who has no grant on a view that is not listed does not learn that it is there. Raises `PolicyError` for a
    verdict that says neither yes nor why not.
    """
    if verdict.reason == "not_granted" and not view.listed:
        return UnknownView(view=view.name)
    contact = _contact(view.owner, directory)
    members = {
        "department": asked.department,
        "view": view.name,
        "owner": view.owner,
        "contact": contact,
        "rule": f"bus.access: {verdict.reason}",
        "remedy": f"Apply to {view.owner} ({contact}) for a grant on {view.name}, naming purpose and legal basis.",
    }
    if verdict.reason == "not_granted":
        return NotGranted(**members)
    if verdict.reason == "purpose_not_granted":
        return PurposeNotGranted(**members, purpose=str(asked.purpose or "")[:63], purposes=list(asked.purposes))
    if verdict.reason == "channel_not_granted":
        granted = ", ".join(sorted(verdict.channels))
        return ChannelNotGranted(**members, channel=asked.channel, granted=granted)
    if verdict.narrowing.ruled and not verdict.narrowing.allow:
        return _narrowed(members, verdict.narrowing.hint)
    raise PolicyError()


def _narrowed(members: Mapping[str, str], hint: str) -> NotGranted:
    """A grant covers the request, and the view's own rule does not."""
    view, owner, contact = members["view"], members["owner"], members["contact"]
    why = hint or "It says no more."
    text = f"The rule of the view {view} itself refuses this request. {why} Ask {owner} ({contact})."
    narrowed = {**members, "rule": f"bus.views.{view}: allow", "remedy": f"Ask {owner} ({contact}). {why}"}
    return NotGranted(text, **narrowed)


def _contact(owner: str, directory: Directory) -> str:
    try:
        return directory.department(owner).contact
    except UnknownDepartment:
        return ""


@dataclass(frozen=True, slots=True)
class Stand:
    """What the register says of a department that asks."""

    suspended: bool = False
    attributes: Attributes = field(default_factory=dict)


class Standing:
    """How departments stand: suspended, they read nothing, whatever was granted; their attributes go before those of
    a token. Asked anew every second."""

    def __init__(self, directory: Directory, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._monotonic = monotonic
        self._known: dict[str, tuple[float, Stand]] = {}

    def of(self, department: str) -> Stand:
        """A department that nobody registered is not suspended: it may read what everybody may."""
        known = self._known.get(department)
        if known is not None and self._monotonic() < known[0]:
            return known[1]
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        stand = self._read(department)
        self._known[department] = (self._monotonic() + STANDING_S, stand)
        return stand

    def _read(self, department: str) -> Stand:
        if department == PUBLIC:
            return Stand()
        try:
            found = self._directory.department(department)
        except UnknownDepartment:
            return Stand()
        return Stand(found.suspended, dict(found.attributes))
