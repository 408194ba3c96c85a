"""What a worker knows of all items: facts from the `items` topic, models from `item-models`. The fold only reads it.

One slot an item; arrays grow by doubling. An item that an event names and nobody described yet gets a slot too (its id
and hash, no tags), so that recent items can be named. `tag_prior` is the population's share of each tag, behind `share`
and `lift`: at the three half-lives of `model.popularity`, and in the catalogue itself.

    C(t)   = (Σ_items [t ∈ tags] / tags + 1) / (items + number of tags)
    P_k(t) = (Σ_items popularity_k · [t ∈ tags] / tags + PRIOR_EVENTS · part of entries with t) / (Σ + PRIOR_EVENTS)

So every event weighs alike, however many tags its item has, and each sums to 1. `prior_floor` is what one event, or one
entry, adds: where a tag is compared with the population (`lift`), it is never taken for less.

Made-up ids must not fill the memory: once there are `limit` items, one that nobody lists gets no slot of its own. All
of these share the slot `crowd`, which has no tags and learns nothing. They count for their users like any other; their
names, and those of tags of events beyond `limit`, only pass: `passing_items` and `passing_tags` hold those of a batch.
Deleted items do not count; their slots are given back when the process ends.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.events import Item
from streamer.model import popularity
from streamer.model.board import Models
from streamer.model.factors import initial_vector
from streamer.model.tag_mix import POPULATION
from streamer.pipeline.hashing import HashTable, hash_id, lookup, lookup_all
from streamer.pipeline.item_model import ItemModel
from streamer.pipeline.item_models import ItemModels
from streamer.pipeline.json_bytes import Quoted
from streamer.pipeline.population import Population

TAGS_PER_ITEM: Final = 16  # tags of an item that count; titles of shop items have 3 to 8 words
PRIOR_EVENTS: Final = 100.0  # how many events the catalogue's own tag frequencies weigh as, before there are any


class TagUse(NamedTuple):
    """What the population's shares of tags are worked out from, over n items."""

    models: Models
    newest_ts: int
    tags: NDArray[np.uint64]  # [n, …] hashes
    n_tags: NDArray[np.int64]  # [n]
    keys: NDArray[np.uint64]  # of the table of tags
    values: NDArray[np.int32]
    known_tags: int


def distinct(tags: Iterable[str]) -> list[str]:
    """The first TAGS_PER_ITEM different tags, without empty ones."""
    return [tag for tag in dict.fromkeys(tags) if tag][:TAGS_PER_ITEM]


