"""What the owners of all items published, as every worker holds it: columns by catalogue slot."""

import numpy as np
from numpy.typing import NDArray

from streamer.model import transitions
from streamer.model.board import Models, no_models
from streamer.model.ragged import Pool, Rows
from streamer.pipeline.hashing import HashTable, lookup_all
from streamer.pipeline.item_model import ItemModel


class ItemModels:
    """Popularity and transitions of all items; transitions linked by source, both directions in one row."""

    def __init__(self) -> None:
        self._columns = no_models()
        self._links = Rows(width=4, most=transitions.LINKS)
        self._follows_transitions = False
        self._waiting: dict[int, ItemModel] = {}  # not linked yet, by slot

    @property
    def links(self) -> Pool:
        """Transitions by source, as of the last `link`."""
        return self._links.pool

    def columns(self, items: int) -> Models:
        """The columns over the first so many slots, as views."""
        self._reach(items)
        return self._columns.first(items)

    def follow_transitions(self) -> None:
        """Keep the transitions of models from here on: most of a model's size, and only rankings need them."""
        self._follows_transitions = True

    def apply(self, slot: int, model: ItemModel) -> None:
        """Take in a model."""
        self._reach(slot + 1)
        columns = self._columns
        columns.popularity[slot] = (*model.lately, model.popularity)
        columns.newest[slot], columns.events[slot] = model.ts, model.events
        columns.landmarks[slot] = model.landmark
        if self._follows_transitions:
            self._waiting[slot] = model

    def link(self, table: HashTable) -> None:
        """Link what came since the last call; `table` has the slots of items.

        What names items that are not known yet waits on: at start, models come in any order.
        """
        waiting, self._waiting = self._waiting, {}
        for slot, model in waiting.items():
            if not self._link(slot, model, table):
                self._waiting[slot] = model

    def drop(self, slot: int) -> None:
        """Forget the model of an item."""
        self._reach(slot + 1)
        self._columns.clear(slot)
        self._waiting.pop(slot, None)
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
            self._links.make_room()

    def _reach(self, items: int) -> None:
        have = len(self._columns.newest)
        if items <= have:
            return
        more = max(1024, items, 2 * have) - have
        self._columns = self._columns.longer(more)
        self._links.reach(have + more)
