"""One subscription: everything that is written to its topic, and in which order.

Nothing leaves without a fresh decision on the very terms that it was rendered under, and an audit entry before it.
What was sent is recorded after it was acknowledged, so a process that dies sends it again: records are keyed, and the
state that they fold to is the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from bus.access.decision import Allow, Deny
from bus.access.identity import Subject
from bus.errors import BusError
from bus.sharing.recording import under
from bus.sharing.streams.desk import Desk, Interfered, NotReady, Superseded, TopicBegan
from bus.sharing.streams.notices import Notice, NoticeKind, Record, Stamp
from bus.sharing.streams.pages import Look, Outgoing, Page
from bus.sharing.streams.states import Kind, PolicyChange, Shown, SubscriptionState
from bus.sharing.streams.terms import Terms
from bus.views.catalogue import Shape

SWEPT: Final = 5_000  # tombstones at a time
_NUMBERS: Final[Mapping[NoticeKind, int]] = {
    "narrowed": 0, "widened": 1, "snapshot_begins": 2, "snapshot_ends": 3, "ended": 4,
}  # fmt: skip


class Stream:
    """Writes one topic. Not safe to use from two tasks at once. ``look``: how it sees its view, once that is known;
    ``certain``: that the topic ends where the last record of this stream lies."""

    def __init__(self, desk: Desk, state: SubscriptionState) -> None:
        self._desk, self.state = desk, state
        self.look: Look | None = None
        self.certain = False

    @property
    def topic(self) -> str:
        return f"share.{self.state.consumer}.{self.state.view}"

    # What it is told

    async def renew(self, shape: Shape, allow: Allow, kind: Kind, reason: str) -> None:
        """Begins, or narrows: from one offset on only what the terms show, all of it anew; what is before is deleted.
        After a crash the same call begins again, at another offset."""
        look = await self._desk.look(Terms.of(allow), shape)
        await self.adopt(forgetful=True)
        await self._begin(look, allow, kind, reason)
        self.look = look
        try:
            if kind == "narrowed":
                await self._withdraw(look)
            await self._tell("snapshot_begins", look, allow, reason)
            seq = await self._all_rows(look, resend=True)
            await self._tell("snapshot_ends", look, allow, reason)
        except NotReady:  # rows can wait for their view to be built; what may not be read any more cannot
            await self._desk.sink.delete_before(self.topic, self.state.boundary)
            raise
        await self._desk.sink.delete_before(self.topic, self.state.boundary)
        await self._save(replace(self.state, state="running", seq=seq, fingerprint=shape.fingerprint, problem=""))

    async def differ(self, shape: Shape, allow: Allow, kind: Kind | None, reason: str) -> None:
        """Widens (``kind``), or goes on where the log does not reach back: sends only what differs from what the topic
        shows, as of now. Raises `Interfered` where that is not sure."""
        look = await self._desk.look(Terms.of(allow), shape)
        await self.adopt()
        if self.state.seq < self.state.unsure:
            raise Interfered()
        resend = self.look is None or (self.look.prefix, self.look.cells) != (look.prefix, look.cells)
        if kind is not None:
            offset = self.state.next_offset
            state = replace(self._under(look, allow), boundary=self.state.boundary)
            await self._tell(_notice(kind), look, allow, reason)
            await self._save(replace(state, next_offset=self.state.next_offset), kind, offset, reason)
        self.state = replace(self.state, generation=self.state.generation + 1)
        self.look = look
        seq = await self._all_rows(look, resend=resend)
        await self._save(replace(self.state, state="running", seq=seq, fingerprint=shape.fingerprint, problem=""))

    async def end(self, revision: str, reason: str) -> None:
        """Ends: the consumer is told, everything before that is deleted, what was shown is forgotten."""
        await self._save(replace(self.state, state="ending", digest="", revision=revision))
        offset = self.state.next_offset
        try:
            await self.adopt(forgetful=True)
            offset = await self._append([self._record(self._ending(revision, reason))])
            await self._desk.sink.delete_before(self.topic, offset)
        except NotReady:
            pass  # the topic is gone, and with it all that it showed
        await asyncio.to_thread(self._desk.store.forget, self.state)
        await self._save(replace(self.state, state="ended", boundary=offset, problem=""), "ended", offset, reason)
        self.look = None

    async def send(self, outgoing: Outgoing, part: str) -> None:
        """Sends a page's records, if there are any. It is for the caller to record them."""
        if outgoing.records:
            await self._desk.audit.append(await self.entry(outgoing, part))
            await self._append(outgoing.records)

    async def entry(self, outgoing: Outgoing, part: str) -> dict[str, Any]:
        """The audit entry under which the records may leave, once it is written. Raises as `_permit` does."""
        allow = await self._permit()
        return under(
            Subject(allow.consumer),
            allow,
            columns=allow.columns,
            masked=[name for name in allow.columns if name in allow.masks],
            rows=len(outgoing.put),
            question={"part": part, "withdrawn": len(outgoing.gone), "offset": self.state.next_offset},
            request_id="",
        )

    def begin_append(self) -> bool:
        """From here on it is not certain where the topic ends, until `appended`; whether it was."""
        certain, self.certain = self.certain, False
        return certain

    def appended(self, offset: int, count: int, *, certain: bool) -> int:
        """So many records lie there from ``offset`` on. Raises `TopicBegan` and `Interfered` where that is not where
        the topic ended."""
        expected = self.state.next_offset
        if offset < expected:
            raise TopicBegan()
        if offset > expected and certain:
            raise Interfered()
        self.state = replace(self.state, next_offset=offset + count)
        self.certain = True
        return offset

    async def deliver(self, outgoing: Outgoing, part: str, **moved: Any) -> None:
        """Sends a page's records and records them, with what ``moved`` of the state."""
        await self.send(outgoing, part)
        self.state = replace(self.state, **moved)
        shown = Shown(self.state, outgoing.put, outgoing.gone, outgoing.same)
        await asyncio.to_thread(self._desk.store.advance, [shown])

    async def page(self, page: Page, **options: Any) -> Outgoing:
        """What this stream is sent of a page."""
        look = self.looking()
        known = await asyncio.to_thread(self._desk.store.members, self.state.view, page.keys, self.state.id)
        return await asyncio.to_thread(
            page.outgoing, look, self.stamp, known.get(self.state.id, {}), **options
        )  # fmt: skip

    def looking(self) -> Look:
        """How it sees its view. Raises `NotReady` before that is known."""
        if self.look is None:
            raise NotReady(why="its terms are not known")
        return self.look

    @property
    def stamp(self) -> Stamp:
        """Makes the headers of this generation's records."""
        return Stamp(self.state.consumer, self.state.view, self.state.generation)

    async def adopt(self, *, forgetful: bool = False) -> None:
        """Makes certain where the topic ends. What a process that died had sent and not recorded is there already: it
        came of changes up to where the view is now, which have to be gone through one by one. Raises `NotReady` where
        the topic is missing, `TopicBegan` where it is another (``forgetful``: then nothing was ever shown)."""
        if self.certain:
            return
        end = (await self._desk.sink.ends([self.topic])).get(self.topic)
        if end is None:
            raise NotReady(why=f"there is no topic {self.topic}")
        if end < self.state.next_offset:
            if not forgetful:
                raise TopicBegan()
            await asyncio.to_thread(self._desk.store.forget, self.state)
        unsure = self.state.unsure
        if end > self.state.next_offset:
            unsure = (await asyncio.to_thread(self._desk.log.standing, self.state.view)).seq
        self.state = replace(self.state, next_offset=end, unsure=unsure)
        self.certain = True

    # How it is done

    async def _begin(self, look: Look, allow: Allow, kind: Kind, reason: str) -> None:
        """The boundary: everything from it on is under the new terms. Where keys are to be hidden, or not any more,
        tombstones of the old ones come before it, to be deleted with the rest."""
        if self.state.opaque != look.opaque:
            await self._sweep_old_keys(look)
        state = self._under(look, allow)
        offset = self.state.next_offset
        if kind != "started":
            offset = await self._tell(_notice(kind), look, allow, reason)
        state = replace(state, next_offset=self.state.next_offset, boundary=offset, unsure=0)
        await self._save(state, kind, offset, reason)

    def _under(self, look: Look, allow: Allow) -> SubscriptionState:
        """The state under new terms, before any row was given."""
        return replace(
            self.state,
            purpose=allow.purpose,
            digest=look.terms.digest,
            terms=look.terms.text,
            grants=",".join(allow.grant_ids),
            state="starting",
            revision=allow.policy_revision,
            opaque=look.opaque,
            generation=self.state.generation + 1,
        )

    async def _withdraw(self, look: Look) -> None:
        """Tombstones of the rows that the terms do not show, before all others are given again."""
        async with self._desk.snapshot(look) as (seq, portions):
            async for rows in portions:
                page = await asyncio.to_thread(Page.of_rows, look.shape, seq, rows, self._desk.mask_secret)
                visible = await asyncio.to_thread(page.visible, look)
                await asyncio.to_thread(self._desk.store.advance, [Shown(self.state, same=visible)])
        await self._sweep(seq)
        self.state = replace(self.state, generation=self.state.generation + 1)

    async def _all_rows(self, look: Look, *, resend: bool) -> int:
        """Every row that may be seen, then tombstones of those that the topic still shows; the ``seq`` that it is of.
        ``resend``: those too that the topic shows as they are."""
        async with self._desk.snapshot(look) as (seq, portions):
            async for rows in portions:
                page = await asyncio.to_thread(Page.of_rows, look.shape, seq, rows, self._desk.mask_secret)
                await self.deliver(await self.page(page, resend=resend), "snapshot")
        await self._sweep(seq)
        return seq

    async def _sweep(self, seq: int) -> None:
        look = self.looking()
        while keys := await asyncio.to_thread(self._desk.store.others, self.state, limit=SWEPT, at_random=look.opaque):
            records = [self.stamp.record(look.record_key(key), None, seq) for key in keys]
            await self.deliver(Outgoing(records, {}, keys), "withdrawal")

    async def _sweep_old_keys(self, look: Look) -> None:
        """Tombstones under the keys of before, outside any terms: they show nothing but what is to be forgotten."""
        self.state = replace(self.state, generation=self.state.generation + 1)
        hidden = self.state.opaque
        while keys := await asyncio.to_thread(self._desk.store.others, self.state, limit=SWEPT, at_random=hidden):
            names = [look.key_of(key, opaque=self.state.opaque) for key in keys]
            await self._append([self.stamp.record(name, None, self.state.seq) for name in names])
            await asyncio.to_thread(self._desk.store.advance, [Shown(self.state, gone=keys)])

    async def _permit(self) -> Allow:
        """The decision as it is now. Raises its refusal, and `Superseded` where it speaks of other terms."""
        look = self.looking()
        decision = await self._desk.permits.decide(look.terms.consumer, look.shape, look.terms.purpose)
        if isinstance(decision, Deny):
            raise decision.error
        if Terms.of(decision).digest != look.terms.digest:
            raise Superseded()
        return decision

    async def _append(self, records: Sequence[Record]) -> int:
        self._desk.alive()
        certain = self.begin_append()
        return self.appended(await self._desk.sink.append(self.topic, records), len(records), certain=certain)

    async def _tell(self, kind: NoticeKind, look: Look, allow: Allow, reason: str) -> int:
        notice = Notice(
            kind=kind,
            view=self.state.view,
            revision=allow.policy_revision,
            reason=reason,
            purpose=look.terms.purpose,
            columns=look.terms.columns,
            masked=look.terms.masked,
            seq=self.state.seq,
            at=self._now(),
        )
        return await self._append([self._record(notice)])

    def _ending(self, revision: str, reason: str) -> Notice:
        state = self.state
        return Notice("ended", state.view, revision, reason, state.purpose, (), (), state.seq, self._now())

    def _record(self, notice: Notice) -> Record:
        return notice.record(self.state.generation * len(_NUMBERS) + _NUMBERS[notice.kind])

    def _now(self) -> str:
        return self._desk.now().isoformat(timespec="milliseconds")

    async def _save(
        self, state: SubscriptionState, kind: Kind | None = None, offset: int = 0, reason: str = ""
    ) -> None:
        change = None
        if kind is not None:
            pair = (state.consumer, state.view)
            again = self.state.state == state.state and self.state.digest == state.digest
            change = PolicyChange(*pair, kind, offset, state.seq, state.revision, reason, self._now(), again)
        self.state = await asyncio.to_thread(self._desk.store.save, state, change)


def _notice(kind: Kind) -> NoticeKind:
    if kind == "started":
        raise BusError("A stream that starts has no notice but the snapshot's.")
    return kind
