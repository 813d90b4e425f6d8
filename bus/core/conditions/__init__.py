"""Row conditions: from the tree that people write to an *or* of *ands* of atoms that every evaluator reads.

Negations are pushed inward, so no atom is ever negated from outside. A comparison with a missing value
never matches, and neither does its negation: `matches` is the reference that OPA, SQL and stream
predicates must equal, row by row.
"""

from __future__ import annotations

from bus.core.conditions.matching import matches, resolve
from bus.core.conditions.normal import (
    ALL_ROWS,
    EVERY_ROW,
    NO_ROW,
    OPERATORS,
    Atom,
    Clause,
    Clauses,
    Condition,
    SubjectAttribute,
    Today,
)
from bus.core.conditions.types import as_instant, check, typed
from bus.core.conditions.written import MAX_CLAUSES, MAX_DAYS, MAX_DEPTH, MAX_ITEMS, WRITTEN, parse_condition

__all__ = [
    "ALL_ROWS",
    "EVERY_ROW",
    "MAX_CLAUSES",
    "MAX_DAYS",
    "MAX_DEPTH",
    "MAX_ITEMS",
    "NO_ROW",
    "OPERATORS",
    "WRITTEN",
    "Atom",
    "Clause",
    "Clauses",
    "Condition",
    "SubjectAttribute",
    "Today",
    "as_instant",
    "check",
    "matches",
    "parse_condition",
    "resolve",
    "typed",
]
