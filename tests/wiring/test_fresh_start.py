"""serve is asked before any worker has run."""

from __future__ import annotations

from bus.infra.database import open_database
from bus.views.store import ViewStore


def test_readers_come_before_the_first_worker(database_url: str) -> None:
    """A read-only look at a views database that nobody made yet finds nothing, and nothing fails."""
    views = ViewStore(open_database(database_url, "views", read_only=True))
    assert (views.states(), views.set_aside(), views.quarantined()) == ({}, [], 0)
    assert views.state("food_business") is None
    assert views.freshness("food_business") == {}
