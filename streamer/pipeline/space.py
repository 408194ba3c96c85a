"""The item space as this worker sees it: every item's vector, the Gram matrix over them, users folded into it, and what
the board of rankings is made from.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.model import board, factors
from streamer.pipeline.catalogue import Catalogue, prior_of
from streamer.pipeline.hashing import lookup, lookup_all

SMALL_CATALOGUE: Final = 50_000  # items that a refresh is done with in 5 ms, short enough to be part of a cut
VERSION: Final = 1  # of the learner: vectors of different versions do not compare


class Sources(NamedTuple):
    """What a board is made from, over n items."""

    models: board.Models
    vectors: NDArray[np.float32]  # [n, k]
    tags: NDArray[np.uint64]  # [n, …] hashes
    tag_counts: NDArray[np.int64]  # [n]
    tag_keys: NDArray[np.uint64]  # of the table of tags
    tag_values: NDArray[np.int32]
    known_tags: int
    newest_ts: int


class Folding(NamedTuple):
    """What users are folded in with."""

    vectors: NDArray[np.float32]  # [items, k] by catalogue slot
    weights: NDArray[np.float32]  # [recent items] by age
    gram: NDArray[np.float64]  # [k, k]


class Refreshed(NamedTuple):
    """What a refresh found, as of a version of the catalogue."""

    version: int
    gram: NDArray[np.float64]
    whitener: NDArray[np.float64]
    tag_prior: NDArray[np.float64]
    prior_floor: NDArray[np.float64]


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

    def refresh(self) -> bool:
        """Take in what changed since the last call; returns whether anything did.

        Cost: 100 ns an item at 32 numbers.
        """
        work = self.outdated()
        if work is not None:
            self.take_in(work())
        return work is not None

    def outdated(self) -> Callable[[], Refreshed] | None:
        """The work of a refresh, to be done beside other threads; None when nothing changed since the last.

        What changes meanwhile may show in it, or in the next.
        """
        catalogue = self.catalogue
        if self._version == catalogue.version:
            return None
        version, vectors, use = catalogue.version, catalogue.vectors[: len(catalogue)], catalogue.tag_use()

        def work() -> Refreshed:
            gram = factors.gram(vectors)
            return Refreshed(version, gram, factors.whitening(gram, factors.C0, factors.REG), *prior_of(use))

        return work

    def take_in(self, refreshed: Refreshed) -> None:
        """From here on everything goes by a refresh; one that was overtaken by another is dropped."""
        if refreshed.version <= self._version:
            return
        self._version = refreshed.version
        self.gram, self.whitener = refreshed.gram, refreshed.whitener
        self.catalogue.tag_prior, self.catalogue.prior_floor = refreshed.tag_prior, refreshed.prior_floor
        self.catalogue.has_new_tags &= refreshed.version != self.catalogue.version

    @property
    def folding(self) -> Folding:
        """What users are folded in with now."""
        return Folding(self.catalogue.vectors, self._weights, self.gram)

    def sources(self) -> Sources:
        """What a board is made from, as it is now: views, which a change of the catalogue may show through."""
        n, catalogue = len(self.catalogue), self.catalogue
        return Sources(
            catalogue.models.columns(n),
            catalogue.vectors[:n],
            catalogue.tags[:n],
            catalogue.n_tags[:n],
            catalogue.tag_table.keys,
            catalogue.tag_table.values,
            len(catalogue.tag_prior),
            catalogue.newest_ts,
        )

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
        vectors, weights, gram = self.folding
        return factors.fold_in_many(vectors, self.slots(recent_items), at, weights, gram, factors.C0, factors.REG)


def make_board(sources: Sources) -> board.Board:
    """What rankings read. Most of it runs beside other threads. Cost: 0.4 µs an item."""
    models, vectors, tags, counts, keys, values, known_tags, newest_ts = sources
    places = _tag_places(tags, counts, keys, values, known_tags)
    return board.make(models, vectors, places, known_tags, newest_ts)


@njit(cache=True, nogil=True)
def _tag_places(tags, tag_counts, keys, values, known_tags):  # type: ignore[no-untyped-def]
    """Places i32[n, …] of the items' tags in the population's; -1 where an item has no more."""
    places = np.full(tags.shape, -1, np.int32)
    for i in range(len(tags)):
        n = 0
        for t in range(tag_counts[i]):
            place = lookup(keys, values, tags[i, t])
            if 0 <= place < known_tags:
                places[i, n] = place
                n += 1
    return places
