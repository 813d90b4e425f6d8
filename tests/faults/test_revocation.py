"""A grant that is taken back while questions, streams and topics are open (F21)."""

from __future__ import annotations

import random

import pytest
from figures import Figures
from homes import Home

from benchmarks.revocation import P99_S, WORST_S, Bus, revoke_once
from benchmarks.revocation import figures as delays
from bus.wiring.site import connection
from tests.conftest import eventually

pytestmark = pytest.mark.fault
DOCUMENT = {
    "view": "complaint",
    "purpose": "inspection_planning",
    "channels": ["query", "stream"],
    "fields": ["request_number", "status", "ward"],
    "limits": {"per_minute": 1_000_000, "rows": 1_000},
    "legal_basis": "for the test",
}


def test_revoked_at_random_moments(stack: Home, figures: Figures, full_length: bool) -> None:
    """Within a second every door is shut: questions are refused, the stream over HTTP is closed with a notice, and
    Kafka refuses to hand out more of the topic."""
    eventually(lambda: stack.ask("complaint").status_code == 200, what="an answer")
    site = stack.site
    own = connection(site.settings, site.kafka, "weather")
    bus = Bus(site.web, stack.api, site.token, own, "weather", DOCUMENT)
    dice, times = random.Random(21), 100 if full_length else 3
    found = delays([revoke_once(bus, dice) for _ in range(times)])
    for door, (p50, p99, worst) in found.items():
        note = f"p50 {p50:.2f} s, p99 {p99:.2f} s" if times >= 100 else ""
        figures.record(f"F21 revoked, {door}", times=times, recovery_s=worst, note=note)
    assert found["every door"][2] <= WORST_S
    if full_length:
        assert found["every door"][1] <= P99_S
