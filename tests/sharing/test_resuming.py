"""Where a reader goes on, and what it is told when it cannot: rules without Kafka."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import BadCursor
from bus.sharing.subscribing.changes import Change, Delete, Notice, Upsert
from bus.sharing.subscribing.cursors import Cursors, Place, Scope, read_place
from bus.sharing.subscribing.resuming import TOMBSTONES_KEPT_MS, Bounds, Reading

NOW = 1_800_000_000_000
IDS = st.from_regex(r"[A-Za-z0-9_-]{1,36}", fullmatch=True)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
NUMBERS = st.integers(0, 10**15)
PLACES = st.builds(Place, IDS, NUMBERS, NUMBERS, st.none() | NUMBERS)
SCOPES = st.builds(Scope, NAMES, NAMES, NAMES)


@given(PLACES, SCOPES)
def test_a_cursor_is_read_as_it_was_written(place: Place, scope: Scope) -> None:
    """By the bus that signed it, and as plain text by a department's own system."""
    cursors = Cursors(b"secret")
    assert cursors.read(cursors.write(place, scope), scope) == place
    assert read_place(str(place)) == place


@given(PLACES, SCOPES, SCOPES, st.integers(0, 300), st.characters(codec="ascii"))
def test_a_cursor_counts_for_its_scope_and_unchanged_only(
    place: Place, scope: Scope, other: Scope, at: int, char: str
) -> None:
    """Whatever character is changed, and whoever else brings it."""
    cursors = Cursors(b"secret")
    good = cursors.write(place, scope)
    at %= len(good)
    changed = good[:at] + char + good[at + 1 :]
    for cursor, asked in ((changed, scope), (good, other), (good + char, scope)):
        if (cursor, asked) != (good, scope):
            with pytest.raises(BadCursor):
                cursors.read(cursor, asked)


def _follow(place: Place | None, records: list[tuple[int, Change]], bounds: Bounds) -> list[tuple[Place, Change]]:
    """All that a reader is told of these records, from the place on."""
    reading = Reading(place, bounds, now_ms=NOW, about={"view": "v"})
    told = reading.waiting(NOW)
    for offset, change in records:
        if offset >= reading.next:
            told += reading.take(offset, change, NOW)
    reading.pass_to(bounds.end)
    return told + reading.waiting(NOW)


def _keep(told: list[tuple[Place, Change]], rows: set[str], seen: set[str] | None = None) -> set[str]:
    """What a consumer that follows the notices has in the end."""
    for _, change in told:
        match change:
            case Upsert(key, _):
                rows = rows | {key}
                seen = None if seen is None else seen | {key}
            case Delete(key):
                rows = rows - {key}
            case Notice():
                if change.kind == "snapshot_begins":
                    seen = set()
                elif change.kind == "snapshot_ends" and seen is not None:
                    rows, seen = rows & seen, None
    return rows


CHANGES = st.lists(st.tuples(st.booleans(), st.sampled_from("abcdef")), max_size=30)


@given(CHANGES, st.data())
def test_a_reader_has_every_row_and_no_other_wherever_it_stopped(
    changes: list[tuple[bool, str]], data: st.DataObject
) -> None:
    """A topic that is compacted to the newest record of a key, its deletions dropped, with snapshots of its own; a
    reader that stopped anywhere, in a snapshot or not, and comes back in time or too late."""
    log: list[tuple[int, Change]] = [
        (offset, Upsert(key, {}) if there else Delete(key)) for offset, (there, key) in enumerate(changes)
    ]
    expected = _keep([(Place("t", 0, NOW), change) for _, change in log], set())
    told = _follow(None, log, Bounds("t", 0, len(log)))
    assert _keep(told, set()) == expected
    stop = data.draw(st.integers(1, len(told)))
    place = told[stop - 1][0]
    rows, seen = set[str](), None
    for one in told[:stop]:
        before = seen
        rows = _keep([one], rows, seen)
        if isinstance(one[1], Notice):
            seen = set() if one[1].kind == "snapshot_begins" else None
        elif before is not None and isinstance(one[1], Upsert):
            seen = before | {one[1].key}
    newest = {change.key: offset for offset, change in log if not isinstance(change, Notice)}
    late = data.draw(st.booleans())
    kept = [
        (offset, change)
        for offset, change in log
        if not isinstance(change, Notice) and newest[change.key] == offset and not (late and isinstance(change, Delete))
    ]
    if late:
        place = replace(place, at_ms=NOW - TOMBSTONES_KEPT_MS)
    again = _follow(place, kept, Bounds("t", 0, len(log)))
    if place.offset < len(log) or not late:
        assert _keep(again, rows, seen) == expected


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (None, "no cursor"),
        (Place("other", 7, NOW), "begun anew"),
        (Place("t", 11, NOW), "begun anew"),
        (Place("t", 4, NOW), "no longer kept"),
        (Place("t", 7, NOW - TOMBSTONES_KEPT_MS), "older than deletions"),
    ],
)
def test_why_every_row_comes_anew(place: Place | None, reason: str) -> None:
    """It is said in the notice that begins it."""
    (_, begins), (_, ends) = _follow(place, [], Bounds("t", 5, 10))
    assert isinstance(begins, Notice)
    assert isinstance(ends, Notice)
    assert (begins.kind, ends.kind) == ("snapshot_begins", "snapshot_ends")
    assert reason in begins.document["reason"]


def test_a_quiet_topic_needs_no_snapshot_however_old_the_cursor() -> None:
    """Nothing came after it, so nothing was lost."""
    assert _follow(Place("t", 10, 0), [], Bounds("t", 5, 10)) == []


def test_a_snapshot_in_the_topic_is_part_of_the_one_that_is_given() -> None:
    """Its notices are left out, and the end waits for its end."""
    log: list[tuple[int, Change]] = [
        (5, Notice({"kind": "narrowed"})),
        (6, Notice({"kind": "snapshot_begins"})),
        (7, Upsert("a", {})),
        (8, Upsert("b", {})),
        (9, Notice({"kind": "snapshot_ends"})),
    ]
    told = [change for _, change in _follow(None, log, Bounds("t", 5, 8))]
    assert [change.kind if isinstance(change, Notice) else change.key for change in told] == [
        "snapshot_begins", "narrowed", "a", "b", "snapshot_ends",
    ]  # fmt: skip
