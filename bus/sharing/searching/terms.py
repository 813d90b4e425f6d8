"""What is sought: ``plfts.pizza corner`` (every term) and ``fts.pizza & !corner | 饭店`` (``|`` of ``&`` of terms)."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Final

from bus.errors import BadFilter
from bus.sharing.values import refuse_control

OPERATORS: Final = ("fts", "plfts")
MAX_TERMS: Final = 20
MAX_LENGTH: Final = 100
_FOLDED: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


@dataclass(frozen=True, slots=True)
class Term:
    """Characters that a value has (or, ``absent``, has not) next to each other; A to Z are written small."""

    text: str
    absent: bool = False


Alternatives = tuple[tuple[Term, ...], ...]
"""A value is found where all terms of at least one alternative hold."""


def folded(text: str) -> str:
    """The text with A to Z written small, as `lower` does on both databases, and everything else as it is."""
    return text.translate(_FOLDED)


def parse_terms(op: str, text: str, field: str) -> Alternatives:
    """What is sought. Raises `BadFilter`: no term, too many or too long ones, an operator without its term."""
    refuse_control(text, field)
    if op == "plfts":
        found: Alternatives = (tuple(Term(folded(term)) for term in text.split()),)
    else:
        found = tuple(_all_of(part, field) for part in text.split("|"))
    terms = [term for part in found for term in part]
    if not all(found) or len(terms) > MAX_TERMS or any(len(term.text) > MAX_LENGTH for term in terms):
        limits = f"1 to {MAX_TERMS} terms of at most {MAX_LENGTH} characters"
        raise BadFilter(why=f"`{op}` on '{field}' needs {limits}.", field=field)
    return found


def _all_of(text: str, field: str) -> tuple[Term, ...]:
    return tuple(_term(part.strip(), field) for part in text.split("&"))


def _term(text: str, field: str) -> Term:
    absent = text.startswith("!")
    term = text[absent:].strip()
    if len(term) > 1 and term[0] == term[-1] == "'":
        term = term[1:-1].replace("''", "'")
    elif any(char in "()!:*" or char.isspace() for char in term):
        why = f"`fts` on '{field}' takes terms joined by & and |, perhaps with ! in front; other text stands in '…'"
        raise BadFilter(why=f"{why}, received '{text[:40]}'.", field=field)
    if not term:
        raise BadFilter(why=f"`fts` on '{field}': a term is missing.", field=field)
    return Term(folded(term), absent)


def finds(alternatives: Alternatives, value: str | None) -> bool:
    """Whether a value is found: the reference that both databases equal. A missing value is not."""
    if value is None:
        return False
    text = folded(value)
    return any(all((term.text in text) is not term.absent for term in part) for part in alternatives)
