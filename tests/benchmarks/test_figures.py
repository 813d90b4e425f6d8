"""The benchmarks measure what they say: a tiny run of each works, and a run without its work has no speed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import sqlalchemy as sa

from benchmarks import data, freshness, growth, harness, legs, publish, query, rebuilding, views
from benchmarks.harness import Goal, Plan, Sample, WorkMissing
from benchmarks.world import World
from bus.infra.database import open_database
from tests.conftest import DOWNLOADS

EVENTS = 900


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """One bus of the benchmarks' own for this file, with enough events for a page of 100 rows."""
    with World(DOWNLOADS, print) as running:
        running.events(EVENTS)
        yield running


def test_publishing_is_measured_and_what_is_missing_is_noticed(world: World) -> None:
    """B1's bulk path runs; one record that did not arrive, or another than was published, fails the run."""
    rows = data.licences(300)
    before = world.ends(publish.TOPIC)
    assert publish.plan(world, 300).runs[publish.OURS]().work == 300  # type: ignore[union-attr]
    publish.check_arrived(world, before, rows)
    with pytest.raises(WorkMissing, match="300 of 301"):
        publish.check_arrived(world, before, [*rows, rows[0]])
    with pytest.raises(WorkMissing, match="not what was published"):
        publish.check_arrived(world, before, [*rows[1:], {**rows[0], "ward": 51}])


def test_view_building_is_measured_and_a_lost_row_is_noticed(world: World, sqlite_url: str) -> None:
    """B2's stages build both levels right; a row less, or a row changed, fails the run."""
    terms, visits = world.events(EVENTS)
    assert all(sample.work == 2 * EVENTS for sample in views._stages(world, EVENTS, "b", "sqlite").values())
    given = views._given(world, "a", sqlite_url)
    views.child("benchmarks.stages", given)
    views.check_view(sqlite_url, "a", terms, visits)
    with pytest.raises(WorkMissing, match="bench_term"):
        views.check_view(sqlite_url, "a", terms[:-2], visits)
    with open_database(sqlite_url, "views").begin() as connection:
        connection.execute(sa.text("DELETE FROM v_bench_term WHERE licence_term_id = 1000000"))
    with pytest.raises(WorkMissing, match="bench_term"):
        views.check_view(sqlite_url, "a", terms, visits)


def test_queries_are_measured_with_mask_filter_and_audit(world: World) -> None:
    """B6's run with policy writes an audit entry for each answer; an answer in the clear fails the run."""
    plan = query.plan(world, 16)
    assert plan.runs[query.OURS]().work == 16  # type: ignore[union-attr]
    shown = [{"legal_name": "Lakeside", "ward": 1} for _ in range(query.ROWS)]
    with pytest.raises(WorkMissing, match="not masked"):
        query.check_protected(httpx2.Response(200, json=shown))


def test_a_run_without_work_has_no_speed() -> None:
    """The harness refuses a sample of nothing."""
    plan = Plan("B0", "x/s", {"ours": lambda: Sample(0, 1.0)}, [])
    with pytest.raises(WorkMissing):
        harness.measure(plan, 1, print)


def test_ratios_are_taken_within_each_repeat(tmp_path: Path) -> None:
    """A slow moment of the machine hits both sides of a ratio; the slowest of several references counts."""
    speeds = iter([8.0, 4.0, 2.0, 80.0, 40.0, 20.0])
    runs = {name: lambda: Sample(next(speeds), 1.0) for name in ("ours", "fast", "slow")}
    goals = [Goal("to the slowest", "ours", ("fast", "slow"), 4.0), Goal("absent", "ours", "nobody", 1.0)]
    result = harness.measure(Plan("B0", "x/s", runs, goals, {"other": "not built"}), 2, print)
    assert result.lines[0].ratio is not None
    assert (result.lines[0].ratio.values, result.lines[0].verdict) == ((4.0, 4.0), "met")
    assert [line.verdict for line in result.lines[1:]] == ["not measured", "not measured"]
    harness.write(tmp_path / "results.json", [result])
    written = json.loads((tmp_path / "results.json").read_text())["figures"]["B0"]
    assert written["machine"]["cores"]
    assert str(tmp_path) not in json.dumps(written)
    assert "not met" not in harness.table([result])


