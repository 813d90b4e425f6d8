"""Keys, versions and headers of events."""

from __future__ import annotations

import datetime as dt
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.core.events import NEVER, Version, headers, key_part, record_key, split_key, version_number

PARTS = st.lists(st.text(st.sampled_from("ab|\\好 ")), min_size=1, max_size=4)


@given(PARTS)
def test_keys_can_be_taken_apart(parts: list[str]) -> None:
    """Whatever the parts hold, separators and escapes included."""
    assert split_key(record_key(parts)) == parts


@given(PARTS, PARTS)
def test_different_parts_are_different_keys(one: list[str], other: list[str]) -> None:
    """No two records share a key by an accident of joining."""
    assert (record_key(one) == record_key(other)) == (one == other)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (-7, "-7"),
        (True, "true"),
        (False, "false"),
        ("a b ", "a b "),
        (dt.date(2024, 1, 2), "2024-01-02"),
        (dt.datetime(2024, 1, 2, tzinfo=dt.UTC), "2024-01-02T00:00:00Z"),
        (dt.datetime(2024, 1, 2, 8, 0, 0, 5, tzinfo=dt.timezone(dt.timedelta(hours=8))), "2024-01-02T00:00:00.000005Z"),
    ],
)
def test_key_parts(value: object, text: str) -> None:
    """One form for each value; instants in UTC."""
    assert key_part(value) == text


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (None, NEVER),
        (7, 7),
        (dt.date(1970, 1, 2), 1),
        (dt.date(1969, 12, 31), -1),
        (dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC), 1_000_000),
        (dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC), 253_402_300_799_999_999),
    ],
)
def test_version_numbers(value: int | dt.date | None, number: int) -> None:
    """Versions of every kind are integers, exact to the microsecond, null below all."""
    assert version_number(value) == number


def test_versions_are_ordered() -> None:
    """The stated version first, then the source's sequence, then the offset; missing is oldest."""
    ordered = [
        Version(NEVER, NEVER, 9),
        Version(NEVER, 1, 0),
        Version(0, NEVER, 3),
        Version(0, NEVER, 4),
        Version(1, 0, 0),
        Version(1, 0, 0, 1),
    ]
    assert all(older < newer for older, newer in itertools.pairwise(ordered))


def test_the_headers_that_are_always_sent() -> None:
    """Four, in a fixed order, as text in UTF-8; no other costs reading speed for nothing."""
    assert headers(event_id="1", department="food", entity="inspection", operation="upsert") == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"1"),
        ("ce_source", b"/food"),
        ("ce_type", b"food.inspection.upsert"),
    ]


def test_the_headers_that_apply() -> None:
    """Each of the others is sent where it has a value, a zero included."""
    sent = headers(
        event_id="1",
        department="food",
        entity="inspection",
        operation="delete",
        sequence=0,
        version=-5,
        corrects="x",
        time="2024-01-01T00:00:00Z",
        legal_basis="法",
        source="/food/system1",
    )
    assert dict(sent) == {
        "ce_specversion": b"1.0",
        "ce_id": b"1",
        "ce_source": b"/food/system1",
        "ce_type": b"food.inspection.delete",
        "ce_time": b"2024-01-01T00:00:00Z",
        "ce_sequence": b"0",
        "ce_legalbasis": "法".encode(),
        "ce_corrects": b"x",
        "ce_version": b"-5",
    }
