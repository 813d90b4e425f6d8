"""The records of the figures: two contracts of 8 fields (about 130 bytes as Avro), made from a fixed seed."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

DEPARTMENT: Final = "bench"
READER: Final = "reader"
PURPOSE: Final = "measuring"
WARDS: Final = 50
_DAY: Final = dt.date(2014, 1, 1)
_TERMS_OF_ONE: Final = 3  # licence terms, and inspections, of one licence


def _contract(name: str, key: str, fields: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return {
        "type": "record",
        "name": name,
        "namespace": DEPARTMENT,
        "bus.owner": DEPARTMENT,
        "bus.contact": "data@bench.example",
        "bus.key": [key],
        "bus.freshness": "P1D",
        "bus.retention": "P5Y",
        "bus.legal_basis": "none: made-up records",
        "fields": [{"name": field, "type": kind} for field, kind in fields],
    }


_DATE: Final = {"type": "int", "logicalType": "date"}
LICENCE: Final = _contract(
    "Licence",
    "licence_term_id",
    [
        ("licence_term_id", "long"),
        ("licence_number", "long"),
        ("legal_name", "string"),
        ("address", "string"),
        ("description", "string"),
        ("zip_code", "string"),
        ("ward", "long"),
        ("term_start", _DATE),
    ],
)
NOTICE: Final = {**LICENCE, "name": "Notice"}  # the same once more: what B1 publishes stays out of B2's topic
INSPECTION: Final = _contract(
    "Inspection",
    "inspection_id",
    [
        ("inspection_id", "long"),
        ("licence_number", "long"),
        ("inspection_date", _DATE),
        ("facility_type", "string"),
        ("risk", "string"),
        ("result", "string"),
        ("critical_violations", "long"),
        ("remark", "string"),
    ],
)
SCHEMAS: Final = (NOTICE, LICENCE, INSPECTION)  # registered in this order, so ids are the same everywhere


def licences(count: int) -> list[dict[str, Any]]:
    """``count`` events; every fifth is a later state of an earlier record, so upserts do happen."""
    dice = random.Random(1)
    rows = []
    for number in range(count):
        term = dice.randrange(number) if number % 5 == 4 else number
        rows.append(
            {
                "licence_term_id": 1_000_000 + term,
                "licence_number": 500_000 + term // _TERMS_OF_ONE,
                "legal_name": f"Lakeside Provisions & Catering {term % 9_973} Ltd",
                "address": f"{number % 9_000 + 100} West Madison Street, Floor {number % 30}",
                "description": "Retail food establishment",
                "zip_code": f"606{term % 60:02}",
                "ward": dice.randrange(1, WARDS + 1),
                "term_start": _DAY + dt.timedelta(days=dice.randrange(3_000)),
            }
        )
    return rows


def inspections(count: int) -> list[dict[str, Any]]:
    """``count`` events of as many records, a few for each licence."""
    dice = random.Random(2)
    return [
        {
            "inspection_id": 7_000_000 + number,
            "licence_number": 500_000 + number // _TERMS_OF_ONE,
            "inspection_date": _DAY + dt.timedelta(days=dice.randrange(3_000)),
            "facility_type": "Restaurant",
            "risk": "Risk 1 (High)",
            "result": "Fail" if dice.random() < 0.2 else "Pass",
            "critical_violations": dice.randrange(6),
            "remark": f"Cold holding checked, {number % 17} items; log of temperatures kept",
        }
        for number in range(count)
    ]


ONE_LEVEL: Final = {
    "view": "bench_term",
    "title": {"zh": "许可期", "en": "Licence term"},
    "owner": DEPARTMENT,
    "kind": "entity",
    "key": ["licence_term_id"],
    "sources": {"licence": {"entity": "bench.licence"}},
    "fields": {
        name: {"from": f"licence.{name}"}
        for name in ("licence_number", "legal_name", "address", "description", "zip_code", "ward", "term_start")
    },
}
TWO_LEVELS: Final = {
    "view": "bench_business",
    "title": {"zh": "经营主体", "en": "Business"},
    "owner": DEPARTMENT,
    "kind": "entity",
    "key": ["licence_number"],
    "sources": {
        "licence": {"entity": "bench.licence", "rank": ["term_start", "licence_term_id"]},
        "inspection": {"entity": "bench.inspection", "rank": ["inspection_date", "inspection_id"]},
    },
    "fields": {
        "legal_name": {"from": "licence.legal_name"},
        "address": {"from": "licence.address"},
        "zip_code": {"from": "licence.zip_code"},
        "ward": {"from": "licence.ward"},
        "term_start": {"from": "licence.term_start"},
        "facility_type": {"from": "inspection.facility_type"},
        "risk": {"from": "inspection.risk"},
        "last_inspection_date": {"from": "inspection.inspection_date"},
        "last_result": {"from": "inspection.result"},
        "last_critical_violations": {"from": "inspection.critical_violations"},
    },
}


def newest(events: Sequence[Mapping[str, Any]], key: str) -> dict[Any, Mapping[str, Any]]:
    """The last event of each record: one record lives in one partition, so the topic keeps this order."""
    return {event[key]: event for event in events}


def expected_terms(events: Sequence[Mapping[str, Any]]) -> tuple[int, int, int]:
    """Rows of `bench_term`, and the sums of ward and licence_number over them: the view's checksum."""
    rows = newest(events, "licence_term_id").values()
    return len(rows), sum(row["ward"] for row in rows), sum(row["licence_number"] for row in rows)


def expected_businesses(
    terms: Sequence[Mapping[str, Any]], visits: Sequence[Mapping[str, Any]]
) -> tuple[int, int, int]:
    """Rows of `bench_business`, and the sums of ward and last_critical_violations: folded here, without the bus."""
    licence = _highest(newest(terms, "licence_term_id").values(), ("term_start", "licence_term_id"))
    inspection = _highest(newest(visits, "inspection_id").values(), ("inspection_date", "inspection_id"))
    return (
        len(licence.keys() | inspection.keys()),
        sum(row["ward"] for row in licence.values()),
        sum(row["critical_violations"] for row in inspection.values()),
    )


def _highest(records: Any, rank: tuple[str, ...]) -> dict[int, Mapping[str, Any]]:
    chosen: dict[int, Mapping[str, Any]] = {}
    for record in records:
        known = chosen.get(record["licence_number"])
        if known is None or [record[name] for name in rank] > [known[name] for name in rank]:
            chosen[record["licence_number"]] = record
    return chosen