def test_growth_compares_the_ends_of_one_run() -> None:
    """The first tenth of the events against the last, and the most memory, wherever the commits fall."""
    commits = [[float(n), n * 1_000, 100.0 + n] for n in range(1, 101)]
    commits += [[100.0 + 2 * n, 100_000 + n * 1_000, 200.0] for n in range(1, 12)]
    found = growth.judged("sqlite", commits, 111_000)
    assert found["first records, SQLite"].rate == pytest.approx(1_000)
    assert found["last records, SQLite"].rate == pytest.approx(500, rel=0.05)
    assert found["memory, SQLite"].rate == pytest.approx(300 / 200)
    with pytest.raises(WorkMissing):
        growth.judged("sqlite", commits[:1], 1_000)


def test_legs_are_the_whole_way_of_an_event() -> None:
    """From its sending to its being seen, in the round that had it; rounds tried more than once are left out."""
    rounds = [
        legs.Passed([(1, 0, 5)], 2.0, 2.5, 3.0, [4.0, 6.0], [5.0, 7.0]),
        legs.Passed([(1, 5, 9), (2, 0, 4)], 8.0, 8.0, 8.0, [8.0, 8.0, 8.0], [9.0, 9.0]),
    ]
    seen = {1: ([0, 5, 9], [0.0, 8.5, 10.0]), 2: ([4], [10.0])}
    sent = [legs.Sent(1, 4, 0.5, 1.0), legs.Sent(1, 5, 0.5, 1.0), legs.Sent(2, 3, 0.5, 1.0)]
    found = legs.legs(sent, rounds, seen, 1)
    assert found == {
        "acknowledged": [0.5], "fetched": [1.0], "decoded": [0.5], "taken": [0.5],
        "begun": [3.0], "committed": [1.0], "seen": [1.5],
    }  # fmt: skip
    assert legs.share(found["begun"], 0.99) == 3_000


def test_freshness_counts_from_the_first_position_beyond_the_event() -> None:
    """Every view counts; an event that one of them never showed fails the run."""
    seen = {(f"v{n}", 1): ([4, 6, 9], [1.0, 2.0, 3.0 + n]) for n in range(freshness.VIEWS)}
    assert freshness._delays(seen, 1, 5, 1.5) == [0.5] * freshness.VIEWS
    assert freshness._delays(seen, 1, 6, 2.5)[-1] == pytest.approx(0.5 + freshness.VIEWS - 1)
    with pytest.raises(WorkMissing, match="never seen"):
        freshness._delays(seen, 1, 9, 1.0)
    with pytest.raises(WorkMissing, match="0 views"):
        freshness._delays(seen, 2, 0, 1.0)


def test_rebuilding_judges_each_span_by_its_own_events() -> None:
    """Events acknowledged during a rebuild count there only; too few of them, or one never shown, fail the run."""
    place = (rebuilding.QUARTER, 0)
    seen = {place: (list(range(1, 202)), [0.1 * n + (0.02 if n < 100 else 0.06) for n in range(201)])}
    acknowledged = [(0, n, 0.1 * n) for n in range(200)]
    spans = {"alone": (0.0, 9.95), "another": (9.95, 20.0)}
    found = rebuilding.judged(seen, acknowledged, spans)
    assert found["alone"].seconds == pytest.approx(0.02)
    assert found["another"].seconds == pytest.approx(0.06)
    with pytest.raises(WorkMissing, match="only"):
        rebuilding.judged(seen, acknowledged, {"alone": (0.0, 1.0)})
    with pytest.raises(WorkMissing, match="never seen"):
        rebuilding.judged(seen, [(0, 201, 1.0)], {"alone": (0.0, 2.0)})
