"""The items that a partition owns: what all users' events taught about them. One row an item that had an event.

Row: MessagePack of `ItemRow` under `i` + item id. It says up to which signal it has learned: rows are stored at
different times (`pipeline.storing`), and after a crash, when signals are read again from where the oldest row was, each
takes those that it has not learned.

A model is published when it is new; after that when its item had 1/GROWTH more events, at most every MODEL_EVERY_MS,
and any change within MODEL_WITHIN_MS. Of very many that are due, those that waited longest go first.
"""

from collections.abc import Generator, Iterator
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.errors import StateError
from streamer.events import Item
from streamer.model import factors, popularity, transitions
from streamer.model.ragged import Rows
from streamer.pipeline.catalogue import Catalogue, distinct
from streamer.pipeline.hashing import hash_id
from streamer.pipeline.item_model import MODEL_LAYOUT, ItemModel
from streamer.pipeline.signals import Learned
from streamer.pipeline.space import ItemSpace
from streamer.pipeline.storing import Storing
from streamer.pipeline.turns import PAUSE_MS, Turns

LAYOUT: Final = 3
MODEL_EVERY_MS: Final = 5_000  # every worker reads every model: this bounds what they all read
MODELS_PER_S: Final = 150  # of a partition: with 12 of them, reading all takes a worker 2 % of its time
GROWTH: Final = 16  # a sixteenth more events move no ranking that could be measured
MODEL_WITHIN_MS: Final = 60_000
PIECE: Final = 100  # rows or models encoded at once: 2 ms of work


class ItemRow(msgspec.Struct, frozen=True, array_like=True):
    """A model, and whether it was changed since it was last published."""

    layout: int
    model: ItemModel
    unpublished: bool
    learned_to: int = 0  # offset of the first signals that it has not learned; 0 before layout 3: the position has it
    checkpoint: int = 0  # that stored it


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ItemRow).decode
_NEVER: Final = int(np.iinfo(np.int64).max)
Records = list[tuple[bytes, bytes | None]]


