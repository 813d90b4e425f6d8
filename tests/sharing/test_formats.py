"""Bodies: JSON with exact decimals, CSV that no spreadsheet runs, and negotiation."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import NotAcceptable
from bus.sharing.formats import FORMULA, Format, body, negotiate

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)


def test_json_keeps_every_digit_and_character() -> None:
    """Decimals are numbers with all their digits, instants end in Z, Chinese is not escaped."""
    row = (
        Decimal("12345678901234567.10"),
        dt.datetime(2026, 1, 1, 8, tzinfo=dt.UTC),
        dt.date(2026, 1, 1),
        "饭店",
        None,
    )
    text = body(Format.JSON, ("a", "b", "c", "d", "e"), [row]).decode()
    expected = '[{"a":12345678901234567.10,"b":"2026-01-01T08:00:00Z","c":"2026-01-01","d":"饭店","e":null}]'
    assert text == expected


def test_one_object_needs_one_row() -> None:
    """PostgREST's object form is refused for none and for two, with what its client looks for."""
    assert json.loads(body(Format.OBJECT, ("a",), [(1,)])) == {"a": 1}
    for rows in ([], [(1,), (2,)]):
        with pytest.raises(NotAcceptable) as caught:
            body(Format.OBJECT, ("a",), rows)
        assert caught.value.members["details"] == f"The result contains {len(rows)} rows"


def test_json_lines_and_stripped_nulls() -> None:
    """One line a row; `nulls=stripped` leaves null members out."""
    assert body(Format.NDJSON, ("a", "b"), [(1, None), (2, 3)]) == b'{"a":1,"b":null}\n{"a":2,"b":3}\n'
    assert body(Format.JSON, ("a", "b"), [(1, None)], stripped=True) == b'[{"a":1}]'


@given(st.lists(st.tuples(CELLS, CELLS), max_size=5))
def test_csv_is_read_back_and_never_a_formula(rows: list[tuple[str, str]]) -> None:
    """Any text survives CSV, but one that a spreadsheet would run, which gets an apostrophe in front."""
    text = body(Format.CSV, ("a", "b"), rows).decode()
    read = list(csv.reader(io.StringIO(text, newline="")))
    safe = [[f"'{cell}" if cell.startswith(FORMULA) else cell for cell in row] for row in rows]
    assert read == [["a", "b"], *safe]


def test_csv_leaves_numbers_alone() -> None:
    """A negative number stays a number; null is empty and an empty text is in quotes."""
    text = body(Format.CSV, ("a", "b", "c", "d", "e", "f"), [(-5, -1.5, Decimal("-0.50"), None, "", "-5")]).decode()
    assert text == 'a,b,c,d,e,f\r\n-5,-1.5,-0.50,,"",\'-5\r\n'


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, Format.JSON),
        ("*/*", Format.JSON),
        ("text/html,application/xhtml+xml,*/*;q=0.8", Format.JSON),
        ("text/csv", Format.CSV),
        ("application/json;q=0.1, text/csv", Format.CSV),
        ("TEXT/CSV; charset=utf-8", Format.CSV),
        ("application/x-ndjson", Format.NDJSON),
        ("application/vnd.pgrst.object+json", Format.OBJECT),
    ],
)
def test_negotiation(accept: str | None, chosen: Format) -> None:
    """The most wanted offered form is given."""
    assert negotiate(accept) == (chosen, False)


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "nonsense"])
def test_nothing_acceptable(accept: str) -> None:
    """What is not offered is refused with what is."""
    with pytest.raises(NotAcceptable):
        negotiate(accept)
