"""The item space as this worker sees it: every item's vector, the Gram matrix over them, users folded into it, and the
board that rankings read.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.model import board, factors
from streamer.pipeline.catalogue import Catalogue
from streamer.pipeline.hashing import lookup_all

SMALL_CATALOGUE: Final = 50_000  # items that a refresh is done with in 5 ms, short enough to be part of a cut
VERSION: Final = 1  # of the learner: vectors of different versions do not compare


class ItemSpace:
    """Folds users in. `refresh` makes the matrices anew when the catalogue changed; reading in between is stable."""

    def __init__(self, catalogue: Catalogue, recent_items: int) -> None:
        self.catalogue = catalogue
        self.dim = catalogue.vectors.shape[1]
        self.model = f"bpr-{self.dim}/{VERSION}"
        self._weights = factors.recency_weights(recent_items)
        self._version = -1
        self.gram: NDArray[np.float64] = np.zeros((self.dim, self.dim))
        self.whitener = factors.whitening(self.gram, factors.C0, factors.REG)
        self._board: board.Board | None = None

    def refresh(self) -> bool:
        """Take in what changed since the last call; returns whether anything did.

        Cost: 100 ns an item at 32 numbers.
        """
        if self._version == self.catalogue.version:
            return False
        self._version = self.catalogue.version
        self.catalogue.refresh_prior()
        self._board = None
        self.gram = factors.gram(self.catalogue.vectors[: len(self.catalogue)])
        self.whitener = factors.whitening(self.gram, factors.C0, factors.REG)
        return True

    @property
    def board(self) -> board.Board:
        """What rankings read, as of the last refresh. Made at the first use after it."""
        if self._board is None:
            n, catalogue = len(self.catalogue), self.catalogue
            catalogue.models.link(catalogue.table)
            self._board = board.make(
                catalogue.models.columns(n),
                catalogue.vectors[:n],
                self._tag_places(n),
                len(catalogue.tag_prior),
                catalogue.newest_ts,
            )
        return self._board

    def _tag_places(self, n: int) -> NDArray[np.int32]:
        """Places i32[n, …] of the items' tags in the population's; -1 where an item has no more."""
        catalogue = self.catalogue
        used = np.arange(catalogue.tags.shape[1]) < catalogue.n_tags[:n, None]
        places = np.full(used.shape, -1, np.int32)
        found = np.empty(int(used.sum()), np.int32)
        lookup_all(catalogue.tag_table.keys, catalogue.tag_table.values, catalogue.tags[:n][used], found)
        places[used] = np.where(found < len(catalogue.tag_prior), found, -1)
        return places

    def take_in_new_tags(self) -> None:
        """Refresh now if items brought new tags, so that a first click on one of them is seen in the right light.

        In a large catalogue that would take too long: there they count as `prior_floor` until the next refresh.
        """
        if self.catalogue.has_new_tags and len(self.catalogue) < SMALL_CATALOGUE:
            self.refresh()

    def slots(self, item_hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Catalogue slots of item hashes of any shape; -1 for unknown ones."""
        flat = np.ascontiguousarray(item_hashes).reshape(-1)
        out = np.empty(len(flat), np.int32)
        lookup_all(self.catalogue.table.keys, self.catalogue.table.values, flat, out)
        return out.reshape(item_hashes.shape)

    def fold_in(self, recent_items: NDArray[np.uint64], at: NDArray[np.int64]) -> NDArray[np.float32]:
        """User vectors f32[n, dim] from their recent items end to end, newest first; user i has `at[i] : at[i + 1]`."""
        slots = self.slots(recent_items)
        return factors.fold_in_many(
            self.catalogue.vectors, slots, at, self._weights, self.gram, factors.C0, factors.REG
        )
