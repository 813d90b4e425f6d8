"""What the views of one round have in common, made once: the newest event of each record, as columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bus.views.decoding.batches import Batch
from bus.views.decoding.newest import joined, newest
from bus.views.prepared import Values, encoded
from bus.views.staging import as_sqlite
from bus.views.tables import LIVE, PARTITION, VERSION, Records

T = TypeVar("T")
Wanted = tuple[str, bool]  # a field of the contract, or (true) a hidden column
_KEPT: Final = 2_000  # events of a batch: of more, the values as Python has them would take too much memory


def wanted(records: Records) -> list[Wanted]:
    """What fills the stored columns of these records, in their order."""
    fields = {cell.column: cell.field.name for cell in records.cells}
    return [(fields[c.name], False) if c.name in fields else (c.name, True) for c in records.stored]


class Picked:
    """The newest event of each record of a batch, sorted by ``key`` (fields), so that neighbours in a table are written
    together and locks are taken in one order (K4). Each form of a column is made when it is first asked for."""

    def __init__(self, batch: Batch, key: Sequence[str]) -> None:
        self.batch, self.found = batch, newest(batch)
        self._events = _sorted(batch, pa.array(self.found.events), key)
        self._arrays: dict[Wanted, pa.Array] = {}
        self._lists: dict[Wanted, list[Any]] = {}
        self._values: dict[Wanted, Values] = {}
        self._keys: dict[tuple[Sequence[str], bool], list[pa.Array]] = {}

    def __len__(self) -> int:
        return len(self._events)

    def array(self, column: Wanted) -> pa.Array:
        """The column's values."""
        return _once(self._arrays, column, lambda: self._taken(*column))

    def listed(self, columns: Sequence[Wanted]) -> Iterator[list[list[Any]]]:
        """The columns' values as SQLite stores them, in portions of so many that Python's objects take little room."""
        if len(self) <= _KEPT:
            yield [_once(self._lists, column, lambda c=column: as_sqlite(self.array(c))) for column in columns]  # type: ignore[misc]
            return
        for start in range(0, len(self), _KEPT):
            yield [as_sqlite(self.array(column).slice(start, _KEPT)) for column in columns]

    def values(self, columns: Sequence[Wanted]) -> list[Values]:
        """The columns' values as PostgreSQL takes them."""
        if len(self) > _KEPT:
            return [encoded(self.array(column)) for column in columns]
        return [_once(self._values, column, lambda c=column: encoded(self.array(c))) for column in columns]  # type: ignore[misc]

    def keys(self, fields: tuple[str, ...], *, live: bool) -> list[pa.Array]:
        """The different values of these fields; ``live``: of live events only, and only where none is null."""
        return _once(self._keys, (fields, live), lambda: self._different(fields, live=live))

    def _different(self, fields: Sequence[str], *, live: bool) -> list[pa.Array]:
        arrays = [self.array((name, False)) for name in fields]
        if live:
            kept = self.array((LIVE, True))
            for array in arrays:
                kept = pc.and_(kept, array.is_valid())
            arrays = [array.filter(kept) for array in arrays]
        return different(arrays)

    def _taken(self, name: str, hidden: bool) -> pa.Array:
        whole = _hidden(self.batch, name) if hidden else self.batch.columns[name]
        return whole.take(self._events)


def _once(made: dict[Any, T], key: Any, make: Callable[[], T]) -> T:
    if key not in made:
        made[key] = make()
    return made[key]


def _sorted(batch: Batch, events: pa.Array, key: Sequence[str]) -> pa.Array:
    keys = pa.table({name: batch.columns[name].take(events) for name in key})
    return events.take(pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in key]))


def _hidden(batch: Batch, name: str) -> pa.Array:
    if name == LIVE:
        return pa.array(batch.live)
    if name == PARTITION:
        return pa.array(batch.places.astype(np.int32))
    return pa.array((batch.stated, batch.sequence, batch.offsets)[VERSION.index(name)])


def different(arrays: Sequence[pa.Array]) -> list[pa.Array]:
    """The different rows of these columns."""
    if len(arrays) == 1:
        return [arrays[0].unique()]
    names = [f"g{index}" for index in range(len(arrays))]
    found = pa.table(list(arrays), names=names).group_by(names, use_threads=False).aggregate([])
    return [
        pa.concat_arrays(found[name].chunks) if found.num_rows else array[:0]
        for name, array in zip(names, arrays, strict=True)
    ]


class Picking:
    """Picks from the batches of a round. ``batches``: those that several views are given as they are; what is picked
    from them is kept for the next view, and goes with this object."""

    def __init__(self, batches: Sequence[Batch] = ()) -> None:
        self._batches = {id(batch): batch for batch in batches}
        self._made: dict[tuple[int, ...], list[Picked]] = {}

    def of(self, batches: Sequence[Batch], key: Sequence[str]) -> list[Picked]:
        """The batches of one topic, those together that may be (see `joined`). ``key``: of the entity."""
        if any(id(batch) not in self._batches for batch in batches):
            return [Picked(batch, key) for batch in joined(batches)]
        place = tuple(map(id, batches))
        return _once(self._made, place, lambda: [Picked(batch, key) for batch in joined(batches)])
