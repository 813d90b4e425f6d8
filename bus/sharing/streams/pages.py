"""A page of a view's changes, and what of it each subscription is sent.

Each distinct row condition is tested once for a changed row, and where it asks for certain values of a column (one's
own district), only for the rows that have them; each distinct rendering is made once for a row that somebody gets. So
the work grows with what is delivered, not with consumers times changes.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bus.access.answers import And, Comparison, Filter, Or
from bus.access.predicates import predicate
from bus.contracts.wire import prefix
from bus.core.contracts import Kind
from bus.core.events import record_key
from bus.core.masks import keyed_hash
from bus.core.shares import share_topic
from bus.sharing.streams.cells import Cell, Encode, cell, encoder
from bus.sharing.streams.notices import Record, Stamp
from bus.sharing.streams.terms import Terms
from bus.views.catalogue import Shape
from bus.views.changelog.reading import Change, Changes, Row

_DICE: Final = random.SystemRandom()
_NULL_PART: Final = "\\N"  # no value can be written so: a backslash of its own is doubled


def key_text(key: Row) -> str:
    """The key of a row as text, as record keys are written; a missing part (of an aggregate) is ``\\N``."""
    if None not in key:
        return record_key(key)
    return "|".join(_NULL_PART if part is None else record_key((part,)) for part in key)


class Look:
    """How one subscription sees its view: its terms on a view of this shape, its schema and its consumer's key.

    ``schema_id``: of the topic's values; ``key``: the consumer's, see `bus.core.masks.consumer_key`. Raises
    `PolicyError` for a row condition that has no meaning for the view.
    """

    def __init__(self, terms: Terms, shape: Shape, *, schema_id: int, key: bytes) -> None:
        self.terms, self.shape, self._key = terms, shape, key
        self.topic = share_topic(terms.consumer, terms.view)
        self.prefix = prefix(schema_id)
        names = [column.name for column in shape.columns]
        self.condition = repr(terms.filter)
        self.passes = predicate(terms.filter, names)
        found = sought(terms.filter, names)
        self.sought = found if found is None or shape.columns[found[0]].kind is not Kind.NESTED else None
        shown = [(place, shape.columns[place], terms.masks.get(name))
                 for place, name in enumerate(names) if name in terms.columns]  # fmt: skip
        self.cells = tuple(cell(place, column, mask, key) for place, column, mask in shown)
        self.encoders = tuple(encoder(column, mask, key) for _, column, mask in shown)
        self.opaque = terms.opaque_key(shape.view.key)

    def record_key(self, text: str) -> bytes:
        """The key of a record in the topic: the row's, or a hash of it where the consumer may not see it."""
        return self.key_of(text, opaque=self.opaque)

    def key_of(self, text: str, *, opaque: bool) -> bytes:
        """The same where keys are to be hidden, or not."""
        return (keyed_hash(self._key, text) if opaque else text).encode()


