"""A view built beside live ones: how much of the time it may take."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bus.views.rebuilding.pace import LEAST, SHARE, TRANSACTION_S, Pace


@given(st.floats(1e-6, 1e-2), st.floats(0.0, 0.05))
def test_transactions_are_short_and_spaced_while_live_views_have_traffic(each: float, own: float) -> None:
    """Whatever events and transactions cost, a transaction comes down to the bound, or to as few events as make
    sense; and rests keep its share of the time."""
    pace = Pace(20_000)
    for _ in range(30):
        seconds = own + pace.events * each
        pace.applied(pace.events, seconds, busy=True)
        assert seconds / (seconds + pace.rest_s) <= SHARE + 1e-9
    assert pace.events == LEAST or own + pace.events * each <= TRANSACTION_S * 1.1


def test_full_speed_while_live_views_are_idle() -> None:
    """Without traffic there are no rests, and transactions are as large as a live view's."""
    pace = Pace(20_000)
    pace.applied(500, 0.01, busy=True)
    pace.applied(500, 0.01, busy=False)
    assert (pace.events, pace.rest_s) == (20_000, 0.0)
    assert Pace(30).events == 30
