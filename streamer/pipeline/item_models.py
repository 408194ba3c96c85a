"""What the owners of all items published, as every worker holds it: columns by catalogue slot."""

from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.model import transitions
from streamer.model.board import Models, no_models
from streamer.model.ragged import UNLIMITED, Pool, Rows
from streamer.pipeline.hashing import HashTable, lookup_all
from streamer.pipeline.item_model import ItemModel

LINK_WEIGHTS: Final = 4  # of a neighbour: two memories, two directions
LINK_BYTES: Final = 8 + 4 * LINK_WEIGHTS


class ItemModels:
    """Popularity and transitions of all items; transitions linked by source, both directions in one row."""

    def __init__(self, links: Rows | None = None) -> None:
        self._columns = no_models()
        self._links = links or Rows(LINK_WEIGHTS, transitions.LINKS)
        self._follows_transitions = False
        self._waiting: dict[int, ItemModel] = {}  # not linked yet, by slot
        self._naming_unknown: dict[int, ItemModel] = {}  # linked but for what is not known, by slot
        self._known = 0  # items at the last `link`

    @property
    def links(self) -> Pool:
        """Transitions by source, as of the last `link`."""
        return self._links.pool

    def columns(self, items: int) -> Models:
        """The columns over the first so many slots, as views."""
        self._reach(items)
        return self._columns.first(items)

    def follow_transitions(self, most_bytes: int = UNLIMITED) -> None:
        """Keep the transitions of models from here on, in so much memory: only rankings need them.

        They are most of a model's size. When that memory is full, only the strongest of each item are kept.
        """
        self._follows_transitions = True
        self._links.limit = most_bytes // LINK_BYTES
        if most_bytes < UNLIMITED:
            self._links.reserve()

    def apply(self, slot: int, model: ItemModel) -> None:
        """Take in a model."""
        self._reach(slot + 1)
        columns = self._columns
        columns.popularity[slot] = (*model.lately, model.popularity)
        columns.newest[slot], columns.events[slot] = model.ts, model.events
        columns.landmarks[slot] = model.landmark
        if self._follows_transitions:
            self._waiting[slot] = model
            self._naming_unknown.pop(slot, None)

    def unlinked(self, table: HashTable) -> int:
        """How many models wait to be linked; `table` has the slots of items.

        A model that names items that are not known waits until there are more items: at start, models come in any
        order.
        """
        if table.filled != self._known:
            self._known = table.filled
            self._waiting = {**self._naming_unknown, **self._waiting}
            self._naming_unknown = {}
        return len(self._waiting)

    def link(self, table: HashTable, at_once: int) -> None:
        """Link so many of the models that wait, those that came first first."""
        for slot in list(islice(self._waiting, at_once)):
            model = self._waiting.pop(slot)
            if not self._link(slot, model, table):
                self._naming_unknown[slot] = model

    def link_all(self, table: HashTable) -> None:
        """Link all models that wait."""
        self.link(table, self.unlinked(table))

    def drop(self, slot: int) -> None:
        """Forget the model of an item."""
        self._reach(slot + 1)
        self._columns.clear(slot)
        self._waiting.pop(slot, None)
        self._naming_unknown.pop(slot, None)
        self._link_slots(slot, np.zeros(0, np.int32), np.zeros((0, 2), np.float32))

    def _link(self, slot: int, model: ItemModel, table: HashTable) -> bool:
        """Whether all items that the model names are known."""
        before = np.frombuffer(model.before, np.uint64)
        slots = np.empty(len(before), np.int32)
        lookup_all(table.keys, table.values, before, slots)
        self._reach(int(slots.max(initial=-1)) + 1)
        self._link_slots(slot, slots, np.frombuffer(model.weights, np.float32).reshape(-1, 2))
        return bool((slots >= 0).all())

    def _link_slots(self, slot: int, sources: NDArray[np.int32], weights: NDArray[np.float32]) -> None:
        while not transitions.link(self._links.pool, slot, sources, weights):
            if not self._links.make_room():
                return

    def _reach(self, items: int) -> None:
        have = len(self._columns.newest)
        if items <= have:
            return
        more = max(1024, items, 2 * have) - have
        self._columns = self._columns.longer(more)
        self._links.reach(have + more)
