"""How the streams stand, for operators: where each is, how far behind its view, and why it does not go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bus.sharing.streams.store import StreamStore
from bus.views.changelog.reading import LogStanding


def subscriptions(store: StreamStore, standings: Callable[[], Mapping[str, LogStanding]]) -> list[dict[str, Any]]:
    """Every stream that has not ended, by consumer and view. ``position`` and ``behind`` count the view's
    transactions. Raises `DatabaseUnavailable`."""
    views = standings()
    return [
        {
            "consumer": state.consumer,
            "view": state.view,
            "purpose": state.purpose,
            "state": state.state,
            "position": state.seq,
            "behind": max(views.get(state.view, LogStanding()).seq - state.seq, 0),
            "boundary": state.boundary,
            "next_offset": state.next_offset,
            "policy_revision": state.revision,
            "problem": state.problem,
        }
        for state in store.subscriptions()
        if state.state != "ended"
    ]
