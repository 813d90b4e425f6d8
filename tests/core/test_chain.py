"""The hash chain: one form for one content, and every entry tied to all before it."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.core.chain import GENESIS, canonical, link

VALUES = st.none() | st.integers() | st.text(max_size=5) | st.booleans()
BODIES = st.dictionaries(st.text(max_size=5), VALUES, max_size=4)


@given(BODIES)
def test_the_order_of_members_does_not_count(body: dict[str, object]) -> None:
    """The canonical form is printable ASCII in one line, whatever the body holds."""
    text = canonical(body)
    assert text == canonical(dict(reversed(body.items())))
    assert text.isascii()
    assert text.decode().isprintable()


def test_what_has_no_one_form_is_refused() -> None:
    """NaN is not JSON."""
    with pytest.raises(ValueError, match="JSON"):
        canonical({"n": float("nan")})


@given(BODIES, BODIES, st.integers(1, 100), st.integers(1, 100))
def test_a_hash_covers_body_number_and_the_hash_before(
    first: dict[str, object], second: dict[str, object], one: int, two: int
) -> None:
    """Equal only if all three are."""
    left, right = link(GENESIS, one, canonical(first)), link(GENESIS, two, canonical(second))
    assert (left == right) is (one == two and canonical(first) == canonical(second))
    assert link(left, one, canonical(first)) != left


def test_the_hash_is_sha256_of_a_form_that_others_can_compute() -> None:
    """So that a proof needs no software of ours."""
    expected = hashlib.sha256(b"0" * 64 + b'\n1\n{"a":1}').hexdigest()
    assert link(GENESIS, 1, canonical({"a": 1})) == expected
