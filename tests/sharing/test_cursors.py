"""Sealed places: what went in comes out, for the one question it was sealed for."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import BadCursor
from bus.sharing.cursors.sealing import LONGEST, Cursors

CURSORS = Cursors(b"a secret")
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.dates(),
    st.datetimes(timezones=st.just(dt.UTC)),
    st.text(max_size=20),
    st.binary(max_size=20),
)


@given(st.lists(VALUES, max_size=5), st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_a_place_comes_out_as_it_went_in(place: list[object], bound: bytes, other: bytes) -> None:
    """Values keep their types and every digit; bound to anything else, the cursor does not open."""
    sealed = CURSORS.seal(place, bound)
    assert sealed is not None
    opened = CURSORS.open(sealed, bound)
    assert list(opened) == place
    assert [type(value) for value in opened] == [type(value) for value in place]
    assert sealed != CURSORS.seal(place, bound)
    for reader, for_what in ((CURSORS, other), (Cursors(b"another secret"), bound)):
        if (reader, for_what) != (CURSORS, bound):
            with pytest.raises(BadCursor):
                reader.open(sealed, for_what)


@given(st.text(max_size=80), st.integers(0, 60), st.characters(min_codepoint=33, max_codepoint=126))
def test_nothing_else_opens(text: str, place: int, char: str) -> None:
    """Neither any text nor a cursor with one character changed."""
    bound = b"b" * 32
    sealed = str(CURSORS.seal([1, "a"], bound))
    changed = sealed[: place % len(sealed)] + char + sealed[place % len(sealed) + 1 :]
    for forged in (text, changed):
        if forged != sealed:
            with pytest.raises(BadCursor):
                CURSORS.open(forged, bound)


def test_a_place_too_large_for_an_address_has_no_cursor() -> None:
    """Better none than one that cannot be sent back."""
    assert CURSORS.seal(["x" * LONGEST], b"") is None
    assert CURSORS.seal([Decimal("1.10")], b"") is not None
