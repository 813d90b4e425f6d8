"""The demo's question: one view, one ward, asked by four departments; their answers side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bus.cli import context
from bus.sharing.client import Answered

ASKERS: Final = (
    ("food", "inspection_planning"),
    ("tax", "levy"),
    ("weather", "levy"),
    ("police", "case_investigation"),
)
VIEW: Final = "food_business"
COLUMNS: Final = ("licence_number", "legal_name", "ward", "last_result", "latitude")
HIDDEN: Final = "(not granted)"


def ask_around(say: Callable[[str], None]) -> None:
    """Asks and prints; a refusal is an answer too, with its rule, owner and remedy."""
    for department, purpose in ASKERS:
        say(f"  {department}, for {purpose}:")
        for line in _answer(department, purpose):
            say(f"    {line}")


def _answer(department: str, purpose: str) -> list[str]:
    with context.query_client(department) as client:
        try:
            answer = client.query(
                VIEW, purpose=purpose, where={"ward": "eq.20"}, order="licence_number.asc", limit=3, count=True
            )
        except Answered as refusal:
            problem = refusal.document
            return [f"refused ({problem['status']} {problem['code']}): {problem['detail']}"]
    lines = ["  ".join(f"{name}={row.get(name, HIDDEN)}" for name in COLUMNS) for row in answer.rows]
    return [*lines, f"{answer.total} rows in all; masked: {', '.join(answer.masked) or 'nothing'}"]