def sought(rows: Filter, names: Sequence[str]) -> tuple[int, frozenset[Any]] | None:
    """The place of a column and the values of which every row of the filter has one there; None where it asks for none.
    A row that has one need not pass: the filter itself says that."""
    match rows:
        case Comparison(field, "eq", value) if value is not None:
            return names.index(field), frozenset((value,))
        case Comparison(field, "in", values):
            return names.index(field), frozenset(values)
        case And(items):
            return next((one for one in (sought(item, names) for item in items) if one is not None), None)
        case Or(items):
            found = [sought(item, names) for item in items]
            known = [one for one in found if one is not None]
            if known and len(known) == len(found) and len({place for place, _ in known}) == 1:
                return known[0][0], frozenset[Any]().union(*(values for _, values in known))
    return None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What one subscription is sent of a page. ``put``: hash by key of what it then shows; ``gone``: the keys that it
    shows no more; ``same``: those that it shows already."""

    records: list[Record]
    put: dict[str, int]
    gone: list[str]
    same: list[str] = field(default_factory=list)


class Page:
    """Changed rows, the newest of each key. ``secret``: what hashes of delivered rows are keyed with."""

    def __init__(self, shape: Shape, changes: Iterable[tuple[int, Row, Row | None]], secret: bytes) -> None:
        newest = {key_text(key): (seq, row) for seq, key, row in changes}
        self.keys = list(newest)
        self._seqs = [seq for seq, _ in newest.values()]
        self._rows = [row for _, row in newest.values()]
        self._places = {key: place for place, key in enumerate(self.keys)}
        self._shape, self._secret = shape, secret[:64]
        self._holding: dict[int, dict[Any, list[int]]] = {}
        self._passing: dict[str, list[int]] = {}
        self._cells: dict[Cell, dict[int, bytes]] = {}
        self._payloads: dict[tuple[Cell, ...], dict[int, tuple[bytes, int]]] = {}

    @classmethod
    def of_rows(cls, shape: Shape, seq: int, rows: Sequence[Row], secret: bytes) -> Page:
        """Rows of a snapshot as of ``seq``."""
        places = [index for name in shape.view.key for index, column in enumerate(shape.columns) if column.name == name]
        return cls(shape, ((seq, tuple(row[place] for place in places), row) for row in rows), secret)

    def outgoing(
        self, look: Look, stamp: Stamp, known: Mapping[str, int], *, after: int = -1, resend: bool = False
    ) -> Outgoing:
        """What the subscription is sent, that shows the hashes ``known`` of the page's keys. Changes up to the position
        ``after`` are in its topic already; ``resend``: what it shows is sent all the same."""
        passing = self._passing_of(look)
        if after >= 0:
            passing = [index for index in passing if self._seqs[index] > after]
        payloads = self._payloads_of(look, passing)
        keys, seqs, head, record = self.keys, self._seqs, look.prefix, stamp.record
        found = Outgoing([], {}, [])
        for index in passing:
            key, (payload, hash_) = keys[index], payloads[index]
            if not resend and known.get(key) == hash_:
                found.same.append(key)
                continue
            found.put[key] = hash_
            found.records.append(record(look.record_key(key), head + payload, seqs[index]))
        self._left(found, look, stamp, known, after)
        return found

    def _left(self, found: Outgoing, look: Look, stamp: Stamp, known: Mapping[str, int], after: int) -> None:
        """Tombstones of what the topic shows and the consumer may not see any more."""
        if len(known) == len(found.put) + len(found.same) and found.put.keys() <= known.keys():
            return
        staying, keys, seqs = found.put.keys() | set(found.same), self.keys, self._seqs
        for place in sorted(self._places[key] for key in known):  # the order of the page: a database's is that of keys
            key, seq = keys[place], seqs[place]
            if key not in staying and seq > after:
                found.gone.append(key)
                found.records.append(stamp.record(look.record_key(key), None, seq))

    def count(self, look: Look) -> int:
        """How many of the rows may be seen."""
        return len(self._passing_of(look))

    def visible(self, look: Look) -> list[str]:
        """The keys of the rows that may be seen."""
        return [self.keys[index] for index in self._passing_of(look)]

    def _passing_of(self, look: Look) -> list[int]:
        known = self._passing.get(look.condition)
        if known is None:
            passes, rows = look.passes, self._rows
            if look.sought is None:
                known = [index for index, row in enumerate(rows) if row is not None and passes(row)]
            else:
                known = [index for index in self._candidates(*look.sought) if passes(rows[index])]  # type: ignore[arg-type]
            self._passing[look.condition] = known
        return known

    def _candidates(self, place: int, values: Iterable[Any]) -> list[int]:
        """The rows that have one of the values there, in their order: found once for all who ask for values of that
        column."""
        holding = self._holding.get(place)
        if holding is None:
            holding = self._holding[place] = {}
            for index, row in enumerate(self._rows):
                if row is not None:
                    holding.setdefault(row[place], []).append(index)
        return sorted(index for value in values for index in holding.get(value, ()))

    def _payloads_of(self, look: Look, indexes: Sequence[int]) -> dict[int, tuple[bytes, int]]:
        made = self._payloads.setdefault(look.cells, {})
        missing = [index for index in indexes if index not in made]
        if missing:
            pairs = zip(look.cells, look.encoders, strict=True)
            columns = [self._column(known, encode, missing) for known, encode in pairs]
            secret = self._secret
            for index, payload in zip(missing, map(b"".join, zip(*columns, strict=True)), strict=True):
                digest = hashlib.blake2b(payload, digest_size=8, key=secret).digest()
                made[index] = (payload, int.from_bytes(digest, "big", signed=True))
        return made

    def _column(self, wanted: Cell, encode: Encode, indexes: Sequence[int]) -> list[bytes]:
        """The cells of one column at these rows; those that somebody else needed are there."""
        made, rows, place = self._cells.setdefault(wanted, {}), self._rows, wanted.place
        missing = [index for index in indexes if index not in made] if made else indexes
        new = [encode(rows[index][place]) for index in missing]  # type: ignore[index] # passing rows are there
        made.update(zip(missing, new, strict=True))
        return new if missing is indexes else [made[index] for index in indexes]


def disordered(found: Changes) -> Changes:
    """The same with the rows of each transaction in an order that says nothing of their keys, for those who must not
    see these: a transaction writes them by key."""
    chosen = [(change[0], _DICE.random(), place) for place, change in enumerate(found.rows)]
    return Changes(found.upto, [found.rows[place] for _, _, place in sorted(chosen)])


def steps(found: Changes, after: int, limit: int, *, one_by_one: bool) -> Iterator[tuple[int, Sequence[Change]]]:
    """The changes in pages of at most ``limit``, each with the position that is reached then. ``one_by_one``: a key
    that changes again is in a page of its own, so that a row is sent before its tombstone, as it may have been."""
    place, keys = 0, set[Any]()
    for index, (_, key, _) in enumerate(found.rows):
        if index - place == limit or (one_by_one and key in keys):
            yield max(after, found.rows[index - 1][0] - 1), found.rows[place:index]
            place, keys = index, set()
        keys.add(key)
    yield found.upto, found.rows[place:]