class OwnItems:
    """Columns over the items of one partition, without gaps: the last row takes the place of a forgotten one."""

    def __init__(self, dim: int, seed: int) -> None:
        self.ids: list[str] = []
        self.tags: list[tuple[str, ...]] = []  # from events, of items that the catalogue does not list
        self.row_of: dict[str, int] = {}
        self.vectors = np.zeros((0, dim), np.float32)
        self.started = np.zeros(0, np.bool_)  # whether the vector is more than zeros
        self.slots = np.zeros(0, np.int32)  # in the catalogue; -1: not asked yet
        self.hashes = np.zeros(0, np.uint64)
        self.popularity = np.zeros((0, len(popularity.HALF_LIVES_MS)))
        self.ts = np.zeros(0, np.int64)
        self.events = np.zeros(0, np.int64)
        self.landmarks = np.zeros(0, np.int64)
        self.before = Rows(width=2, most=transitions.MOST)
        self.published_at = np.zeros(0, np.int64)  # 0: never, or not since it changed before a restart
        self.published_events = np.zeros(0, np.int64)
        self.learned_to = np.zeros(0, np.int64)  # offset in the signals: those before are in the row as it was loaded
        self.pending = np.zeros(0, np.bool_)  # to be published
        self.signals = 0  # ever learned from: numbers the draws of the learner
        self._seed = seed
        self.storing = Storing()
        self._publishing = Turns(MODELS_PER_S)
        self._next_due = _NEVER  # no pending model may be published before
        self._forgotten: set[str] = set()

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, row: bytes, reset_at: int = 0) -> None:
        """Take in a stored row; `reset_at` is the checkpoint that set the position in the signals back, if ever.

        Raises StateError for a row of a newer worker.
        """
        stored = _decode(row)
        if stored.layout > LAYOUT:
            raise StateError(f"item row of layout {stored.layout}, this worker knows {LAYOUT}: upgrade the worker")
        model = stored.model
        i = self._add(model.item_id, model.tags)
        vector = np.frombuffer(model.vector, np.float32)
        if len(vector) == self.vectors.shape[1]:
            self.vectors[i], self.started[i] = vector, vector.any()
        self.popularity[i], self.ts[i], self.events[i] = (*model.lately, model.popularity), model.ts, model.events
        self.landmarks[i] = model.landmark
        self.before.fill(
            i, np.frombuffer(model.before, np.uint64), np.frombuffer(model.weights, np.float32).reshape(-1, 2)
        )
        self.learned_to[i] = stored.learned_to if stored.checkpoint > reset_at else 0
        if stored.unpublished:
            self._wait(np.array([i]))

    def learn(self, signals: Learned, space: ItemSpace) -> None:
        """Apply signals in order: popularity, transitions, and a step of the factor learner for each.

        Rows that have learned a record before are left as they are; only a vector that the learner draws as a contrast
        takes such a step once more.
        """
        rows = self._rows(signals, space.catalogue)
        fresh = self.learned_to[rows] <= signals.offset
        positives = np.where(fresh, rows, -1)[signals.item]
        popularity.learn(self.popularity, self.ts, self.events, positives, signals.ts)
        self._learn_transitions(positives, signals)
        factors.learn(
            self.vectors[: len(self)],
            self.slots[: len(self)],
            positives.astype(np.int32),
            space.slots(signals.predecessors),
            signals.weight,
            space.catalogue.vectors,
            space.whitener,
            self._seed,
            self.signals,
            factors.Learning(),
        )
        self.storing.change(rows[fresh], signals.offset[fresh], self.signals + signals.before[fresh])
        self._wait(rows[fresh])
        self.signals += len(positives)

    def _learn_transitions(self, positives: NDArray[np.int64], signals: Learned) -> None:
        done = 0
        while True:
            done = transitions.learn(
                self.before.pool, self.landmarks, positives, self.hashes, signals.predecessors, signals.ts, done
            )
            if done == len(positives):
                return
            self.before.make_room()

    def describe(self, item: Item) -> None:
        """The catalogue lists an item from now on: tags that events brought do not count any more."""
        i = self.row_of.get(item.item_id)
        if i is None:
            return
        self.slots[i] = -1  # it may have been without one, in a full catalogue
        if self.tags[i]:
            self.tags[i] = ()
            self.storing.urgent[i] = True

    def forget(self, item_id: str) -> None:
        """The catalogue deleted an item: its model goes, here and in `item-models`."""
        i = self.row_of.pop(item_id, None)
        if i is not None:
            self._remove(i)
        self._forgotten.add(item_id)

    def models_due(self, now_ms: int) -> bool:
        """Whether a model may wait to be published now: what `take` finds."""
        return bool(self._forgotten) or self._next_due <= now_ms

    def take(
        self, now_ms: int, next_offset: int, checkpoint: int, *, everything: bool = False
    ) -> Generator[None, None, tuple[Records, Records]]:
        """What a checkpoint stores `(key, row)` and publishes `(item id, model)`, in pieces; None deletes.

        Rows and models can wait for a later call, except when `everything` that is due is asked for. What is taken
        counts as stored from the start on: all signals before `next_offset` have to be learned.
        """
        publish = self._due(now_ms, everything=everything)
        store = self.storing.take(now_ms, next_offset, everything=everything)
        rows, out = Records(), Records()
        goes_out, is_stored = np.zeros(len(self), np.bool_), np.zeros(len(self), np.bool_)
        goes_out[publish] = is_stored[store] = True
        for n, some in enumerate(_pieces(np.flatnonzero(goes_out | is_stored))):
            if n:
                yield
            for i, model in self._models(some):
                key, value = self.ids[i].encode(), _encode(model)
                if is_stored[i]:
                    row = (LAYOUT, msgspec.Raw(value), bool(self.pending[i]), next_offset, checkpoint)
                    rows.append((b"i" + key, _encode(row)))
                if goes_out[i]:
                    out.append((key, value))
        gone = [item_id.encode() for item_id in self._forgotten if item_id not in self.row_of]
        self._forgotten = set()
        return rows + [(b"i" + key, None) for key in gone], out + [(key, None) for key in gone]

    def take_models(self, now_ms: int) -> Records:
        """Models that are due, `(item id, model)`, between two checkpoints."""
        return [(self.ids[i].encode(), _encode(model)) for i, model in self._models(self._due(now_ms))]

    def _due(self, now_ms: int, *, everything: bool = False) -> NDArray[np.int64]:
        """Rows whose model goes out now, in turns unless `everything` is asked for; they count as published."""
        if self._next_due > now_ms and not everything:
            return np.zeros(0, np.int64)
        pending = np.flatnonzero(self.pending[: len(self)])
        due_at = self._due_at(pending)
        due = np.flatnonzero(due_at <= now_ms)
        publish = pending[due if everything else due[self._publishing.take(due_at[due], now_ms)]]
        self.pending[publish] = False
        self.published_at[publish], self.published_events[publish] = now_ms, self.events[publish]
        rest_ms = now_ms + PAUSE_MS if len(publish) < len(due) else _NEVER
        self._next_due = int(due_at[due_at > now_ms].min(initial=rest_ms))
        return publish

    def _due_at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """When models of rows may be published, ms."""
        before = self.published_events[rows]
        grown = self.events[rows] - before >= before / GROWTH
        return self.published_at[rows] + np.where(grown, MODEL_EVERY_MS, MODEL_WITHIN_MS)

    def _wait(self, rows: NDArray[np.int64]) -> None:
        """Changed models wait to be published."""
        self.pending[rows] = True
        self._next_due = min(self._next_due, int(self._due_at(rows).min(initial=_NEVER)))

    def _models(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, ItemModel]]:
        """The models of rows."""
        ends, keys, weights = self.before.take(rows)
        before, width = keys.tobytes(), weights.itemsize * weights.shape[1]
        pairs, start = weights.tobytes(), 0
        for i, end in zip(rows.tolist(), ends.tolist(), strict=True):
            day, week, month = self.popularity[i].tolist()
            yield (
                i,
                ItemModel(
                    MODEL_LAYOUT,
                    self.ids[i],
                    int(self.events[i]),
                    month,
                    int(self.ts[i]),
                    self.vectors[i].tobytes(),
                    self.tags[i],
                    (day, week),
                    int(self.landmarks[i]),
                    before[start * keys.itemsize : end * keys.itemsize],
                    pairs[start * width : end * width],
                ),
            )
            start = end

    def _rows(self, signals: Learned, catalogue: Catalogue) -> NDArray[np.int64]:
        """The row of each of the signals' items; new ones are added."""
        rows = np.array([self.row_of.get(item_id, -1) for item_id in signals.items], np.int64)
        met = (rows >= 0) & (self.slots[rows] >= 0) if len(self) else np.zeros(len(rows), np.bool_)
        met[list(signals.tags)] = False
        for n in np.flatnonzero(~met).tolist():
            rows[n] = self._row(signals.items[n], signals.tags.get(n, []), catalogue)
        return rows

    def _row(self, item_id: str, own_tags: list[str], catalogue: Catalogue) -> int:
        slot = catalogue.see(item_id)
        i = self._known_row(item_id, slot, own_tags, catalogue)
        self.slots[i] = slot
        return i

    def _known_row(self, item_id: str, slot: int, own_tags: list[str], catalogue: Catalogue) -> int:
        if catalogue.facts[slot] is not None:
            own_tags = []
        i = self.row_of.get(item_id)
        if i is None:
            i = self._add(item_id, tuple(distinct(own_tags)))
        elif own_tags:
            self.tags[i] = tuple(distinct((*self.tags[i], *own_tags)))
        if not self.started[i]:  # new, or stored with another STREAMER_VECTOR_DIM
            self.started[i] = True
            keys = [catalogue.learn_tag(tag) for tag in self.tags[i]] or catalogue.tags[slot, : catalogue.n_tags[slot]]
            self.vectors[i] = factors.initial_vector(
                np.array(keys, np.uint64), catalogue.hashes[slot], self.vectors.shape[1]
            )
        return i

    def _add(self, item_id: str, tags: tuple[str, ...]) -> int:
        i = len(self.ids)
        if i == len(self.vectors):
            self._grow(max(256, 2 * i))
        self.ids.append(item_id)
        self.tags.append(tags)
        self.row_of[item_id] = i
        self.slots[i], self.hashes[i] = -1, hash_id(item_id)
        return i

    def _remove(self, i: int) -> None:
        """Take a row out; the last one moves into its place."""
        last = len(self.ids) - 1
        self.before.move(last, i)
        for _, _, column in self._columns():
            column[i] = column[last]
            column[last] = 0
        self.tags[i] = self.tags[last]
        self.tags.pop()
        moved = self.ids.pop()
        if i != last:
            self.ids[i] = moved
            self.row_of[moved] = i

    def _grow(self, capacity: int) -> None:
        for holder, name, old in self._columns():
            new = np.zeros((capacity, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(holder, name, new)
        self.before.reach(capacity)

    def _columns(self) -> list[tuple[object, str, NDArray[np.generic]]]:
        """Everything that has a place for each row, and where it stands."""
        return [
            (holder, name, column)
            for holder in (self, self.storing)
            for name, column in vars(holder).items()
            if isinstance(column, np.ndarray)
        ]


def _pieces(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    return (rows[first : first + PIECE] for first in range(0, len(rows), PIECE))
