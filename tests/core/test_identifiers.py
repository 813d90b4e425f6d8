"""Identifier types and their checksums, against the examples of the standards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.core.identifiers import (
    IDENTIFIERS,
    citizen_check,
    credit_check,
    is_citizen_id,
    is_country_code,
    is_iso_date,
    is_region_code,
    is_unified_social_credit_code,
)

DIGITS = st.text("0123456789", min_size=17, max_size=17)


@pytest.mark.parametrize("number", ["11010519491231002X", "440524188001010014"])
def test_citizen_numbers_of_the_standard(number: str) -> None:
    """The examples of GB 11643-1999."""
    assert is_citizen_id(number)


@pytest.mark.parametrize(
    "number",
    [
        "110105194912310021",
        "11010519491231002x",
        "11010519490231002X",
        "00010519491231002X",
        "1101051949123100",
        "１１010519491231002X",
        "11010519491231002X ",
        "",
    ],
)
def test_numbers_that_are_none(number: str) -> None:
    """A wrong check character, date, region, length or alphabet."""
    assert not is_citizen_id(number)


@given(st.integers(0, 16), st.integers(1, 9))
def test_a_wrong_digit_is_noticed(place: int, change: int) -> None:
    """MOD 11-2 notices every single wrong digit."""
    first17 = "11010519491231002"
    changed = first17[:place] + str((int(first17[place]) + change) % 10) + first17[place + 1 :]
    assert citizen_check(changed) != "X"


@given(st.integers(0, 15))
def test_swapped_digits_are_noticed(place: int) -> None:
    """MOD 11-2 notices two neighbours that changed places."""
    first17 = "11010519491231002"
    swapped = first17[:place] + first17[place + 1] + first17[place] + first17[place + 2 :]
    assert swapped == first17 or citizen_check(swapped) != "X"


@pytest.mark.parametrize("code", ["91350100M000100Y43"])
def test_credit_codes_of_the_standard(code: str) -> None:
    """The example of GB 32100-2015."""
    assert is_unified_social_credit_code(code)
    assert not is_unified_social_credit_code(code[:-1] + "4")
    assert not is_unified_social_credit_code(code.lower())
    assert not is_unified_social_credit_code(code[:-1])
    assert not is_unified_social_credit_code("I" + code[1:])


@given(DIGITS)
def test_credit_checks_are_of_the_alphabet(first17: str) -> None:
    """Every code has a check character, and with it it is one."""
    assert is_unified_social_credit_code(first17 + credit_check(first17))


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (is_region_code, ["110105", "500101", "650102", "820000"], ["000000", "550000", "11010", "1101055", "11010a"]),
        (is_iso_date, ["2024-02-29"], ["2023-02-29", "20240229", "2024-2-9", ""]),
        (is_country_code, ["CN"], ["cn", "CHN", ""]),
    ],
)
def test_other_identifiers(check: object, good: list[str], bad: list[str]) -> None:
    """Each takes its form and refuses near misses."""
    assert callable(check)
    assert all(check(text) for text in good)
    assert not any(check(text) for text in bad)


@given(st.text())
def test_no_text_breaks_a_check(text: str) -> None:
    """A check answers for any text at all."""
    assert all(check(text) in (True, False) for check in IDENTIFIERS.values())
