"""One partition: its users, its items, where it stands in its sources, and what waits for the next checkpoint.

Rows and positions move together, under `state_lock`: a batch is applied whole, and a cut falls between batches.
"""

import asyncio
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer import metrics
from streamer.engine.buffers import size_of
from streamer.engine.cache import DIRTY, IN_FLIGHT, CacheFullError
from streamer.engine.heartbeat import Heartbeat
from streamer.engine.held import Held
from streamer.engine.position import CATALOGUE, LAYOUT, SIGNALS, USER_EVENTS, Effects, Position, Take
from streamer.engine.ranking import PartitionMix
from streamer.engine.shared import Shared
from streamer.engine.store import ITEM, LEARNED, POSITION, USER, Row, Store
from streamer.engine.tracing import Traces
from streamer.errors import StateError
from streamer.events import KIND_OF_TOPIC
from streamer.model.tag_mix import new_learned, new_work
from streamer.pipeline import signals as signals_
from streamer.pipeline.assemble import Events, Part
from streamer.pipeline.cut import PIECE, Candidates, Cut, cut, join, pieces, slots_to_look_at
from streamer.pipeline.decode import Rejected, decode_events, decode_items
from streamer.pipeline.fold import APPLIED, DUPLICATE, Columns, Folded, fold
from streamer.pipeline.layout import TAGS
from streamer.pipeline.names import Named, item_key, tag_key
from streamer.pipeline.own_items import OwnItems
from streamer.pipeline.publish import Names, World
from streamer.pipeline.rows import pack_learned, unpack_learned
from streamer.pipeline.storing import ROWS_EVERY_MS
from streamer.pipeline.turns import at_once

if TYPE_CHECKING:  # with the extra `otel` only
    from streamer.engine.spans import Spans

REJECTED_BYTES = 16 << 20  # kept for a checkpoint at most, and the batch that went over it
DUE_AT_ONCE = 2000  # held-back users published by one checkpoint: 60 ms of work


