"""Where the streams are: what the streams database keeps of each subscription and of each change of its terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bus.errors import BusError

State = Literal["starting", "running", "ending", "ended"]
Kind = Literal["started", "narrowed", "widened", "ended"]


class Fenced(BusError):
    """Another process writes the streams now: this one must not write any more."""


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """A consumer's stream of a view. ``digest``: of the terms (`Terms`) that the topic has from ``boundary`` on (the
    first offset that the consumer may read); ``seq``: how far of the view is in it; ``next_offset``: after its last
    record; ``revision``: of the policy, ``rules.grants``; ``problem``: why it does not go on, empty where it does.
    ``generation``: counts the passes over the whole view; ``opaque``: its keys are hashes;
    ``unsure``: what was sent of the view up to there may be in the topic without being recorded."""

    consumer: str
    view: str
    purpose: str = ""
    digest: str = ""
    state: State = "starting"
    seq: int = 0
    boundary: int = 0
    next_offset: int = 0
    revision: str = ""
    problem: str = ""
    terms: str = ""
    grants: str = ""
    fingerprint: str = ""
    generation: int = 0
    opaque: bool = False
    unsure: int = 0
    id: int = 0

    @property
    def pair(self) -> tuple[str, str]:
        return self.consumer, self.view


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """One change of terms. ``offset``: from it on the topic has the new ones; ``seq``: the view's then; ``at``: when
    (RFC 3339); ``again``: it was begun before, and did not come to its end."""

    consumer: str
    view: str
    kind: Kind
    offset: int
    seq: int
    revision: str
    reason: str
    at: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """What a page changed in what a topic shows: hashes by key, the keys that it shows no more, and those that the
    present generation confirms as they are."""

    subscription: SubscriptionState
    put: Mapping[str, int] = field(default_factory=dict)
    gone: Sequence[str] = ()
    same: Sequence[str] = ()
