"""Events that end whoever decodes them are found in few processes, and a worker that looks for them is not stalled."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_builder import REGISTRY, shapes
from views_world import Message

from bus.infra.database import open_database
from bus.infra.kafka import KafkaConnection
from bus.views import worker
from bus.views.catalogue import Declarations
from bus.views.decoding import trial
from bus.views.workers import reader
from bus.views.workers.held import Held
from bus.views.workers.reader import Reader

PLACE = ("dept.market.licence", 0)


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_each_deadly_event_costs_one_process(deadly: list[bool]) -> None:
    """Exactly the deadly ones are named; there is one process for all, and then one for each and one for the rest."""
    processes = 0

    def survived(_schema: Any, records: Sequence[Message], *, whole: bool = False) -> int:
        nonlocal processes
        processes += 1
        first = next((place for place, record in enumerate(records) if deadly[record.offset]), len(records))
        return first if first == len(records) or not whole else 0

    records = [Message(offset, b"k", b"v", []) for offset in range(len(deadly))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "_survived", survived)
        assert trial._deadly({}, records) == {offset for offset, one in enumerate(deadly) if one}
    assert processes <= 1 + (sum(deadly) + 1 if any(deadly) else 0)


def test_a_worker_that_tries_events_aside_is_not_stalled(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes: it would only begin anew. Without a trial one that does not move is ended."""
    ended: list[int] = []
    seen: list[bool] = []
    monkeypatch.setattr(worker, "STALLED_S", -1.0)
    monkeypatch.setattr(os, "_exit", ended.append)
    governance = open_database(sqlite_url, "governance")
    watched = worker.Worker(
        views=open_database(sqlite_url, "views", durable=False),
        declarations=Declarations(governance),
        registry=REGISTRY,
        kafka=KafkaConnection("nobody is asked", "nobody", "-"),
    )
    held = Held(shapes()["food_business"], 1, positions={PLACE: 3}, reading=True, careful=True)
    watched._roster.held[held.name] = held
    watched._roster._last_ends = {PLACE: 4}
    made = Reader(watched._kafka, REGISTRY, lambda: REGISTRY.contracts, cast("Any", None), batch_events=10)
    made.views[held.name] = held
    watched._readers[made] = cast("Any", None)

    def tried(*_: object) -> frozenset[int]:
        watched._watch()
        seen.append(made.trying)
        return frozenset()

    monkeypatch.setattr(reader, "deadly", tried)
    decoder: Any = type("Decoder", (), {"decode": lambda *_args, **_named: None})()
    watched._watch()
    made._decoded(decoder, PLACE, cast("Any", []), {})
    assert (seen, made.trying, ended) == ([True], False, [])
    watched._watch()
    assert ended == [1]
