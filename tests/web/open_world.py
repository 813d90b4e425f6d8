"""An aggregate view that counts persons and may be open: by district, which is nobody's own."""

from __future__ import annotations

from typing import Any

PERSON: dict[str, Any] = {
    "type": "record",
    "name": "Person",
    "namespace": "lab",
    "bus.owner": "lab",
    "bus.contact": "data@lab.example",
    "bus.key": ["person_id"],
    "bus.freshness": "P1D",
    "bus.retention": "P5Y",
    "bus.legal_basis": "Laboratory Act 1",
    "fields": [
        {"name": "person_id", "type": "long", "bus.class": "conditional", "bus.personal": True},
        {"name": "district", "type": "string", "bus.class": "open"},
        {"name": "tests", "type": "long", "bus.class": "open"},
    ],
}
_TITLE = {"zh": "受检者", "en": "Persons tested"}
PERSON_VIEWS: list[dict[str, Any]] = [
    {
        "view": "person",
        "title": _TITLE,
        "owner": "lab",
        "kind": "entity",
        "key": ["person_id"],
        "listed": False,
        "sources": {"lab": {"entity": "lab.person"}},
        "fields": {"district": {"from": "lab.district"}, "tests": {"from": "lab.tests"}},
    },
    {
        "view": "persons_by_district",
        "title": _TITLE,
        "owner": "lab",
        "kind": "aggregate",
        "listed": False,
        "over": {"person": {"view": "person"}},
        "group_by": ["district"],
        "measures": {
            "persons": {"count": "person"},
            "tests": {"sum": "person.tests"},
            "most": {"max": "person.tests"},
        },
    },
]
BY_DISTRICT: list[dict[str, Any]] = [
    {"district": "east", "persons": 40, "tests": 90, "most": 7, "_n1": 40},
    {"district": "north", "persons": 5, "tests": 6, "most": 2, "_n1": 5},
    {"district": "south", "persons": 4, "tests": 9, "most": 5, "_n1": 4},
    {"district": "west", "persons": 1, "tests": 3, "most": 3, "_n1": 1},
]
HIDDEN: dict[str, Any] = {"_h1": 0, "_l1": 0}
