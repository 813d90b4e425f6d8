"""Lineage as a document: the fields of a row, the events that made them, versions and contributions. Never a value."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bus.access.decision import Allow
from bus.contracts.wire import PREFIX
from bus.core.columns import Column
from bus.infra.records import Place, Stored
from bus.views.values import instant


@dataclass(frozen=True, slots=True)
class Event:
    """An event by its place, and what it says about itself; only the place where the topic no longer keeps it."""

    place: Place
    entity: str
    stored: Stored | None = None
    contract_version: int | None = None

    @property
    def department(self) -> str:
        return self.entity.partition(".")[0]

    @property
    def time(self) -> dt.datetime | None:
        """When it happened, as it says itself; None where it says nothing that can be read."""
        try:
            found = dt.datetime.fromisoformat(self.header("ce_time") or "")
        except ValueError:
            return None
        return found if found.tzinfo is not None else None

    @property
    def appended(self) -> dt.datetime | None:
        """When it reached the topic."""
        return instant(self.stored.appended_ms * 1_000) if self.stored else None

    @property
    def schema_id(self) -> int | None:
        """None for a delete."""
        head = self.stored.head if self.stored else None
        return PREFIX.unpack(head)[1] if head is not None and len(head) == PREFIX.size else None

    def header(self, name: str) -> str | None:
        return self.stored.headers.get(name) if self.stored else None

    def document(self) -> dict[str, Any]:
        topic, partition, offset = self.place
        where = {"topic": topic, "partition": partition, "offset": offset, "entity": self.entity}
        if self.stored is None:
            return {**where, "department": self.department, "kept": False}
        return {
            **where,
            "department": self.department,
            "kept": True,
            "event_id": self.header("ce_id"),
            "source": self.header("ce_source"),
            "type": self.header("ce_type"),
            "time": self.header("ce_time"),
            "appended": self.appended,
            "sequence": self.header("ce_sequence"),
            "corrects": self.header("ce_corrects"),
            "schema_id": self.schema_id,
            "contract_version": self.contract_version,
        }


@dataclass(frozen=True, slots=True)
class Made:
    """The events that give a field its value, as places: one, or along look-ups first this view's own, then those of
    ``through``. None: no source has a record for it, so there is no value."""

    column: Column
    masked: bool
    places: tuple[Place, ...] = ()
    source: str | None = None
    through: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """A version of a record in a history: since when it was known, and from when (until when) it held."""

    place: Place
    known: dt.datetime
    valid: dt.datetime
    until: dt.datetime | None
    deleted: bool
    current: bool


@dataclass(frozen=True, slots=True)
class Contribution:
    """How many rows of a view an aggregate's row counts. ``keys``: some of them; None where the caller may not see
    which, and ``withheld`` says why."""

    name: str
    view: str
    rows: int
    keys: Sequence[Mapping[str, Any]] | None = None
    withheld: str | None = None


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where the values of one row come from, as far as the caller may know."""

    view: str
    kind: str
    key: Mapping[str, Any]
    decision: Allow
    freshness: str
    made: Sequence[Made] = ()
    versions: Sequence[Known] = ()
    more_versions: bool = False
    contributions: Sequence[Contribution] = ()
    events: Mapping[Place, Event] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The answer's JSON. Fields and versions name events by ``topic/partition@offset``."""
        return {
            "view": self.view,
            "kind": self.kind,
            "key": dict(self.key),
            "fields": [_field(made) for made in self.made],
            **({"versions": [_version(known) for known in self.versions]} if self.kind == "history" else {}),
            **({"more_versions": True} if self.more_versions else {}),
            **({"contributions": [_contribution(one) for one in self.contributions]} if self.contributions else {}),
            "events": {named(place): event.document() for place, event in self.events.items()},
            "policy_revision": self.decision.policy_revision,
        }


def named(place: Place) -> str:
    """A place as people write it."""
    topic, partition, offset = place
    return f"{topic}/{partition}@{offset}"


def _field(made: Made) -> dict[str, Any]:
    return {
        "field": made.column.name,
        "title": dict(made.column.title),
        "masked": made.masked,
        "source": made.source,
        **({"through": made.through} if made.through else {}),
        "events": [named(place) for place in made.places],
    }


def _version(known: Known) -> dict[str, Any]:
    return {
        "event": named(known.place),
        "known": known.known,
        "valid": known.valid,
        "until": known.until,
        "deleted": known.deleted,
        "current": known.current,
    }


def _contribution(one: Contribution) -> dict[str, Any]:
    keys = {"keys_withheld": one.withheld} if one.keys is None else {"keys": [dict(key) for key in one.keys]}
    return {"source": one.name, "view": one.view, "rows": one.rows, **keys}
