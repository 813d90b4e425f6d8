"""Masks: what they show of a value, and what they refuse."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.core.contracts import Kind
from bus.core.masks import APPLIES, Mask, apply_mask, check_mask, consumer_key, parse_mask, shown_kind
from bus.errors import BadFilter


@pytest.mark.parametrize(
    ("mask", "value", "shown"),
    [
        ({"keep_first": 3}, "LOU MALNATI", "LOU***"),
        ({"keep_first": 3}, "LOU", "***"),
        ({"keep_first": 3}, "", "***"),
        ({"keep_first": 0}, "LOU", "***"),
        ({"keep_first": 1}, "王伟", "王***"),
        ({"keep_last": 4}, "110101199003078515", "***8515"),
        ({"keep_last": 4}, "8515", "***"),
        ({"prefix": 3}, "60601", "606"),
        ({"prefix": 3}, "60", "60"),
        ({"constant": "hidden"}, "x", "hidden"),
        ({"constant": 0}, 5, 0),
        ({"year": True}, dt.date(1990, 3, 7), "1990"),
        ({"month": True}, dt.date(1990, 3, 7), "1990-03"),
        ({"year": True}, dt.datetime(2025, 12, 31, 20, tzinfo=dt.timezone(dt.timedelta(hours=-8))), "2026"),
        ({"round": 2}, 41.87811, 41.88),
        ({"round": 0}, 2.5, 3.0),
        ({"round": -2}, 149, 100),
        ({"round": -2}, 150, 200),
        ({"round": -2}, -150, -100),
        ({"round": 2}, 7, 7),
        ({"round": 1}, Decimal("2.25"), Decimal("2.30")),
        ({"round": -1}, Decimal("-15.00"), Decimal("-10.00")),
        ({"round": 5}, Decimal("2.25"), Decimal("2.25")),
    ],
)
def test_masks_by_example(mask: dict[str, Any], value: Any, shown: Any) -> None:
    """As the documents promise; rounding is half up."""
    assert apply_mask(value, parse_mask(mask, "f")) == shown


@pytest.mark.parametrize("name", APPLIES)
def test_null_stays_null(name: str) -> None:
    """No mask makes a value out of none."""
    assert apply_mask(None, Mask(name, 3), b"key") is None


@given(st.text(max_size=20), st.integers(0, 25))
def test_keeping_never_shows_more_than_it_says(value: str, count: int) -> None:
    """At most `count` characters, and nothing about the length."""
    for name in ("keep_first", "keep_last"):
        assert len(apply_mask(value, Mask(name, count))) in (3, 3 + count)


def test_hashes_are_stable_keyed_and_short() -> None:
    """The same for one consumer, another for another, 32 hex digits."""
    one, two = consumer_key(b"secret", "tax"), consumer_key(b"secret", "food")
    mask = parse_mask({"hash": True}, "f")
    assert apply_mask("x", mask, one) == apply_mask("x", mask, one) != apply_mask("x", mask, two)
    assert len(apply_mask("x", mask, one)) == 32
    assert consumer_key(b"secret", "tax") != consumer_key(b"other", "tax")


@pytest.mark.parametrize(
    "mask",
    [
        None, [], {}, {"keep_first": 3, "hash": True}, {"blur": 1}, {"keep_first": "3"}, {"keep_first": -1},
        {"keep_first": True}, {"hash": False}, {"year": 1}, {"constant": None}, {"constant": []}, {"round": 19},
        {"round": -400}, {"round": 1.5},
    ],
)  # fmt: skip
def test_what_is_not_a_mask_is_refused(mask: Any) -> None:
    """Unknown kinds and arguments that mean nothing."""
    with pytest.raises(BadFilter):
        parse_mask(mask, "f")


@pytest.mark.parametrize("name", APPLIES)
@pytest.mark.parametrize("kind", Kind)
def test_masks_fit_their_kinds_only(name: str, kind: Kind) -> None:
    """A mask on another kind is refused, never skipped."""
    if kind in APPLIES[name]:
        check_mask(Mask(name, 1), "f", kind)
        assert shown_kind(Mask(name, 1), kind) in Kind
    else:
        with pytest.raises(BadFilter):
            check_mask(Mask(name, 1), "f", kind)


def test_the_kind_of_what_is_shown() -> None:
    """Hash, year and month are text; a constant is what it is; the rest stays."""
    assert shown_kind(None, Kind.DATE) is Kind.DATE
    assert shown_kind(Mask("year", True), Kind.DATE) is Kind.TEXT
    assert shown_kind(Mask("constant", True), Kind.TEXT) is Kind.BOOLEAN
    assert shown_kind(Mask("round", 1), Kind.DECIMAL) is Kind.DECIMAL
