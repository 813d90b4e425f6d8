"""The rows of the served world: businesses, samples of every kind, complaints, a resident; tables filled with them."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from open_world import BY_DISTRICT, HIDDEN

from bus.core.contracts import Kind
from bus.infra.database import create_tables
from bus.views.catalogue import Shape
from bus.views.store import POSITION, VIEW
from bus.views.tables import is_one_level, row_table

XSS = "<img src=x onerror=alert(1)>"
SAMPLES: list[dict[str, Any]] = [
    {
        "sample_id": 1,
        "label": "普通样品",
        "score": 1.5,
        "passed": True,
        "taken_on": dt.date(2026, 1, 31),
        "seen_at": dt.datetime(2026, 1, 31, 8, 0, 0, 250, tzinfo=dt.UTC),
        "fee": Decimal("12345678901234.05"),
        "raw": b"\x00\xff",
        "parts": ["a", "b"],
    },
    {"sample_id": 2, "label": "=1+1", "score": -2.5, "passed": False, "fee": Decimal("-0.50")},
    {"sample_id": 3, "label": "", "score": 0.0, "passed": None, "fee": Decimal("7.00")},
    {"sample_id": 4, "label": None, "score": None, "passed": None},
    {"sample_id": 5, "label": 'a,"b"', "score": 3.0, "passed": True, "taken_on": dt.date(2026, 2, 1)},
    {"sample_id": 6, "label": "50%_off", "score": 4.0},
    {"sample_id": 7, "label": "50xyoff", "score": 5.0},
    {"sample_id": 8, "label": "' OR 1=1--", "score": 6.0},
]


def businesses(count: int = 400) -> list[dict[str, Any]]:
    """Rows of `food_business`: wards 1 to 50 in turn, every ninth without a ward, every fifth never inspected."""
    rows = []
    for number in range(1, count + 1):
        name = XSS if number == 2 else f"老王饭店 {number}" if number % 2 else f"Corner Deli {number}"
        row: dict[str, Any] = {
            "licence_number": number,
            "legal_name": name,
            "doing_business_as": name.upper(),
            "account_number": 9_000 + number,
            "address": f"{number} W Madison St",
            "zip_code": f"606{number % 50:02}",
            "ward": None if number % 9 == 0 else number % 50 + 1,
            "police_district": number % 25 + 1,
            "licence_description": "Retail Food Establishment",
            "status": "AAI",
            "latitude": 41.8 + number / 10_000,
            "longitude": -87.6 - number / 10_000,
        }
        if number % 5:
            inspected = {"last_result": "Fail" if number % 4 == 0 else "Pass", "risk": "Risk 1 (High)"}
            row |= inspected | {"last_inspection_date": dt.date(2026, 1, 1) + dt.timedelta(days=number % 90)}
        rows.append(row)
    return rows


def fill(views: sa.Engine, shape: Shape, rows: Sequence[Mapping[str, Any]], *, state: str = "live") -> None:
    """Makes a view's table with these rows, and its entry as a worker would."""
    table = row_table(shape)
    create_tables(views, table.metadata)
    hidden: dict[str, Any] = {}
    if is_one_level(shape):
        hidden = {"_v1": 1, "_v2": 1, "_v3": 1, "_live": True, "_partition": 0}
    blank = dict.fromkeys((column.name for column in shape.columns), None)
    sources = {source.name: f"dept.{source.entity}" for source in shape.view.sources}
    now_ms = int(time.time() * 1_000)
    with views.begin() as connection:
        for start in range(0, len(rows), 5_000):
            chunk = [{**blank, **row, **hidden, **_group(shape, row)} for row in rows[start : start + 5_000]]
            connection.execute(sa.insert(table), chunk)
        kept = json.dumps([{"name": table.name, "live": bool(hidden)}])
        entry = {"name": shape.view.name, "fingerprint": shape.fingerprint, "state": state, "tables": kept}
        connection.execute(sa.insert(VIEW).values(**entry, sources=json.dumps(sources), seq=7))
        for topic in sources.values():
            place = {"view": shape.view.name, "topic": topic, "partition": 0, "next_offset": 10, "end_offset": 12}
            connection.execute(sa.insert(POSITION).values(**place, sequenced=False, complete_ms=now_ms - 1_500))


def _group(shape: Shape, row: Mapping[str, Any]) -> dict[str, Any]:
    """An aggregate's row is kept by its group; none of ours lacks a value."""
    if shape.view.kind != "aggregate":
        return {}
    return {"_nulls": 0, "_rows": 1, **{f"_k{index}": row[name] for index, name in enumerate(shape.view.key)}}


def rows_of(shape: Shape, complaints: int) -> list[dict[str, Any]]:
    if shape.view.name == "food_business":
        return businesses()
    if shape.view.name in ("sample", "hidden_sample"):
        return SAMPLES
    if shape.view.name == "complaint":
        texts = [column.name for column in shape.columns if column.kind is Kind.TEXT]
        blank = dict.fromkeys(texts, "dark alley, many rats seen at night " * 12)
        key = shape.view.key[0]
        return [{**blank, key: f"{number:08}"} for number in range(complaints)]
    if shape.view.name == "resident":
        return [{"citizen_id": "11010519491231002X", "name": "张伟", "birth_date": dt.date(1949, 12, 31)}]
    if shape.view.name == "ward_hygiene":
        numbers = [column.name for column in shape.columns if column.kind is Kind.INTEGER]
        return [dict.fromkeys(numbers, ward) for ward in range(1, 51)]
    if shape.view.name == "persons_by_district":
        return [{**row, **HIDDEN} for row in BY_DISTRICT]
    return []
