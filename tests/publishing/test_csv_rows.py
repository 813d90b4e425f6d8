"""Rows of files: the real ones, and ones that are not as they should be."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))
from contract_worlds import contract_of, field

from bus.contracts.codec import Codec
from bus.contracts.registry import checked_contract
from bus.contracts.validation import Validator, violations
from bus.core.contracts import Contract, parse_contract
from bus.errors import ContractViolation
from bus.publishing.csv_rows import FIRST_ROW, typed_rows
from bus.publishing.preparing import Preparer
from producers.police import residents

ROOT = Path(__file__).parents[2]
DATA = ROOT / "producers" / "data"
FILES = {
    "market/business_licence": ("business_licences", 17_431, 1, 17_430),
    "food/inspection": ("food_inspections", 27_600, 0, 27_600),
    "sanitation/complaint": ("sanitation_complaints", 74_401, 0, 74_026),
    "weather/daily": ("weather_daily", 1_310, 0, 1_310),
}


def _contract(name: str) -> Contract:
    return parse_contract(json.loads((ROOT / "schemas" / f"{name}.avsc").read_text()))


@pytest.mark.parametrize("name", FILES)
def test_the_real_files(name: str) -> None:
    """Every row but the one that is blank keeps its contract, by columns and row by row, and comes back from Avro."""
    file, count, refused, keys = FILES[name]
    contract = _contract(name)
    rows = list(typed_rows(contract, DATA / f"{file}.csv.gz"))
    prepared = Preparer(contract, 1).prepare(rows, first_line=FIRST_ROW, partitions=4)
    assert len(rows) == count
    assert len(prepared.refused) == refused
    assert len(set(prepared.keys)) == keys
    good = [row for row in rows if row[contract.key[0]] is not None]
    decoded = Codec(contract.schema).decode_batch([(value or b"")[5:] for value in prepared.values])
    assert decoded.bad == []
    assert decoded.batch.to_pylist() == good
    validator = Validator(contract)
    assert not any(validator.violations(row) for row in good[::97])


def test_the_blank_row() -> None:
    """It is the last line of the licences, and each field that may not be null is a reason."""
    contract = _contract("market/business_licence")
    rows = typed_rows(contract, DATA / "business_licences.csv.gz")
    ((_, refused),) = Preparer(contract, 1).prepare(list(rows), first_line=FIRST_ROW, partitions=4).refused
    assert refused.line == 17_432
    required = [field.name for field in contract.fields if not field.nullable]
    assert [reason.field for reason in refused.reasons] == required
    assert {reason.received for reason in refused.reasons} == {"null"}


def test_the_synthetic_residents() -> None:
    """5,000 different people who keep the contract, the same ones each time, all marked synthetic."""
    contract = _contract("police/resident")
    people = list(residents())
    validator = Validator(contract)
    assert len({person["citizen_id"] for person in people}) == 5_000
    assert not any(validator.violations(person) for person in people)
    assert people == list(residents())
    assert people[:10] != list(residents(10, seed=1))
    assert all(person["citizen_id"][6:14] == f"{person['birth_date']:%Y%m%d}" for person in people)
    assert all(person["last_crossing_date"] is None or person["passport_number"] for person in people)
    assert contract.schema["doc"].startswith("SYNTHETIC")


def _rows(path: Path, text: str | bytes) -> list[dict[str, object]]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(typed_rows(_contract("weather/daily"), path))


HEADER = "date,precipitation_intensity,temperature_max_f,wind_speed,humidity\n"


def test_cells(tmp_path: Path) -> None:
    """Typed by the contract; empty is null; what is no value stays text; blank lines are no rows."""
    rows = _rows(tmp_path / "a.csv", HEADER + "2024-01-01,0,1.5,,x\n\n")
    assert rows == [
        {
            "date": dt.date(2024, 1, 1),
            "precipitation_intensity": 0.0,
            "temperature_max_f": 1.5,
            "wind_speed": None,
            "humidity": "x",
        }
    ]


@pytest.mark.parametrize("row", ["2024-01-01,0,1,1", "2024-01-01,0,1,1,1,1", "x"])
def test_rows_of_another_shape_are_refused(tmp_path: Path, row: str) -> None:
    """Too few or too many cells: that row is refused and says so, the next one is read."""
    rows = _rows(tmp_path / "a.csv", f"{HEADER}{row}\n2024-01-02,0,1,1,1\n")
    validator = Validator(_contract("weather/daily"))
    assert any(found.field == "(row)" for found in validator.violations(rows[0]))
    assert validator.violations(rows[1]) == []


@pytest.mark.parametrize(
    ("header", "field"),
    [("date", "precipitation_intensity"), ("", "date"), (HEADER.strip() + ",more", "more"), (f"date,{HEADER}", "date")],
)
def test_headers_that_do_not_fit(tmp_path: Path, header: str, field: str) -> None:
    """A file of something else is refused whole, naming the column."""
    with pytest.raises(ContractViolation, match=field):
        _rows(tmp_path / "a.csv", f"{header}\n1\n")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """A row that is not UTF-8 is refused by the contract; the others are read."""
    path = tmp_path / "a.csv"
    contract = _contract("food/inspection")
    names = [field.name for field in contract.fields]
    with gzip.open(DATA / "food_inspections.csv.gz") as file:
        head, first, second = (file.readline() for _ in range(3))
    path.write_bytes(head + first.replace(b"KEVIN", b"K\xffVIN", 1) + second)
    rows = list(typed_rows(contract, path))
    validator = Validator(contract)
    assert [found.field for found in validator.violations(rows[0])] == ["dba_name"]
    assert validator.violations(rows[1]) == []
    assert list(rows[0]) == names


def test_a_byte_order_mark(tmp_path: Path) -> None:
    """Excel writes one; it is no part of the first column's name."""
    assert len(_rows(tmp_path / "a.csv", b"\xef\xbb\xbf" + HEADER.encode() + b"2024-01-01,0,1,1,1\n")) == 1


def test_empty_lines_do_not_shift_the_numbers(tmp_path: Path) -> None:
    """An empty line between rows is a row that is refused, at the end it is nothing."""
    path = tmp_path / "things.csv"
    path.write_text("id,n\na,1\n\nb,2\n\n\n")
    contract = checked_contract(contract_of(field("n", "int")))
    rows = list(typed_rows(contract, path))
    assert [bool(violations(contract, row)) for row in rows] == [False, True, False]
    assert rows[2] == {"id": "b", "n": 2}


def test_a_quote_that_is_never_closed(tmp_path: Path) -> None:
    """The file is refused with the line, not with the library's own error."""
    path = tmp_path / "things.csv"
    path.write_text('id,n\na,1\n"b,2\n' + "c,3\n" * 50_000)
    with pytest.raises(ContractViolation, match="line"):
        list(typed_rows(checked_contract(contract_of(field("n", "int"))), path))
