"""Rows bound as arrays, and the positions that a builder remembers between its transactions."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.infra.database import open_database, write
from bus.views.merging import Counts
from bus.views.picking import different
from bus.views.prepared import Prepared, encoded
from bus.views.prepared import given as given_rows
from bus.views.progress import Progress, Step, store, write_positions
from bus.views.store import POSITION, VIEW, Position, ViewStore, read_positions
from bus.views.values import Exact, Instant

_KINDS: list[tuple[sa.Column[Any], pa.DataType, st.SearchStrategy[Any]]] = [
    (
        sa.Column("t", sa.Text(collation="C")),
        pa.string(),
        st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    ),
    (sa.Column("i", sa.BigInteger), pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (sa.Column("p", sa.Integer), pa.int32(), st.integers(0, 2**31 - 1)),
    (sa.Column("f", sa.Double), pa.float64(), st.floats(allow_nan=False)),
    (sa.Column("b", sa.Boolean), pa.bool_(), st.booleans()),
    (sa.Column("d", sa.Date), pa.date32(), st.dates()),
    (
        sa.Column("at", Instant()),
        pa.timestamp("us", "UTC"),
        st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC)),
    ),
    (sa.Column("x", Exact(2)), pa.decimal128(38, 2), st.decimals(-(10**15), 10**15, places=2)),
    (sa.Column("y", sa.LargeBinary), pa.binary(), st.binary()),
]
_ROW = st.tuples(*(st.none() | values for _, _, values in _KINDS))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(_ROW, min_size=1, max_size=8))
def test_postgresql_reads_rows_that_are_bound_as_arrays(postgresql_url: str, rows: list[tuple[Any, ...]]) -> None:
    """Every kind of value comes back as it was, nulls among them, in the same order."""
    engine = open_database(postgresql_url, "views", durable=False)
    columns = [column for column, _, _ in _KINDS]
    arrays = [pa.array(values, kind) for values, (_, kind, _) in zip(zip(*rows, strict=True), _KINDS, strict=True)]
    statement = Prepared(sa.select(*given_rows(columns).c), "postgresql")
    with engine.connect() as connection:
        bound = {column.name: encoded(array) for column, array in zip(columns, arrays, strict=True)}
        found = [tuple(row) for row in statement.run(connection, bound)]
    engine.dispose()
    assert [_plain(row) for row in found] == [_plain(row) for row in rows]


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.astimezone(dt.UTC) if isinstance(value, dt.datetime) else value for value in row)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "B", None]), st.sampled_from([1, 2, None])), max_size=8))
def test_different_keys_are_each_kept_once(rows: list[tuple[str | None, int | None]]) -> None:
    """Of one column and of two."""
    arrays = [pa.array([row[0] for row in rows], pa.string()), pa.array([row[1] for row in rows], pa.int64())]
    found = list(zip(*(array.to_pylist() for array in different(arrays)), strict=True))
    assert len(found) == len(set(found))
    assert set(found) == set(rows)
    (alone,) = different(arrays[:1])
    assert sorted(map(str, alone.to_pylist())) == sorted(map(str, {row[0] for row in rows}))


@pytest.fixture
def engine(database_url: str) -> sa.Engine:
    made = open_database(database_url, "views", durable=False)
    ViewStore(made)
    with write(made) as connection:
        connection.execute(sa.insert(VIEW), {"name": "v"})
    return made


def test_positions_are_read_again_where_another_transaction_came_between(engine: sa.Engine) -> None:
    """They are remembered from one transaction to the very next; one that nobody knows the end of is none."""
    progress, place = Progress("v"), ("t", 0)
    own, others = Position("t", 0, 5, 1), Position("t", 0, 9, 2)
    with write(engine) as connection:
        assert progress.recall(connection, 1) == {}
        store(connection, [Step("v", [own], Counts(applied=5))])
    progress.remember(1, {place: own})
    with write(engine) as connection:
        write_positions(connection, "v", [others])
    with engine.connect() as connection:
        assert progress.recall(connection, 2) == {place: own}
        assert progress.recall(connection, 3) == {place: others}
        progress.remember(3, {place: own})
        assert progress.recall(connection, 5) == {place: others}
        assert connection.scalar(sa.select(VIEW.c.applied)) == 5


def test_since_when_a_partition_is_complete_is_never_put_back(engine: sa.Engine) -> None:
    """The worker notes it beside the builder, which writes what it remembers."""
    noted = sa.update(POSITION).values(complete_ms=80)
    with write(engine) as connection:
        for complete in (None, 70, None, 90):
            write_positions(connection, "v", [Position("t", 0, 1, None, complete_ms=complete)])
            (found,) = read_positions(connection, "v")
            assert found.complete_ms == (complete or found.complete_ms)
        connection.execute(noted)
        write_positions(connection, "v", [Position("t", 0, 2, None, complete_ms=70)])
        assert [(p.next_offset, p.complete_ms) for p in read_positions(connection, "v")] == [(2, 80)]
