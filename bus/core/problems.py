"""Collects what is wrong with a declaration, so that its author sees all of it at once, each with its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bus.core import names
from bus.errors import InvalidDeclaration

Lines = Mapping[str, int]
"""The line of each member of a document by its path, such as ``fields.ward.from``."""


class Problems:
    """What is wrong with one declaration. A problem has a text and a place: the path of the member, ``fields.ward``."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._found: dict[str, str] = {}

    @property
    def found(self) -> list[str]:
        """Each problem once, as ``where: text``."""
        return list(self._found)

    @property
    def places(self) -> list[str]:
        """The place of each problem, in the order of `found`."""
        return list(self._found.values())

    def add(self, where: str, text: str, place: str | None = None) -> None:
        """``place``: the path of the member, where it is more exact than what the message names."""
        self._found.setdefault(f"{where}: {text}", place or where)

    def unknown_members(self, where: str, doc: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
        for member in doc:
            if member not in allowed:
                place = str(member) if where == "view" else f"{where}.{member}"
                self.add(where, f"'{member}' is not known here. {names.nearest(str(member), allowed)}", place)

    def error(self) -> InvalidDeclaration:
        """All of it as one error; its members ``problems`` and ``places`` have one entry each."""
        text = f"{self._what} has {len(self._found)} problem(s): " + "; ".join(self._found)
        return InvalidDeclaration(text, problems=self.found, places=self.places)

    def raise_if_any(self) -> None:
        if self._found:
            raise self.error()


def line_of(place: str, lines: Lines) -> int | None:
    """The line of a member, or of the nearest member around it that the file has; None for an unknown document."""
    while place:
        if place in lines:
            return lines[place]
        place = place.rpartition(".")[0]
    return lines.get("view")


def numbered(problems: Sequence[str], places: Sequence[str], lines: Lines, file: str) -> list[str]:
    """The problems as ``file:line: text``, in the order of lines."""
    shown = [(line_of(place, lines) or 1, text) for text, place in zip(problems, places, strict=True)]
    return [f"{file}:{line}: {text}" for line, text in sorted(shown, key=lambda item: item[0])]