class Catalogue:
    """All items in columns."""

    def __init__(self, vector_dim: int, owner_of: Callable[[str], int] = lambda _: 0, limit: int = 1_000_000) -> None:
        self._owner_of = owner_of
        self.limit = limit
        self.crowd = -1  # as long as there is room
        self.passing_items: dict[int, str] = {}
        self.passing_tags: dict[int, str] = {}
        self.slot_of: dict[str, int] = {}
        self.table = HashTable()
        self.ids: list[str] = []
        self.quoted_ids = Quoted()
        self.facts: list[Item | None] = []
        self._gone = set[int]()  # slots of deleted items, kept to name them in histories
        self.hashes = np.zeros(0, np.uint64)
        self.owners = np.zeros(0, np.int32)  # the partition that owns each item
        self.tags = np.zeros((0, TAGS_PER_ITEM), np.uint64)
        self.n_tags = np.zeros(0, np.int64)
        self.vectors = np.zeros((0, vector_dim), np.float32)
        self.modelled = np.zeros(0, np.bool_)
        self.models = ItemModels()
        self.tag_names: dict[int, str] = {}
        self.tag_table = HashTable()
        self.quoted_tags = Quoted()  # in the order of `tag_table`
        self.tag_prior = np.zeros((0, POPULATION), np.float64)
        self.prior_floor = np.full(POPULATION, 1 / PRIOR_EVENTS)
        self.has_new_tags = False  # items brought tags that `tag_prior` has not taken in
        self.listed = 0
        self.newest_ts = 0
        self.version = 0  # +1 at every change of tags or popularity

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def counted(self) -> int:
        """How many items count against the limit: all but those that were deleted."""
        return len(self) - len(self._gone)

    def see(self, item_id: str) -> int:
        """The slot of an item; a new one when nobody described it yet, or `crowd` when there is no room."""
        slot = self.slot_of.get(item_id)
        if slot is not None:
            return slot
        if self.counted < self.limit:
            return self._add(item_id)
        if self.crowd < 0:
            self.crowd = self._add("")  # no item is called so
        return self.crowd

    def knows(self, hashes: NDArray[np.uint64]) -> bool:
        """Whether items of these hashes all have slots."""
        return not lookup_all(self.table.keys, self.table.values, hashes, np.empty(len(hashes), np.int64))

    def see_all(self, hashes: NDArray[np.uint64], name_of: Callable[[int], str]) -> NDArray[np.int64]:
        """`see` of many items at once, by hash; `name_of(i)` is the id of number i."""
        slots = np.empty(len(hashes), np.int64)
        if lookup_all(self.table.keys, self.table.values, hashes, slots):
            for i in np.flatnonzero(slots < 0).tolist():
                slots[i] = self.see(name_of(i))
        return slots

    def tags_of(self, slots: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The tags of all these items, one after another."""
        used: NDArray[np.uint64] = self.tags[slots][np.arange(TAGS_PER_ITEM) < self.n_tags[slots][:, None]]
        return used

    def see_tag(self, tag: str) -> int:
        """The hash of a tag that an event brought; its name is known from now on if there is room, else it passes."""
        key = hash_id(tag)
        if key not in self.tag_names:
            if len(self.tag_names) < self.limit:
                return self.learn_tag(tag)
            self.passing_tags[key] = tag
        return key

    def pass_by(self, key: int, item_id: str) -> None:
        """An item in the `crowd`, of this hash: its name passes."""
        self.passing_items[key] = item_id

    def learn_tag(self, tag: str) -> int:
        """The hash of a tag, whose name is known from now on."""
        key = hash_id(tag)
        if key not in self.tag_names:
            self.tag_names[key] = tag
            self.tag_table.put(key, len(self.quoted_tags))
            self.quoted_tags.append(tag)
        return key

    def describe(self, item: Item) -> int:
        """Take in an item of the catalogue, whether there is room or not; returns its slot."""
        slot = self.slot_of.get(item.item_id)
        if slot is None:
            slot = self._add(item.item_id)
        self.listed += self.facts[slot] is None
        self.facts[slot] = item
        self._gone.discard(slot)
        self._set_tags(slot, item.tags)
        return slot

    def forget(self, item_id: str) -> int | None:
        """Take an item out of the catalogue: its facts and its model go, its id stays nameable in histories."""
        slot = self.slot_of.get(item_id)
        if slot is not None:
            self.listed -= self.facts[slot] is not None
            self.facts[slot] = None
            self._gone.add(slot)
            self.drop_model(item_id)
            self._set_tags(slot, ())
        return slot

    def apply_model(self, model: ItemModel) -> int | None:
        """Take in what an item's owner learned; returns the item's slot, None where there is no room for it."""
        slot = self.see(model.item_id)
        if slot == self.crowd:
            return None
        vector = np.frombuffer(model.vector, np.float32)
        if len(vector) == self.vectors.shape[1]:
            self.vectors[slot] = vector
            self.modelled[slot] = True
        self.newest_ts = max(self.newest_ts, model.ts)
        self.models.apply(slot, model)
        self.version += 1
        if self.facts[slot] is None and model.tags:
            self._set_tags(slot, model.tags)
        return slot

    def drop_model(self, item_id: str) -> None:
        """Forget what was learned about an item."""
        slot = self.slot_of.get(item_id)
        if slot is not None:
            self.modelled[slot] = False
            self.models.drop(slot)
            self._start(slot)
            self.version += 1

    def name(self, item_hash: int) -> str | None:
        """The id of an item by its hash."""
        slot = self.table.get(item_hash)
        return None if slot < 0 else self.ids[slot]

    @property
    def population(self) -> Population:
        """The population's share of each tag, as of the last refresh."""
        return Population(self.tag_table.keys, self.tag_table.values, self.tag_prior, self.prior_floor)

    def tag_use(self) -> TagUse:
        """What `prior_of` is worked out from, as of the newest model: views, which a change may show through."""
        n = len(self)
        return TagUse(
            self.models.columns(n),
            self.newest_ts,
            self.tags[:n],
            self.n_tags[:n],
            self.tag_table.keys,
            self.tag_table.values,
            len(self.tag_names),
        )

    def _add(self, item_id: str) -> int:
        slot, key = len(self.ids), hash_id(item_id)
        if slot == len(self.hashes):
            self._grow(max(1024, 2 * slot))
        self.slot_of[item_id] = slot
        self.ids.append(item_id)
        self.quoted_ids.append(item_id)
        self.facts.append(None)
        self.hashes[slot] = key
        self.owners[slot] = self._owner_of(item_id)
        self.table.put(key, slot)
        return slot

    def _grow(self, capacity: int) -> None:
        for name in ("hashes", "owners", "tags", "n_tags", "vectors", "modelled"):
            old: NDArray[np.generic] = getattr(self, name)
            new = np.zeros((capacity, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def _set_tags(self, slot: int, tags: Iterable[str]) -> None:
        known = len(self.tag_names)
        keys = [self.learn_tag(tag) for tag in distinct(tags)]
        self.has_new_tags |= len(self.tag_names) > known
        self.n_tags[slot] = len(keys)
        self.tags[slot, : len(keys)] = keys
        self.version += 1
        if not self.modelled[slot]:
            self._start(slot)

    def _start(self, slot: int) -> None:
        """The vector of an item that nothing was learned about: made of its tags, zeros where it has none."""
        tags = self.tags[slot, : self.n_tags[slot]]
        self.vectors[slot] = initial_vector(tags, self.hashes[slot], self.vectors.shape[1]) if len(tags) else 0


def prior_of(use: TagUse) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The shares of every tag, and their floor; beside other threads. Cost: one pass over the items."""
    popular = popularity.at(use.models.popularity, use.models.newest, use.newest_ts)
    prior, floor = _tag_prior(use.tags, use.n_tags, popular, use.keys, use.values, use.known_tags)
    return prior, floor


@njit(cache=True, nogil=True)
def _tag_prior(tags, n_tags, popularity, keys, values, n):  # type: ignore[no-untyped-def]
    events, entries = np.zeros((n, POPULATION - 1)), np.zeros(n)
    for i in range(len(n_tags)):
        for j in range(n_tags[i]):
            t = lookup(keys, values, tags[i, j])
            if 0 <= t < n:  # none that came since
                events[t] += popularity[i] / n_tags[i]
                entries[t] += 1 / n_tags[i]
    described = entries.sum()
    catalogued = (entries + 1) / (described + max(n, 1))
    entries *= PRIOR_EVENTS / max(described, 1.0)
    behind = events.sum(axis=0) + PRIOR_EVENTS
    share, floor = np.empty((n, POPULATION)), np.empty(POPULATION)
    share[:, :-1], share[:, -1] = (events + entries.reshape(-1, 1)) / behind, catalogued
    floor[:-1], floor[-1] = 1 / behind, 1 / (described + max(n, 1))
    return share, floor
