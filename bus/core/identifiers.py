"""Identifier types with their checksums: what a field with ``bus.identifier`` must hold.

Sources: GB 11643-1999 (citizen identification number), GB 32100-2015 (unified social credit code),
GB/T 2260 (administrative division codes, first two digits), ISO 8601 (dates).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from typing import Final

_CITIZEN_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CITIZEN_CHECKS: Final = "10X98765432"
_CREDIT_ALPHABET: Final = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_CREDIT_WEIGHTS: Final = (1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28)
# GB/T 2260: the first digit is the region of the country, the second counts its provinces from 1.
_PROVINCES_OF_REGION: Final = {"1": 5, "2": 3, "3": 7, "4": 6, "5": 4, "6": 5, "7": 1, "8": 2}
_PROVINCES: Final = frozenset(
    f"{region}{number}" for region, count in _PROVINCES_OF_REGION.items() for number in range(1, count + 1)
) | {"50"}  # Chongqing, a later one


def citizen_check(first17: str) -> str:
    """The check character of a citizen number's first 17 digits (GB 11643, ISO 7064 MOD 11-2)."""
    total = sum(int(digit) * weight for digit, weight in zip(first17, _CITIZEN_WEIGHTS, strict=True))
    return _CITIZEN_CHECKS[total % 11]


def _is_date(text: str) -> bool:
    try:
        dt.date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return False
    return True


def is_citizen_id(text: str) -> bool:
    """18 characters: region, birth date, order, check character."""
    return (
        re.fullmatch(r"[0-9]{17}[0-9X]", text) is not None
        and text[:2] in _PROVINCES
        and _is_date(text[6:14])
        and citizen_check(text[:17]) == text[17]
    )


def credit_check(first17: str) -> str:
    """The check character of a unified social credit code's first 17 characters (GB 32100, MOD 31)."""
    values = (_CREDIT_ALPHABET.index(char) for char in first17)
    total = sum(value * weight for value, weight in zip(values, _CREDIT_WEIGHTS, strict=True))
    return _CREDIT_ALPHABET[(31 - total % 31) % 31]


def is_unified_social_credit_code(text: str) -> bool:
    """18 characters of the code's alphabet (no I, O, S, V, Z) with the right check character."""
    return len(text) == 18 and all(char in _CREDIT_ALPHABET for char in text) and credit_check(text[:17]) == text[17]


def is_region_code(text: str) -> bool:
    """Six digits whose first two name a province-level division."""
    return re.fullmatch(r"[0-9]{6}", text) is not None and text[:2] in _PROVINCES


def is_iso_date(text: str) -> bool:
    try:
        return dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def is_country_code(text: str) -> bool:
    """Two capital letters (ISO 3166-1 alpha-2, form only)."""
    return re.fullmatch(r"[A-Z]{2}", text) is not None


IDENTIFIERS: Final[Mapping[str, Callable[[str], bool]]] = {
    "citizen_id": is_citizen_id,
    "unified_social_credit_code": is_unified_social_credit_code,
    "region_code": is_region_code,
    "iso_date": is_iso_date,
    "country_code": is_country_code,
}
