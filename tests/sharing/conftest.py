"""Worlds of other rooms that tests of doors are built on."""

from __future__ import annotations

import sys
from pathlib import Path

for room in ("access", "views"):
    sys.path.append(str(Path(__file__).parents[1] / room))
