"""The items that a partition owns: what all users' events taught about them. One row an item that had an event.

Row: MessagePack of `ItemRow` under `i` + item id. A model is published when it is new; after that when its item had
1/GROWTH more events, at most every MODEL_EVERY_MS, and more seldom when so many wait that MODELS_PER_S would not do;
and any change within MODEL_WITHIN_MS.
"""

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

LAYOUT: Final = 2
MODEL_EVERY_MS: Final = 5_000  # every worker reads every model: this bounds what they all read
MODELS_PER_S: Final = 150  # of a partition: with 12 of them, reading all takes a worker 2 % of its time
GROWTH: Final = 16  # a sixteenth more events move no ranking that could be measured
MODEL_WITHIN_MS: Final = 60_000


class ItemRow(msgspec.Struct, frozen=True, array_like=True):
    """A model, and whether it was changed since it was last published."""

    layout: int
    model: ItemModel
    unpublished: bool


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
        self.dirty = np.zeros(0, np.bool_)  # to be stored
        self.pending = np.zeros(0, np.bool_)  # to be published
        self.signals = 0  # ever learned from: numbers the draws of the learner
        self._seed = seed
        self._next_due = _NEVER  # no pending model may be published before
        self._forgotten: set[str] = set()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def unstored(self) -> int:
        """How many rows changed since they were stored."""
        return int(np.count_nonzero(self.dirty)) + len(self._forgotten)

    def load(self, row: bytes) -> None:
        """Take in a stored row. Raises StateError for one of a newer worker."""
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
        if stored.unpublished:
            self._wait(np.array([i]))

    def learn(self, signals: Learned, space: ItemSpace) -> None:
        """Apply signals in order: popularity, transitions, and a step of the factor learner for each."""
        rows = self._rows(signals, space.catalogue)
        positives = rows[signals.item]
        popularity.learn(self.popularity, self.ts, self.events, positives, signals.ts)
        self._learn_transitions(positives, signals)
        factors.learn(
            self.vectors[: len(self)],
            self.slots[: len(self)],
            positives.astype(np.int32),
            space.slots(signals.predecessors),
            _relative(signals.weight),
            space.catalogue.vectors,
            space.whitener,
            self._seed,
            self.signals,
            factors.Learning(),
        )
        self.signals += len(positives)
        self.dirty[rows] = True
        self._wait(rows)

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
            self.dirty[i] = True

    def forget(self, item_id: str) -> None:
        """The catalogue deleted an item: its model goes, here and in `item-models`."""
        i = self.row_of.pop(item_id, None)
        if i is not None:
            self._remove(i)
        self._forgotten.add(item_id)

    def models_due(self, now_ms: int) -> bool:
        """Whether a model may wait to be published now: what `take` finds."""
        return bool(self._forgotten) or self._next_due <= now_ms

    def take(self, now_ms: int, *, store: bool = True) -> tuple[Records, Records]:
        """What a checkpoint stores `(key, row)` and publishes `(item id, model)`; None deletes.

        Rows can wait for a later call (`store`), as long as the position in the signals waits with them.
        """
        publish = self._due(now_ms)
        dirty = np.flatnonzero(self.dirty[: len(self)]) if store else np.zeros(0, np.int64)
        self.dirty[dirty] = False
        models = {i: _encode(self._model(i)) for i in np.union1d(publish, dirty).tolist()}
        rows: Records = [
            (b"i" + self.ids[i].encode(), _encode((LAYOUT, msgspec.Raw(models[i]), bool(self.pending[i]))))
            for i in dirty.tolist()
        ]
        out: Records = [(self.ids[i].encode(), models[i]) for i in publish.tolist()]
        gone = [item_id.encode() for item_id in self._forgotten if item_id not in self.row_of]
        self._forgotten = set()
        return rows + [(b"i" + key, None) for key in gone], out + [(key, None) for key in gone]

    def _due(self, now_ms: int) -> NDArray[np.int64]:
        """Rows whose model goes out now; they count as published from here on."""
        if self._next_due > now_ms:
            return np.zeros(0, np.int64)
        pending = np.flatnonzero(self.pending[: len(self)])
        due_at = self._due_at(pending)
        publish = pending[due_at <= now_ms]
        self.pending[publish] = False
        self.published_at[publish], self.published_events[publish] = now_ms, self.events[publish]
        self._next_due = int(due_at[due_at > now_ms].min(initial=_NEVER))
        return publish

    def _due_at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """When models of rows may be published, ms."""
        before = self.published_events[rows]
        grown = self.events[rows] - before >= before / GROWTH
        all_ms = 1000 * int(np.count_nonzero(self.pending)) // MODELS_PER_S
        every_ms = min(max(MODEL_EVERY_MS, all_ms), MODEL_WITHIN_MS)
        return self.published_at[rows] + np.where(grown, every_ms, MODEL_WITHIN_MS)

    def _wait(self, rows: NDArray[np.int64]) -> None:
        """Changed models wait to be published."""
        self.pending[rows] = True
        self._next_due = min(self._next_due, int(self._due_at(rows).min(initial=_NEVER)))

    def _model(self, i: int) -> ItemModel:
        day, week, month = self.popularity[i].tolist()
        before, weights = self.before.row(i)
        return ItemModel(
            MODEL_LAYOUT,
            self.ids[i],
            int(self.events[i]),
            month,
            int(self.ts[i]),
            self.vectors[i].tobytes(),
            self.tags[i],
            (day, week),
            int(self.landmarks[i]),
            before.tobytes(),
            weights.tobytes(),
        )

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
        for column in self._columns().values():
            column[i] = column[last]
            column[last] = 0
        self.tags[i] = self.tags[last]
        self.tags.pop()
        moved = self.ids.pop()
        if i != last:
            self.ids[i] = moved
            self.row_of[moved] = i

    def _grow(self, capacity: int) -> None:
        for name, old in self._columns().items():
            new = np.zeros((capacity, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)
        self.before.reach(capacity)

    def _columns(self) -> dict[str, NDArray[np.generic]]:
        return {name: column for name, column in vars(self).items() if isinstance(column, np.ndarray)}


def _relative(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weights against those of a record's usual signal.

    Where all are purchases, three clicks each, they are what is usual: with steps of thrice the length vectors alone
    have an HR@20 of .071 for .095 (Online Retail, first 30,000 events).
    """
    mean = weight.mean(dtype=np.float64) if len(weight) else 0.0
    return weight if mean <= 0 else (weight / mean).astype(np.float32)
