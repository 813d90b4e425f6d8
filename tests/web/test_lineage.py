"""Lineage over HTTP: of every value the events that made it, as far as the caller may know, and recorded."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from kafka import KafkaAdminClient, TopicPartition
from served_world import World
from traced_world import Traced

from bus.infra.connection import KafkaConnection

BUSINESS = "/v1/views/food_business/lineage"
HISTORY = "/v1/views/inspection_history/lineage"
WARD = "/v1/views/ward_hygiene/lineage"


def _asked(traced: Traced, path: str, department: str = "food", purpose: str = "inspection_planning") -> dict[str, Any]:
    answer = traced.world.get(path, department, purpose)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _events_of(document: dict[str, Any], field: str) -> list[dict[str, Any]]:
    (found,) = (item for item in document["fields"] if item["field"] == field)
    return [document["events"][place] for place in found["events"]]


def test_a_value_comes_from_the_event_that_shows(traced: Traced) -> None:
    """Of several records the one of highest rank, of each source its own; what the event says of itself is told."""
    document = _asked(traced, f"{BUSINESS}?licence_number=eq.20")
    (event,) = _events_of(document, "legal_name")
    assert event["event_id"] == "event-1"
    assert f"{event['topic']}/{event['partition']}@{event['offset']}" == traced.place("event-1")
    assert event["source"] == "/market"
    assert event["type"] == "market.business_licence.upsert"
    assert event["entity"] == "market.business_licence"
    assert event["department"] == "market"
    assert event["time"] == "2025-12-02T08:00:00Z"
    assert event["contract_version"] == 1
    assert event["kept"] is True
    assert event["schema_id"] in traced.world.parts.registry.ids("market.business_licence")
    (inspected,) = _events_of(document, "last_result")
    assert (inspected["event_id"], inspected["corrects"]) == ("event-4", "event-2")
    assert _events_of(document, "licence_number") == [event]
    assert "Wang" not in str(document)
    assert "account_number" not in {item["field"] for item in document["fields"]}


def test_one_field_alone(traced: Traced) -> None:
    """Named fields only; a name that is not granted or not there is refused as at the query door."""
    document = _asked(traced, f"{BUSINESS}?licence_number=eq.20&field=ward,last_result")
    assert [item["field"] for item in document["fields"]] == ["ward", "last_result"]
    refused = traced.world.get(f"{BUSINESS}?licence_number=eq.20&field=account_number")
    assert (refused.status_code, refused.json()["code"]) == (403, "field_not_granted")
    unknown = traced.world.get(f"{BUSINESS}?licence_number=eq.20&field=nosuch")
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_field")


def test_who_may_not_see_the_row_learns_nothing_of_it(traced: Traced) -> None:
    """Not granted: refused. Outside the row condition, or deleted, or never there: the same 404."""
    refused = traced.world.get(f"{BUSINESS}?licence_number=eq.20", "weather", "levy")
    assert (refused.status_code, refused.json()["code"]) == (403, "not_granted")
    wrong = traced.world.get(f"{BUSINESS}?licence_number=eq.20", "food", "levy")
    assert wrong.json()["code"] == "purpose_not_granted"
    outside = traced.world.get("/v1/views/complaint/lineage?request_number=eq.c2", "lab", "levy")
    missing = traced.world.get("/v1/views/complaint/lineage?request_number=eq.none", "lab", "levy")
    assert outside.status_code == missing.status_code == 404
    assert outside.json()["detail"] == missing.json()["detail"]
    assert _asked(traced, "/v1/views/complaint/lineage?request_number=eq.c1", "lab", "levy")["events"]


def test_a_masked_column_shows_its_event_and_no_value(traced: Traced) -> None:
    """And cannot be asked by."""
    document = _asked(traced, f"{HISTORY}?inspection_id=eq.7", "lab", "levy")
    (masked,) = (item for item in document["fields"] if item["field"] == "dba_name")
    assert masked["masked"] is True
    assert _events_of(document, "dba_name")[0]["event_id"] == "event-4"
    assert "WANG" not in str(document)


def test_a_history_tells_every_version(traced: Traced) -> None:
    """Newest first, with since when it was known and from when it held; deletions too."""
    document = _asked(traced, f"{HISTORY}?inspection_id=eq.7")
    told = [(document["events"][one["event"]]["event_id"], one["known"], one["valid"]) for one in document["versions"]]
    assert told == [
        ("event-4", "2026-01-05T00:00:00Z", "2025-06-01T00:00:00Z"),
        ("event-2", "2026-01-03T00:00:00Z", "2025-06-01T00:00:00Z"),
    ]
    assert [one["current"] for one in document["versions"]] == [True, False]
    deleted = _asked(traced, f"{HISTORY}?inspection_id=eq.8")
    assert [one["deleted"] for one in deleted["versions"]] == [True, False]
    assert deleted["fields"] == []
    assert deleted["events"][traced.place("event-5")]["schema_id"] is None


def test_versions_outside_the_row_condition_are_not_told(traced: Traced) -> None:
    """A caller of failed inspections learns nothing of the version that passed."""
    document = _asked(traced, f"{HISTORY}?inspection_id=eq.7", "lab", "levy")
    assert [one["event"] for one in document["versions"]] == [traced.place("event-4")]
    assert traced.place("event-2") not in str(document)


def test_an_aggregate_tells_what_it_counts(traced: Traced) -> None:
    """How many rows of each view; which ones, only where the caller could ask that view itself, and only its rows."""
    document = _asked(traced, f"{WARD}?ward=eq.3", "lab", "levy")
    complaints, inspections = document["contributions"]
    assert (complaints["source"], complaints["rows"]) == ("complaint", 3)
    assert complaints["keys"] == [{"request_number": "c1"}, {"request_number": "c3"}]
    assert inspections == {
        "source": "inspection",
        "view": "inspection_history",
        "rows": 1,
        "keys_withheld": "not_granted",
    }
    unplaced = _asked(traced, f"{WARD}?ward=is.null", "social", "open_data")
    assert [one["rows"] for one in unplaced["contributions"]] == [0, 1]
    assert traced.world.get(f"{WARD}?ward=eq.49", "social", "open_data").status_code == 404
    public = _asked(traced, f"{WARD}?ward=eq.3", "social", "open_data")
    assert {one.get("keys_withheld") for one in public["contributions"]} == {"not_granted"}


def test_along_a_look_up_both_events_are_told(traced: Traced) -> None:
    """First the event with the foreign key, then that of the view looked up; none of it while there is no such row."""
    document = _asked(traced, "/v1/views/inspected/lineage?inspection_id=eq.7", "lab", "levy")
    assert [event["event_id"] for event in _events_of(document, "legal_name")] == ["event-4", "event-1"]
    assert [event["event_id"] for event in _events_of(document, "result")] == ["event-4"]
    (brought,) = (item for item in document["fields"] if item["field"] == "ward")
    assert (brought["source"], brought["through"]) == ("business", "food_business")
    assert "Wang" not in str(document)
    alone = _asked(traced, "/v1/views/inspected/lineage?inspection_id=eq.9", "lab", "levy")
    assert [event["event_id"] for event in _events_of(alone, "ward")] == ["event-9"]


def test_what_a_look_up_brings_has_no_history(traced: Traced) -> None:
    """Asked for at a moment it is refused by name, and the other columns answer."""
    refused = traced.world.get("/v1/views/inspected?as_of=2026-01-05", "lab", "levy")
    assert (refused.status_code, refused.json()["field"]) == (422, "legal_name")
    answer = traced.world.get("/v1/views/inspected?as_of=2026-01-04&select=result&inspection_id=eq.7", "lab", "levy")
    assert answer.json() == [{"result": "Pass"}]


def test_lineage_is_recorded_before_it_is_told(traced: Traced) -> None:
    """Who, which fields, under which grant; a refusal and a row that is not there as well."""
    _asked(traced, f"{BUSINESS}?licence_number=eq.20&field=ward")
    entry = traced.world.entries()[-1]
    assert (entry["kind"], entry["view"], entry["who"], entry["rows"]) == ("disclosure", "food_business", "food", 1)
    assert entry["question"]["lineage"] is True
    assert (entry["columns"], entry["channel"]) == (["ward"], "lookup")
    traced.world.get(f"{BUSINESS}?licence_number=eq.888888")
    assert traced.world.entries()[-1]["rows"] == 0
    traced.world.get(f"{BUSINESS}?licence_number=eq.20&field=account_number")
    assert traced.world.entries()[-1]["code"] == "field_not_granted"


@pytest.mark.parametrize(
    "question",
    [
        "",
        "licence_number=gt.1",
        "licence_number=not.eq.20",
        "licence_number=in.(20)",
        "licence_number=eq.20&licence_number=eq.20",
        "licence_number=eq.20&ward=eq.3",
        "licence_number=eq.20&limit=1",
        "licence_number=eq.20&as_of=2026-01-01",
        "licence_number=eq.20&select=ward",
        "licence_number=eq.20&explain=true",
        "or=(licence_number.eq.20)",
        "licence_number=is.null",
        f"licence_number={quote('eq.20; DROP TABLE v_food_business')}",
        f"licence_number=eq.20{quote(chr(0))}",
        f"licence_number=eq.20&field={quote('ward' + chr(0))}",
        f"licence_number=eq.20&field={quote('ward from v_resident --')}",
        "licence_number=eq.%ff",
    ],
)
def test_anything_but_one_key_is_refused(traced: Traced, question: str) -> None:
    """422 with what is expected; nothing of it reaches SQL."""
    answer = traced.world.get(f"{BUSINESS}?{question}")
    assert answer.status_code == 422, answer.text
    assert len(answer.json()["detail"]) > 25


def test_an_event_beyond_retention_has_its_place(traced: Traced, kafka: KafkaConnection) -> None:
    """The place is known, the event is not kept; the newest ones still are."""
    admin = KafkaAdminClient(**kafka.kafka_python())
    first = traced.place("event-7")
    topic, _, rest = first.partition("/")
    offset = int(rest.partition("@")[2])
    admin.delete_records({TopicPartition(topic, 0): offset + 1})
    admin.close()
    document = _asked(traced, "/v1/views/complaint/lineage?request_number=eq.c2&field=ward")
    known = document["events"][first]
    assert (known["kept"], known["offset"], known["department"]) == (False, offset, "sanitation")
    assert "event_id" not in known


def test_without_the_broker_there_is_no_lineage(world: World) -> None:
    """503 in bounded time; the views themselves go on answering."""
    shape = world.parts.shapes()["sample"]
    assert shape.contracts
    answer = world.get("/v1/views/sample/lineage?sample_id=eq.1", "lab", "levy")
    assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
    assert world.get("/v1/views/sample?sample_id=eq.1", "lab", "levy").status_code == 200