class Partition:
    """State of one partition. `store` and `position` are set when it is opened."""

    def __init__(self, number: int, shared: Shared) -> None:
        self.number, self.shared = number, shared
        self.store: Store | None = None
        self.position = Position(LAYOUT, shared.partitions, {}, {})
        self.saved: dict[str, int] = {}
        self.state_lock, self.txn_lock = asyncio.Lock(), asyncio.Lock()
        self.changed = asyncio.Event()  # there is something for a checkpoint to write
        self.mix = PartitionMix(shared.ranking, number) if shared.ranking else None
        self.own_items = OwnItems(shared.space.dim, seed=number)
        self.named, self.outbox = Named(), signals_.Outbox()
        self.rejected: list[tuple[str, Any, Rejected]] = []
        self.held = Held()
        self.traces: Traces | None = None  # where they are passed on
        self.spans: Spans | None = None  # where somebody collects them
        self._heartbeat = Heartbeat(shared.heartbeat_ms)
        self._silent: list[bytes] = []  # users found due for a heartbeat
        self._changed: list[NDArray[np.int64]] = []
        self.changed_rows = self.rejected_bytes = 0
        names = Names(self._item_name, self._tag_name)
        self.world = World(shared.cache.users, shared.space, names, shared.policy, new_learned(), new_work(TAGS))
        self._learned_stored = 0  # events that were learned from by then

    # ---- opening
    def load(self) -> None:
        """Take over what the store has."""
        raw = self._store.get(POSITION)
        if raw is not None:
            self._load_position(msgspec.msgpack.decode(raw, type=Position))
        self.own_items.signals = self.position.signals
        # Not all partitions at once.
        self.own_items.storing.next_at = (
            self.shared.now_ms() + ROWS_EVERY_MS - ROWS_EVERY_MS * self.number // self.shared.partitions
        )
        for _, row in self._store.scan(ITEM):
            self.own_items.load(row, self.position.signals_reset_at)
        if self.mix:
            self.mix.load(self._store)
        self.held.load(self._store)
        self.world = self.world._replace(learned=unpack_learned(self._store.get(LEARNED)))
        self._learned_stored = int(self.world.learned.events[0])

    def _load_position(self, position: Position) -> None:
        if position.layout > LAYOUT:
            raise StateError(f"state layout {position.layout} is newer than this worker's {LAYOUT}: upgrade the worker")
        if position.partitions != self.shared.partitions:
            raise StateError(
                f"the state was made with {position.partitions} partitions, STREAMER_PARTITIONS is"
                f" {self.shared.partitions}: set it back, or start anew under another STREAMER_APP_ID"
            )
        self.position = position
        self.saved = dict(position.next)

    @property
    def _store(self) -> Store:
        if self.store is None:
            raise RuntimeError(f"partition {self.number} is not open")
        return self.store

    # ---- applying; callers hold state_lock
    def decode(self, takes: Iterable[Take]) -> list[Part]:
        """Decode user events. Changes nothing."""
        with metrics.stage("decode"):
            return [self._decode(take) for take in takes]

    def _decode(self, take: Take) -> Part:
        newest = self.position.newest_ts.get(take.topic, 0)
        kind = KIND_OF_TOPIC[take.topic]
        return Part(kind, take.records, decode_events(kind, take.records, self.shared.limits, newest))

    def names_unknown_items(self, parts: list[Part]) -> bool:
        """Whether events name items that the catalogue has not heard of."""
        return not all(self.shared.catalogue.knows(part.decoded.columns.item) for part in parts)

    def apply_events(self, parts: list[Part]) -> None:
        """Fold decoded events into the users. Raises CacheFullError before anything changed."""
        cache, catalogue = self.shared.cache, self.shared.catalogue
        events = Events(parts)
        cache.tick += 1
        with metrics.stage("load"):
            slots = cache.slots(self.number, events.keys, self._load_users)
        with metrics.stage("assemble"):
            items = catalogue.see_all(events.item, events.item_id)
            batch, order = events.columns(slots, items, catalogue), events.order()
        with metrics.stage("fold"):
            folded = self._fold(batch, order, items)
        self._note_changed(batch.slot, order, folded.outcome, events)
        if self.traces is not None:
            self.traces.note(events, order[folded.outcome[order] != DUPLICATE])
        self._send_signals(events, items, order, batch, folded)
        self.named.refer(items, batch.tags, bool(events.tags), catalogue)
        self._account(parts, folded.outcome)

    def _fold(self, batch: Columns, order: NDArray[np.int64], items: NDArray[np.int64]) -> Folded:
        shared = self.shared
        users, tick = shared.cache.users, shared.cache.tick
        if self.mix is None:
            return fold(users, batch, order, self.world.mind, tick)
        return self.mix.fold(users, batch, order, self.world.mind, tick, items, shared.now_ms())

    def apply_items(self, takes: Iterable[Take]) -> None:
        """Take in catalogue changes that concern items of this partition."""
        for take in takes:
            changes, rejected = decode_items(list(take.records), self.shared.limits)
            for item_id, item in changes:
                if item is None:
                    self.own_items.forget(item_id)
                else:
                    self.own_items.describe(item)
            self._reject(take, rejected)
            deleted = sum(item is None for _, item in changes)
            _count("item", applied=len(changes) - deleted, tombstone=deleted, rejected=len(rejected))

    def apply_signals(self, takes: Iterable[Take]) -> None:
        """Learn what events, here and in other partitions, taught about our items."""
        with metrics.stage("learn"):
            records = [signals_.decode(record.value or b"", record.offset) for take in takes for record in take.records]
            if records:
                self.own_items.learn(signals_.join(records), self.shared.space)

    def advance(self, take: Take) -> None:
        """The records of a take are applied."""
        self.position.next[take.topic] = take.next_offset

    def _load_users(self, keys: list[bytes]) -> list[bytes | None]:
        return self._store.get_many([USER + key for key in keys])

    def _note_changed(
        self, slots: NDArray[np.int64], order: NDArray[np.int64], outcome: NDArray[np.uint8], events: Events
    ) -> None:
        cache = self.shared.cache
        applied = order[outcome[order] != DUPLICATE]
        changed, last = np.unique(slots[applied][::-1], return_index=True)  # of a user's events the latest
        for slot, event_id in zip(changed.tolist(), events.event_ids(applied[::-1][last]), strict=True):
            cache.cause[slot] = event_id
        fresh = changed[cache.unsaved[changed] & DIRTY == 0]
        cache.unsaved[fresh] |= DIRTY
        self._changed.append(fresh)
        self.changed_rows += len(fresh)

    def _send_signals(
        self, events: Events, items: NDArray[np.int64], order: NDArray[np.int64], batch: Columns, folded: Folded
    ) -> None:
        """What the events teach about items, in the order in which they were applied: repeats in excess, nothing."""
        applied = order[(folded.outcome == APPLIED)[order] & (items != self.shared.catalogue.crowd)[order]]
        own_tags: dict[int, tuple[str, ...]] = {}
        for i in applied.tolist() if events.tags else ():
            if i in events.tags:
                signals_.join_tags(own_tags, int(items[i]), events.tags[i])
        self.outbox.add(
            signals_.Batch(
                items[applied], batch.ts[applied], batch.weight[applied], folded.predecessors[applied], own_tags
            )
        )

    def _account(self, parts: list[Part], outcome: NDArray[np.uint8]) -> None:
        at = 0
        for part in parts:
            n = part.decoded.size
            duplicates = int(np.count_nonzero(outcome[at : at + n] == DUPLICATE))
            at += n
            _count(part.kind.name, applied=n - duplicates, duplicate=duplicates, rejected=len(part.decoded.rejected))
            self._reject(Take(part.kind.topic, part.records, 0), part.decoded.rejected)
            self.position.newest_ts[part.kind.topic] = part.decoded.newest_ts

    def _reject(self, take: Take, rejected: list[Rejected]) -> None:
        for bad in rejected:
            record = take.records[bad.place]
            self.rejected.append((take.topic, record, bad))
            self.rejected_bytes += size_of(record)
            metrics.REJECTED.labels(bad.reason).inc()

    # ---- the cut; callers hold state_lock
    def is_full(self, rows: int) -> bool:
        """Whether a checkpoint has to come before more is applied: `rows` changed, or large records were rejected."""
        return self.changed_rows >= rows or self.rejected_bytes >= REJECTED_BYTES

    def has_work(self, now_ms: int, *, last: bool = False) -> bool:
        """Whether a checkpoint would write anything; the `last` one leaves nothing behind."""
        self._silent = self._silent or self._heartbeat.silent(self._store, now_ms)
        return (
            self._moved(CATALOGUE, *USER_EVENTS)
            or self.own_items.storing.due(now_ms)
            or (last and self._moved(SIGNALS))
            or self.held.next_due() <= now_ms
            or self.own_items.models_due(now_ms)
            or bool(self._silent)
        )

    def _moved(self, *topics: str) -> bool:
        """Whether more of these topics is applied than stored."""
        return any(self.position.next.get(topic) != self.saved.get(topic) for topic in topics)

    def cut(self, *, last: bool = False) -> Effects:
        """`cut_in_pieces` at once."""
        return at_once(self.cut_in_pieces(PIECE, last=last))

    def cut_in_pieces(self, size: int, *, last: bool = False) -> Generator[None, None, Effects]:
        """All that has to be written now, marked as being on its way, `size` users a piece. Falls between two batches.

        Others may work between its pieces, but not on this partition: the caller holds `state_lock` until the end.
        """
        cache, now = self.shared.cache, self.shared.now_ms()
        cache.tick += 1
        changed = np.concatenate([*self._changed, np.zeros(0, np.int64)]).astype(np.int64)
        self._changed, self.changed_rows = [], 0
        slots, why = slots_to_look_at(changed, self._due_slots(now), self._silent_slots(now))
        cache.unsaved[slots] = IN_FLIGHT
        keys = [cache.key_of[slot] for slot in slots.tolist()]
        due_ms, cuts = self._due_time(now, changed), list[Cut]()
        for piece in pieces(Candidates(slots, why, keys), size):
            if cuts:
                yield
            with metrics.stage("gate"):
                cuts.append(cut(self.world, piece, cache.cause, now, due_ms))
        yield
        result = join(cuts)
        self.held.discard(publication.key for publication in result.publications)
        self.position.checkpoint += 1
        learned_to, checkpoint = self.position.next.get(SIGNALS, 0), self.position.checkpoint
        item_rows, models = yield from self.own_items.take(now, learned_to, checkpoint, everything=last)
        yield
        position = self._position_to_store()
        rows: list[Row] = [(USER + key, row) for key, row in zip(keys, result.rows, strict=True)]
        rows += self.mix.rows() if self.mix else []
        rows += [*item_rows, *self.named.take().items(), *self._learned_rows()]
        rows.append((POSITION, msgspec.msgpack.encode(position)))
        rejected, self.rejected, self.rejected_bytes = self.rejected, [], 0
        return Effects(
            rows=rows,
            local=self._held_rows(result, position.checkpoint),
            publications=result.publications,
            signals=self.outbox.take(self.shared.catalogue),
            models=models,
            rejected=rejected,
            position=position,
            slots=slots,
            traces={} if self.traces is None else self.traces.take(each.key for each in result.publications),
        )

    def _learned_rows(self) -> list[Row]:
        """What was learned of all users, if anything was since the last cut."""
        learned = self.world.learned
        if learned.events[0] == self._learned_stored:
            return []
        self._learned_stored = int(learned.events[0])
        return [(LEARNED, pack_learned(learned))]

    def _position_to_store(self) -> Position:
        """A copy of the position; in the signals it is where the stored rows of items are."""
        next_offsets, signals = dict(self.position.next), self.own_items.signals
        if SIGNALS in next_offsets:
            next_offsets[SIGNALS], signals = self.own_items.storing.stored_to(next_offsets[SIGNALS], signals)
        return msgspec.structs.replace(
            self.position, next=next_offsets, newest_ts=dict(self.position.newest_ts), signals=signals
        )

    def write_to_store(self, effects: Effects, next_offset: int) -> None:
        """After the commit: the store takes the rows, and their users may leave memory."""
        self.prepare_write(effects, next_offset)()
        self.note_stored(effects)

    def prepare_write(self, effects: Effects, next_offset: int) -> Callable[[], None]:
        """What has the store take the rows; it may run beside everything else."""
        return self._store.prepare(effects.rows, next_offset, effects.local)

    def note_stored(self, effects: Effects) -> None:
        """The store has the rows."""
        self.shared.cache.unsaved[effects.slots] &= ~np.uint8(IN_FLIGHT)
        self.saved = effects.position.next

    # ---- changes held back
    def _due_time(self, now: int, slots: NDArray[np.int64]) -> int:
        """When changes that are held back now have to be out: within `publish_within_ms` of their event, less a margin.

        With a backlog the events are old already: half of the time from now then, so that catching up is not slowed
        by messages.
        """
        within = self.shared.publish_within_ms
        touched = self.shared.cache.users.touched_at[slots]
        oldest = int(touched[touched > 0].min(initial=now))  # 0: loaded, and no event since
        age = max(now - oldest, 0)  # a producer's clock may be ahead of ours
        return now + max(within - age - min(within // 10, 2000), within // 2)

    def _due_slots(self, now: int) -> NDArray[np.int64]:
        """Slots of users whose held-back change is due."""
        keys = self.held.due(now, self._at_once)
        slots = self._slots(keys)
        if not len(slots):
            return slots
        self.held.discard(keys)
        until = self.shared.cache.users.head["held_until"][slots]
        for key, later in zip(keys, until.tolist(), strict=True):
            if later > now:
                self.held.add([key], later)  # published since, and held back again
        return slots[(until > 0) & (until <= now)]

    def _silent_slots(self, now: int) -> NDArray[np.int64]:
        """Slots of users who are due for a heartbeat."""
        keys = self._silent[: self._at_once]
        slots = self._slots(keys)
        self._silent = self._silent[len(slots) :]
        last = self.shared.cache.users.head["published_at"][slots]
        return slots[(last > 0) & (last <= now - self.shared.heartbeat_ms)]

    def _slots(self, keys: list[bytes]) -> NDArray[np.int64]:
        """Slots of stored users, loaded where needed; none while unsaved changes fill memory: a later cut does."""
        if not keys:
            return np.zeros(0, np.int64)
        try:
            return self.shared.cache.slots(self.number, keys, self._load_users)
        except CacheFullError:
            return np.zeros(0, np.int64)

    @property
    def _at_once(self) -> int:
        """How many silent users a cut may load, for each reason: most of the memory is for those with events."""
        return min(DUE_AT_ONCE, self.shared.cache.capacity // 4)

    def _held_rows(self, result: Cut, checkpoint: int) -> list[Row]:
        """The local rows that name users newly held back."""
        cache = self.shared.cache
        users = [cache.key_of[slot] for slot in result.held.tolist()]
        until = int(cache.users.head["held_until"][result.held[0]]) if users else 0
        self.held.add(users, until)
        return self.held.notes(users, until, checkpoint)

    # ---- names
    def _item_name(self, item_hash: int) -> str | None:
        return self.shared.catalogue.name(item_hash) or self._own_name(item_key(item_hash))

    def _tag_name(self, tag_hash: int) -> str | None:
        return self.shared.catalogue.tag_names.get(tag_hash) or self._own_name(tag_key(tag_hash))

    def _own_name(self, key: bytes) -> str | None:
        raw = self.named.unstored(key) or self._store.get(key)
        return None if raw is None else raw.decode()


def _count(kind: str, **outcomes: int) -> None:
    for outcome, n in outcomes.items():
        if n:
            metrics.EVENTS.labels(kind, outcome).inc(n)
