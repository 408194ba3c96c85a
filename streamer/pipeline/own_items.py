"""The items that a partition owns: what all users' events taught about them. One row an item that had an event.

Row: MessagePack of `ItemRow` under `i` + item id. A model is published when it is new, and then at most every
MODEL_EVERY_MS.
"""

from typing import Final

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.errors import StateError
from streamer.events import Item
from streamer.model import factors
from streamer.pipeline.catalogue import MODEL_LAYOUT, POPULARITY_HALF_LIFE_MS, Catalogue, ItemModel, distinct
from streamer.pipeline.signals import Learned
from streamer.pipeline.space import ItemSpace

LAYOUT: Final = 1
MODEL_EVERY_MS: Final = 5_000  # vectors move slowly, and every worker reads every model: bounds what they all read


class ItemRow(msgspec.Struct, frozen=True, array_like=True):
    """A model, and whether it was changed since it was last published."""

    layout: int
    model: ItemModel
    unpublished: bool


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ItemRow).decode


class OwnItems:
    """Columns over the items of one partition; rows never move, a forgotten item leaves an empty one."""

    def __init__(self, dim: int, seed: int) -> None:
        self.ids: list[str] = []
        self.tags: list[tuple[str, ...]] = []  # from events, of items that the catalogue does not list
        self.row_of: dict[str, int] = {}
        self.vectors = np.zeros((0, dim), np.float32)
        self.slots = np.zeros(0, np.int32)  # in the catalogue; -1: not asked yet
        self.popularity = np.zeros(0)
        self.ts = np.zeros(0, np.int64)
        self.events = np.zeros(0, np.int64)
        self.published_at = np.zeros(0, np.int64)  # 0: never, or not since it changed before a restart
        self.signals = 0  # ever learned from: numbers the draws of the learner
        self._seed = seed
        self._dirty: set[int] = set()
        self._unpublished: set[int] = set()
        self._forgotten: set[str] = set()

    def __len__(self) -> int:
        return len(self.row_of)

    @property
    def changed(self) -> bool:
        """Whether rows have to be stored."""
        return bool(self._dirty or self._forgotten)

    def load(self, row: bytes) -> None:
        """Take in a stored row. Raises StateError for one of a newer worker."""
        stored = _decode(row)
        if stored.layout > LAYOUT:
            raise StateError(f"item row of layout {stored.layout}, this worker knows {LAYOUT}: upgrade the worker")
        model = stored.model
        i = self._add(model.item_id, model.tags)
        vector = np.frombuffer(model.vector, np.float32)
        if len(vector) == self.vectors.shape[1]:
            self.vectors[i] = vector
        self.popularity[i], self.ts[i], self.events[i] = model.popularity, model.ts, model.events
        if stored.unpublished:
            self._unpublished.add(i)

    def learn(self, signals: Learned, space: ItemSpace) -> None:
        """Apply signals in order: popularity, and a step of the learner for each."""
        rows = self._rows(signals, space.catalogue)
        positives = rows[signals.item]
        _add_popularity(self.popularity, self.ts, self.events, positives, signals.ts)
        factors.learn(
            self.vectors[: len(self.ids)],
            self.slots[: len(self.ids)],
            positives.astype(np.int32),
            space.slots(signals.predecessors),
            signals.weight,
            space.catalogue.vectors,
            space.whitener,
            self._seed,
            self.signals,
            factors.Learning(),
        )
        self.signals += len(positives)
        changed = set(rows.tolist())
        self._dirty |= changed
        self._unpublished |= changed

    def describe(self, item: Item) -> None:
        """The catalogue lists an item from now on: tags that events brought do not count any more."""
        i = self.row_of.get(item.item_id)
        if i is not None and self.tags[i]:
            self.tags[i] = ()
            self._dirty.add(i)

    def forget(self, item_id: str) -> None:
        """The catalogue deleted an item: its model goes, here and in `item-models`."""
        i = self.row_of.pop(item_id, None)
        if i is not None:
            self.ids[i] = ""
            self.vectors[i] = 0
            self._dirty.discard(i)
            self._unpublished.discard(i)
        self._forgotten.add(item_id)

    def models_due(self, now_ms: int) -> bool:
        """Whether a model waits to be published and may be."""
        return bool(self._forgotten) or any(self._may_publish(i, now_ms) for i in self._unpublished)

    def take(self, now_ms: int) -> tuple[list[tuple[bytes, bytes | None]], list[tuple[bytes, bytes | None]]]:
        """What a checkpoint stores `(key, row)` and publishes `(item id, model)`; None deletes."""
        publish = {i for i in self._unpublished if self._may_publish(i, now_ms)}
        self._unpublished -= publish
        self.published_at[list(publish)] = now_ms
        models = {i: self._model(i) for i in publish | self._dirty}
        rows: list[tuple[bytes, bytes | None]] = [
            (b"i" + self.ids[i].encode(), _encode(ItemRow(LAYOUT, models[i], i not in publish))) for i in self._dirty
        ]
        out: list[tuple[bytes, bytes | None]] = [(self.ids[i].encode(), _encode(models[i])) for i in publish]
        gone = [item_id.encode() for item_id in self._forgotten if item_id not in self.row_of]
        rows += [(b"i" + key, None) for key in gone]
        out += [(key, None) for key in gone]
        self._dirty, self._forgotten = set(), set()
        return rows, out

    def _may_publish(self, i: int, now_ms: int) -> bool:
        return bool(self.published_at[i] + MODEL_EVERY_MS <= now_ms)

    def _model(self, i: int) -> ItemModel:
        return ItemModel(
            MODEL_LAYOUT,
            self.ids[i],
            int(self.events[i]),
            float(self.popularity[i]),
            int(self.ts[i]),
            self.vectors[i].tobytes(),
            self.tags[i],
        )

    def _rows(self, signals: Learned, catalogue: Catalogue) -> NDArray[np.int64]:
        return np.array(
            [self._row(name, signals.tags.get(n, []), catalogue) for n, name in enumerate(signals.items)], np.int64
        )

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
        if not self.vectors[i].any():  # new, or stored with another STREAMER_VECTOR_DIM
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
        self.slots[i] = -1
        return i

    def _grow(self, capacity: int) -> None:
        for name in ("vectors", "slots", "popularity", "ts", "events", "published_at"):
            old = getattr(self, name)
            new = np.zeros((capacity, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)


@njit(cache=True)
def _add_popularity(popularity, newest, events, rows, ts):  # type: ignore[no-untyped-def]
    """Decayed count of events, valid at the newest; a late event adds what it would weigh by now."""
    for n in range(len(rows)):
        i = rows[n]
        gap = ts[n] - newest[i]
        fade = 2.0 ** (-abs(gap) / POPULARITY_HALF_LIFE_MS)
        if gap >= 0:
            popularity[i] = popularity[i] * fade + 1
            newest[i] = ts[n]
        else:
            popularity[i] += fade
        events[i] += 1
