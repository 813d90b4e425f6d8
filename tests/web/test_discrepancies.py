"""Who is shown where departments disagree: staff everything, a party its own value, nobody else anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from served_world import World

from bus.views.store import DISCREPANCY

PATH = "/v1/views/food_business/discrepancies"
OPENED_MS = 1_700_000_000_000


def _entry(key: str, field: str, shown: str, reported: str, closed_ms: int | None = None) -> dict[str, Any]:
    pair = {"view": "food_business", "field": field, "source": "licence", "other": "inspection"}
    place = {"topic": "dept.food.inspection", "partition": 1, "offset": int(key), "opened_ms": OPENED_MS}
    return {**pair, **place, "key": key, "shown": shown, "reported": reported, "closed_ms": closed_ms}


ENTRIES = [
    _entry("1", "address", "1 W Madison St", "10 W Madison St"),
    _entry("2", "address", "2 W Madison St", "20 W Madison St", OPENED_MS + 5_000),
    _entry("2", "doing_business_as", "CORNER DELI", "CORNER DELICATESSEN"),
    {**_entry("3", "address", "a", "b"), "view": "food_business+next"},
]


@pytest.fixture
def disagreeing(either: World) -> Iterator[World]:
    """The served world with four discrepancies, one of a view that is being rebuilt."""
    with either.views.begin() as connection:
        connection.execute(sa.insert(DISCREPANCY), ENTRIES)
    yield either
    with either.views.begin() as connection:
        connection.execute(sa.delete(DISCREPANCY))


def _as_staff(world: World, path: str) -> httpx2.Response:
    assert world.parts.issuer is not None
    token = world.parts.issuer.token("governance", administrator=True)
    return httpx2.get(world.url + path, headers={"Authorization": f"Bearer {token}"}, timeout=30)


def test_staff_see_both_values(disagreeing: World) -> None:
    """An administrator gets every open one in the order of keys, both values, department, event and time."""
    first, second = _as_staff(disagreeing, PATH).json()
    assert (first["key"], first["field"], first["state"], first["closed"]) == ("1", "address", "open", None)
    assert first["shown"] == {
        "department": "market", "source": "licence", "value": "1 W Madison St", "hidden": False
    }  # fmt: skip
    assert first["reported"]["department"] == "food"
    assert first["reported"]["value"] == "10 W Madison St"
    assert first["opened"] == "2023-11-14T22:13:20.000Z"
    assert first["event"] == {"topic": "dept.food.inspection", "partition": 1, "offset": 1}
    assert second["field"] == "doing_business_as"


def test_filters_and_pages(disagreeing: World) -> None:
    """By field and state, page by page; what is no field or no member is refused."""
    (closed,) = _as_staff(disagreeing, f"{PATH}?state=closed").json()
    assert (closed["key"], closed["closed"]) == ("2", "2023-11-14T22:13:25.000Z")
    assert [one["key"] for one in _as_staff(disagreeing, f"{PATH}?field=address").json()] == ["1"]
    assert [one["key"] for one in _as_staff(disagreeing, f"{PATH}?limit=1&offset=1").json()] == ["2"]
    unknown = _as_staff(disagreeing, f"{PATH}?field=adress")
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_field")
    assert "address" in unknown.json()["detail"]
    assert _as_staff(disagreeing, f"{PATH}?colour=red").status_code == 422


def test_the_owner_of_the_shown_value_learns_that_they_differ(disagreeing: World) -> None:
    """Market has no grant that shows what food inspection noted: it sees its own value and that another differs."""
    for purpose in (None, "levy", "inspection_planning"):
        (first, _) = disagreeing.get(PATH, "market", purpose).json()
        assert first["shown"]["value"] == "1 W Madison St"
        assert first["reported"] == {"department": "food", "source": "inspection", "value": None, "hidden": True}


def test_a_grant_on_the_column_shows_the_other_value(disagreeing: World) -> None:
    """Food inspection's grant shows the address of every business, for one purpose; for another or none it sees that
    they differ. The audit log has the entry, with the grant and without a value."""
    (first, _) = disagreeing.get(PATH, "food", "inspection_planning").json()
    assert (first["shown"]["value"], first["reported"]["value"]) == ("1 W Madison St", "10 W Madison St")
    entry = disagreeing.entries()[-1]
    assert (entry["who"], entry["view"], entry["channel"], entry["rows"]) == (
        "food", "food_business", "discrepancies", 2
    )  # fmt: skip
    assert entry["masked"] == []
    assert entry["grants"]
    assert "Madison" not in str(entry)
    for purpose in (None, "levy"):
        (first, _) = disagreeing.get(PATH, "food", purpose).json()
        assert first["shown"]["hidden"]
        assert disagreeing.entries()[-1]["masked"] == ["address", "doing_business_as"]


@pytest.mark.parametrize(
    ("path", "department", "status", "code"),
    [
        (PATH, "tax", 403, "not_granted"),
        ("/v1/views/complaint/discrepancies", "sanitation", 403, "not_granted"),
        ("/v1/views/hidden_sample/discrepancies", "food", 404, "unknown_view"),
        ("/v1/views/nowhere/discrepancies", "food", 404, "unknown_view"),
    ],
)
def test_others_are_refused(disagreeing: World, path: str, department: str, status: int, code: str) -> None:
    """Who is party to nothing is refused, though it has a grant on the view; each refusal is recorded."""
    answer = disagreeing.get(path, department, "levy")
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_counts_by_pair_of_departments(disagreeing: World) -> None:
    """Staff and both parties get the counts of each field; a third department none; a rebuild under way does not
    count."""
    both = {"view": "food_business", "departments": ["market", "food"]}
    expected = [
        {**both, "field": "address", "open": 1, "closed": 1},
        {**both, "field": "doing_business_as", "open": 1, "closed": 0},
    ]
    path = "/v1/discrepancies/summary"
    assert _as_staff(disagreeing, path).json() == expected
    assert disagreeing.get(path, "market").json() == disagreeing.get(path, "food").json() == expected
    assert disagreeing.get(path, "tax").json() == []
    assert httpx2.get(disagreeing.url + path, timeout=30).status_code == 401
