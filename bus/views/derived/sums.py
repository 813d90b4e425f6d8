"""Sums of floating-point numbers without rounding on the way, so that neither order nor what was taken away shows.

Every finite number is a whole multiple of 2^-1074; the sum of these multiples is kept, as text, and rounded once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

_SCALE: Final = 1074
_UNIT: Final = 1 << _SCALE
EMPTY: Final = "0,0,0,0"


@dataclass(slots=True)
class Sum:
    """``units``: of 2^-1074; how often each infinity is among the values."""

    units: int = 0
    infinite: int = 0
    negative: int = 0

    def add(self, value: float, sign: int) -> None:
        """Adds the value (``sign`` 1) or takes it away (-1)."""
        if math.isinf(value):
            self.infinite += sign if value > 0 else 0
            self.negative += sign if value < 0 else 0
        else:
            numerator, denominator = value.as_integer_ratio()
            self.units += sign * (numerator * (_UNIT // denominator))

    def plus(self, other: Sum) -> Sum:
        return Sum(self.units + other.units, self.infinite + other.infinite, self.negative + other.negative)

    def rounded(self) -> float | None:
        """The nearest floating-point number; None for the sum of both infinities, which is not a number. Raises
        OverflowError beyond the greatest."""
        if self.infinite and self.negative:
            return None
        if self.infinite or self.negative:
            return math.inf if self.infinite else -math.inf
        return self.units / _UNIT

    def text(self) -> str:
        zeros = (self.units & -self.units).bit_length() - 1 if self.units else 0
        return f"{self.units >> zeros:x},{zeros},{self.infinite},{self.negative}"


def parse(text: str) -> Sum:
    """What `Sum.text` wrote."""
    units, zeros, infinite, negative = text.split(",")
    return Sum(int(units, 16) << int(zeros), int(infinite), int(negative))
