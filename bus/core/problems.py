"""Collects what is wrong with a declaration, so that its author sees all of it at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bus.core import names
from bus.errors import InvalidDeclaration


class Problems:
    """Collects what is wrong, so that an author sees all of it at once."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.found: list[str] = []

    def add(self, where: str, text: str) -> None:
        self.found.append(f"{where}: {text}")

    def unknown_members(self, where: str, doc: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
        for member in doc:
            if member not in allowed:
                self.add(where, f"'{member}' is not known here. {names.nearest(str(member), allowed)}")

    def raise_if_any(self) -> None:
        if self.found:
            raise InvalidDeclaration(
                f"{self._what} has {len(self.found)} problem(s): " + "; ".join(self.found), problems=self.found
            )
