"""The oracle of discrepancies: what must be open by a plain fold of the events, and what the table says is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bus.core.contracts import Contract
from bus.core.events import record_key
from bus.core.views import View, ViewField
from bus.views.derived.disagreement import pairs, value_text
from bus.views.oracle.verify import Event, fold
from bus.views.store import DISCREPANCY

Open = dict[tuple[str, str, str], tuple[str, str]]
"""By key, field and other source: the value that the view shows, and the one that the other source reports."""


def fold_open(view: View, contracts: Mapping[str, Contract], events: Sequence[Event]) -> Open:
    """What is open after these events: the fold of a view that shows both values of a pair side by side."""
    found: Open = {}
    for pair in pairs(view):
        both = (ViewField("shown", pair.source, pair.own), ViewField("reported", pair.other, pair.reported))
        for row in fold(replace(view, fields=both, lookups=()), contracts, events):
            if row["shown"] is None or row["reported"] is None:
                continue
            texts = (value_text(row["shown"]), value_text(row["reported"]))
            plain = [text.casefold().split() if pair.folded else text for text in texts]
            if plain[0] != plain[1]:
                found[record_key(row[name] for name in view.key), pair.field, pair.other] = texts
    return found


def read_open(connection: Connection, view: str) -> Open:
    """What the table says is open."""
    names = ("key", "field", "other", "shown", "reported")
    mine = (DISCREPANCY.c.view == view, DISCREPANCY.c.closed_ms.is_(None))
    rows = connection.execute(sa.select(*(DISCREPANCY.c[name] for name in names)).where(*mine))
    return {(row.key, row.field, row.other): (row.shown, row.reported) for row in rows}


def differing(there: Open, wanted: Open) -> list[str]:
    """What differs, a line each: ``+`` the table alone, ``-`` the fold alone."""
    extra = [f"+ open: {key} {values}" for key, values in sorted(there.items()) if wanted.get(key) != values]
    return extra + [f"- open: {key} {values}" for key, values in sorted(wanted.items()) if there.get(key) != values]
