"""How much may be asked, at once and in a minute."""

from __future__ import annotations

import pytest

from bus.errors import RateLimited
from bus.sharing.admission import Admission


def test_a_minute_slides() -> None:
    """The limit counts the last sixty seconds, and the refusal says how long to wait."""
    now = [0.0]
    admission = Admission(lambda: now[0])
    for second in (0.0, 10.0):
        now[0] = second
        admission.count("tax", 2)
    now[0] = 20.0
    with pytest.raises(RateLimited) as caught:
        admission.count("tax", 2)
    assert caught.value.members["retry_after_s"] == 40
    admission.count("food", 2)
    now[0] = 60.0
    admission.count("tax", 2)


def test_places_are_given_back() -> None:
    """A department has so many questions under way at once, and a failed one frees its place."""
    admission = Admission(lambda: 0.0, at_once=1)
    with pytest.raises(KeyError), admission.under_way("tax"):
        raise KeyError
    with admission.under_way("tax"):
        with pytest.raises(RateLimited), admission.under_way("tax"):
            pass
        with admission.under_way("food"):
            pass
