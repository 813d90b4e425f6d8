"""How fresh a view is: by source over HTTP and in the metrics, for who has a grant on it."""

from __future__ import annotations

import json
import time

import httpx2
import pytest
import sqlalchemy as sa
from served_world import World

from bus.governance.promises.store import Promise
from bus.views.store import POSITION, VIEW

NEWEST_MS = 1_700_000_000_000


@pytest.fixture(autouse=True)
def _newest(world: World) -> None:
    """The newest inspection that was applied happened in November 2023; no licence ever came."""
    newest = sa.update(POSITION).where(POSITION.c.topic == "dept.food.inspection").values(source_time_ms=NEWEST_MS)
    with world.views.begin() as connection:
        connection.execute(newest)


def test_each_source_with_its_position(world: World) -> None:
    """Newest event, age, lag, seconds behind and position of each source, in the order of the declaration."""
    found = world.get("/v1/views/food_business/freshness", "tax", None).json()
    assert (found["view"], found["state"], found["seq"]) == ("food_business", "live", 7)
    licence, inspection = found["sources"]
    assert (licence["source"], licence["entity"]) == ("licence", "market.business_licence")
    assert (licence["newest_event"], licence["event_age_s"], licence["lag"]) == (None, None, 2)
    assert licence["positions"] == [{"partition": 0, "next_offset": 10, "end_offset": 12}]
    assert licence["freshness_s"] >= 1.5
    assert inspection["newest_event"] == "2023-11-14T22:13:20.000Z"
    assert inspection["event_age_s"] == pytest.approx(time.time() - NEWEST_MS / 1_000, abs=60)


def test_an_aggregate_is_as_fresh_as_what_it_reads(world: World) -> None:
    """Its sources are views; each has the lag of all its sources, and the time of the one that is oldest, if known."""
    sources = world.get("/v1/views/ward_hygiene/freshness", "sanitation", None)
    assert sources.status_code == 403
    assert world.parts.issuer is not None
    token = world.parts.issuer.token("governance", administrator=True)
    url = f"{world.url}/v1/views/ward_hygiene/freshness"
    found = httpx2.get(url, headers={"Authorization": f"Bearer {token}"}).json()["sources"]
    by_name = {source["source"]: source for source in found}
    assert by_name["inspection_history"]["newest_event"] == "2023-11-14T22:13:20.000Z"
    assert by_name["food_business"]["newest_event"] is None
    assert by_name["food_business"]["lag"] == 4
    assert by_name["food_business"]["entity"] is None


@pytest.mark.parametrize(
    ("view", "department", "status", "code"),
    [
        ("food_business", "weather", 403, "not_granted"),
        ("hidden_sample", "weather", 404, "unknown_view"),
        ("nowhere", "food", 404, "unknown_view"),
    ],
)
def test_others_are_refused(world: World, view: str, department: str, status: int, code: str) -> None:
    """Without a grant on the view nothing is told, of an unlisted one not even that it exists."""
    answer = world.get(f"/v1/views/{view}/freshness", department)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_metrics_by_source(world: World) -> None:
    """Lag, freshness, age and transactions are there for each view and source; NaN where nothing is known."""
    text = httpx2.get(f"{world.url}/metrics").text
    assert 'bus_view_lag_events{source="licence",view="food_business"} 2.0' in text
    assert 'bus_view_event_age_seconds{source="licence",view="food_business"} NaN' in text
    assert 'bus_view_seq{view="food_business"} 7.0' in text
    lines = [line for line in text.splitlines() if line.startswith("bus_view_event_age_seconds{")]
    ages = {line.partition("} ")[0]: float(line.partition("} ")[2]) for line in lines}
    assert ages['bus_view_event_age_seconds{source="inspection",view="food_business"'] > 1e6


def test_a_rebuild_shows_how_far_it_is(world: World) -> None:
    """The share of events applied while it goes on, nothing before and after; what is built beside is no view."""
    name, ratio = VIEW.c.name, 'bus_view_rebuild_ratio{view="complaint"} 0.25'
    for state, shown in (("building", True), ("done", False)):
        doc = json.dumps({"state": state, "events": 5, "of": 20})
        with world.views.begin() as connection:
            connection.execute(sa.update(VIEW).where(name == "complaint").values(rebuild=doc))
            connection.execute(sa.insert(VIEW).values(name="complaint+next"))
        text = httpx2.get(f"{world.url}/metrics").text
        with world.views.begin() as connection:
            connection.execute(sa.delete(VIEW).where(name == "complaint+next"))
        assert (ratio in text) is shown
        assert "+next" not in text


def test_a_promise_stands_beside_its_source(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the department promised, whether it keeps it and since when, in the answer and in the metrics."""
    promise = Promise("food.inspection", "food", "P1D", 0, NEWEST_MS, broken=True, changed_ms=NEWEST_MS + 86_400_000)
    monkeypatch.setattr(type(world.parts), "promises", property(lambda _: lambda: {promise.entity: promise}))
    licence, inspection = world.get("/v1/views/food_business/freshness", "food", None).json()["sources"]
    assert licence["promise"] is None
    assert inspection["promise"] == {
        "entity": "food.inspection", "department": "food", "promise": "P1D", "broken": True,
        "since": "2023-11-15T22:13:20.000Z", "newest_published": "2023-11-14T22:13:20.000Z",
    }  # fmt: skip
