"""Rego as far as the lint reads it: tokens, and the statements at the top of a file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bus.errors import Invalid

_TOKEN: Final = re.compile(
    r"""(?P<blank>[ \t\r\n]+|\#[^\n]*)
    |(?P<text>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
    |(?P<mark>:=|==|!=|<=|>=|[-+*/%&|<>=(){}\[\],.:;])""",
    re.VERBOSE,
)
_OPENING: Final = frozenset("({[")
_CLOSING: Final = frozenset(")}]")


@dataclass(frozen=True, slots=True)
class Token:
    """``kind``: text, name, number or mark; ``first``: it begins a line."""

    kind: str
    text: str
    line: int
    first: bool

    @property
    def value(self) -> str:
        """What a text says."""
        return self.text[1:-1] if self.text.startswith("`") else str(json.loads(self.text))


def tokens(source: str) -> list[Token]:
    """The tokens of a Rego file, comments left out. Raises `Invalid` for what is none, such as a template string."""
    found: list[Token] = []
    place, line, first = 0, 1, True
    while place < len(source):
        match = _TOKEN.match(source, place)
        if match is None or match.lastgroup is None:
            raise Invalid(f"line {line}: {source[place]!r} is not taken in a rule file.")
        text = match.group()
        if match.lastgroup == "blank":
            first = first or "\n" in text
        else:
            found.append(_token(match.lastgroup, text, line, first))
            first = False
        line += text.count("\n")
        place = match.end()
    return found


def _token(kind: str, text: str, line: int, first: bool) -> Token:
    token = Token(kind, text, line, first)
    try:
        if kind == "text":
            _ = token.value
    except ValueError as error:
        raise Invalid(f"line {line}: {text} is no text.") from error
    return token


def statements(found: list[Token]) -> Iterator[list[Token]]:
    """The tokens of one rule, import or declaration after the other: each begins a line outside of all brackets."""
    current: list[Token] = []
    depth = 0
    for token in found:
        if token.first and depth == 0 and current and token.kind == "name" and token.text != "else":
            yield current
            current = []
        current.append(token)
        depth += (token.text in _OPENING) - (token.text in _CLOSING) if token.kind == "mark" else 0
    if current:
        yield current
