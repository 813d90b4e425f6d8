"""What the demo's views must hold, folded from the input files alone: no code of the bus is used.

Plain Python over the CSV files, so that a mistake in publishing, building or reading cannot hide in the
proof. Values as Python types: empty is None.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]
INTEGERS = frozenset(
    {
        "licence_number", "licence_id", "account_number", "ward", "police_district", "licence_code", "inspection_id",
        "critical_violations", "serious_violations", "minor_violations", "community_area",
    }
)  # fmt: skip
NUMBERS = frozenset({"latitude", "longitude", "precipitation_intensity", "temperature_max_f", "wind_speed", "humidity"})
DATES = frozenset({"term_start", "term_expiration", "inspection_date", "created", "completed", "date"})
LICENCE = (
    "legal_name", "doing_business_as", "account_number", "address", "zip_code", "ward", "police_district",
    "licence_description", "business_activity", "application_type", "term_start", "term_expiration", "status",
    "latitude", "longitude",
)  # fmt: skip
INSPECTION = {
    "facility_type": "facility_type",
    "risk": "risk",
    "last_inspection_date": "inspection_date",
    "last_result": "result",
    "last_critical_violations": "critical_violations",
}
REPORTED_TWICE = {"address": "address", "doing_business_as": "dba_name"}  # food's name of what market reports


def _value(name: str, text: str) -> Any:
    if text == "":
        return None
    if name in INTEGERS:
        return int(text)
    if name in NUMBERS:
        return float(text)
    return dt.date.fromisoformat(text) if name in DATES else text


def read(path: Path) -> list[Row]:
    """The rows of a file, typed by column name."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return [{name: _value(name, text) for name, text in row.items()} for row in csv.DictReader(file)]


def _newest(rows: Iterable[Row], key: str, rank: Callable[[Row], tuple[Any, ...]]) -> dict[Any, Row]:
    best: dict[Any, Row] = {}
    for row in rows:
        known = best.get(row[key])
        if known is None or rank(row) > rank(known):
            best[row[key]] = row
    return best


def _terms(licences: list[Row]) -> dict[Any, Row]:
    """The newest term of each licence number."""
    return _newest(
        (row for row in licences if row["licence_term_id"]),
        "licence_number",
        lambda row: (row["term_start"] or dt.date.min, row["licence_term_id"].encode()),
    )


def _newest_inspections(inspections: list[Row]) -> dict[Any, Row]:
    return _newest(inspections, "licence_number", lambda row: (row["inspection_date"], row["inspection_id"]))


def disagreements(data: Path) -> dict[str, int]:
    """Of how many businesses market and food write the address and the trade name differently, by the column of
    `food_business`; upper and lower case and white space aside."""
    terms = _terms(read(data / "business_licences.csv.gz"))
    inspections = _newest_inspections(read(data / "food_inspections.csv.gz"))
    differ = dict.fromkeys(REPORTED_TWICE, 0)
    for number in terms.keys() & inspections.keys():
        for shown, reported in REPORTED_TWICE.items():
            first, second = terms[number][shown], inspections[number][reported]
            if first is not None and second is not None:
                differ[shown] += first.casefold().split() != second.casefold().split()
    return differ


def food_businesses(licences: list[Row], inspections: list[Row]) -> list[Row]:
    """A row for each licence number that either department knows: its newest term and newest inspection."""
    terms, newest = _terms(licences), _newest_inspections(inspections)
    return [
        {"licence_number": number}
        | {name: terms.get(number, {}).get(name) for name in LICENCE}
        | {shown: newest.get(number, {}).get(name) for shown, name in INSPECTION.items()}
        for number in sorted(set(terms) | set(newest))
    ]


def complaints(rows: list[Row]) -> list[Row]:
    """The last row of each request number: a later row is an update of the record."""
    return list({row["request_number"]: row for row in rows}.values())


def ward_hygiene(complaint_rows: list[Row], inspections: list[Row], businesses: list[Row]) -> list[Row]:
    """Counts by ward; what has no ward forms a row of its own."""
    ward_of = {row["licence_number"]: row["ward"] for row in businesses}
    counts: Counter[tuple[int | None, str]] = Counter()
    wards = set()
    for row in complaint_rows:
        wards.add(row["ward"])
        counts[row["ward"], "complaints"] += 1
        counts[row["ward"], "open_complaints"] += row["status"].startswith("Open")
    names = {"Pass": "passed", "Pass w/ Conditions": "conditional", "Fail": "failed"}
    for row in inspections:
        ward = ward_of[row["licence_number"]]
        wards.add(ward)
        counts[ward, names[row["result"]]] += 1
    measures = ("complaints", "open_complaints", "passed", "conditional", "failed")
    return [{"ward": ward} | {name: counts[ward, name] for name in measures} for ward in wards]


def views(data: Path) -> dict[str, list[Row]]:
    """Every view of the demo that comes from files, by name. ``data``: the folder with the files."""
    licences, inspections = read(data / "business_licences.csv.gz"), read(data / "food_inspections.csv.gz")
    complaint_rows = complaints(read(data / "sanitation_complaints.csv.gz"))
    businesses = food_businesses(licences, inspections)
    return {
        "food_business": businesses,
        "complaint": complaint_rows,
        "inspection_history": inspections,
        "weather_daily": read(data / "weather_daily.csv.gz"),
        "ward_hygiene": ward_hygiene(complaint_rows, inspections, businesses),
    }


def differences(expected: list[Row], actual: Iterable[Mapping[str, Any]]) -> list[str]:
    """What differs, in words; order does not matter, every column does."""
    wanted = Counter(_frozen(row) for row in expected)
    found = Counter(_frozen(row) for row in actual)
    missing, extra = wanted - found, found - wanted
    return [f"missing: {dict(row)}" for row in missing.elements()] + [f"extra: {dict(row)}" for row in extra.elements()]


def _frozen(row: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(row.items()))
