"""The board: what of all items' models a ranking reads, worked out once for many users.

Items are places 0, 1, … of every array; tags are places of the population's tags. Made anew when models have changed:
one pass over the items and their tags, and one sort. Cost: 0.4 µs an item.
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.model import popularity, transitions

POSTINGS: Final = 256  # items listed of a tag, the most popular: what is common to more tells little
TOP: Final = 512  # most popular items that are always looked at: a user may have had hundreds of them
HEAD: Final = 1 << 15  # items among which nearest vectors are sought, the most popular: 0.2 ms
FLOOR: Final = 0.3  # of an expert's certainty is spread over all items, so that none can rule one out alone


class Board(NamedTuple):
    """Arrays over n items and t tags."""

    tags: NDArray[np.int32]  # [n, tags an item] -1: no more
    tag_events: NDArray[np.float64]  # [t] popularity of a tag's items together
    idf2: NDArray[np.float64]  # [t] squared weight of a tag: log² of how rare it is among items
    length2: NDArray[np.float64]  # [n] squared length of an item's weighted tags
    listed: NDArray[np.int32]  # items of tag t, most popular first: listed[listed_at[t] : listed_at[t + 1]]
    listed_at: NDArray[np.int64]  # [t + 1]
    popularity: NDArray[np.float64]  # [n] events of late, on the longest scale
    popular: NDArray[np.float32]  # [n, 3] evidence of the popularity experts
    top: NDArray[np.int64]  # the most popular on any scale, each once
    head: NDArray[np.int64]  # [≤ HEAD]
    head_unit: NDArray[np.float32]  # [≤ HEAD, k] their rows of `unit`, side by side
    unit: NDArray[np.float32]  # [n, k] vectors of length 1, or zeros
    fade: NDArray[np.float32]  # [n] brings transitions to the present
    by_source: NDArray[np.float32]  # [n]
    by_destination: NDArray[np.float32]  # [n]
    taken: NDArray[np.bool_]  # [n] whether the item had an event
    seen: int  # how many had
    events: int  # of all items together


class Models(NamedTuple):
    """What the owners published, by item."""

    popularity: NDArray[np.float64]  # [n, 3] as of `newest`
    newest: NDArray[np.int64]  # [n] ms
    events: NDArray[np.int64]  # [n]
    landmarks: NDArray[np.int64]  # [n] ms, of `model.transitions`

    def first(self, n: int) -> "Models":
        """Views of the first n items."""
        return Models(self.popularity[:n], self.newest[:n], self.events[:n], self.landmarks[:n])

    def longer(self, by: int) -> "Models":
        """Copies with so many blank items more."""
        blank = no_models(by)
        return Models(
            np.concatenate([self.popularity, blank.popularity]),
            np.concatenate([self.newest, blank.newest]),
            np.concatenate([self.events, blank.events]),
            np.concatenate([self.landmarks, blank.landmarks]),
        )

    def clear(self, i: int) -> None:
        """Make an item blank."""
        self.popularity[i] = 0
        self.newest[i] = self.events[i] = self.landmarks[i] = 0


def no_models(n: int = 0) -> Models:
    """Of n items that nobody published."""
    whole = np.zeros((3, n), np.int64)
    return Models(np.zeros((n, len(popularity.HALF_LIVES_MS))), *whole)


def make(models: Models, vectors: NDArray[np.float32], tags: NDArray[np.int32], n_tags: int, now: int) -> Board:
    """The board as of `now` (ms) of n items with `vectors` f32[n, k] and `tags` i32[n, …]."""
    popular = popularity.at(models.popularity, models.newest, now)
    order = np.argsort(-popular[:, popularity.LONGEST], kind="stable")
    events = models.events.astype(np.float64)
    tag_events, idf2, length2, listed, listed_at = _tags(tags, n_tags, popular[:, popularity.LONGEST], order)
    length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    usable = np.isfinite(length) & (length > 0)
    unit = np.where(usable[:, None], vectors / np.where(usable, length, 1)[:, None], 0).astype(np.float32)
    return Board(
        tags=tags,
        tag_events=tag_events,
        idf2=idf2,
        length2=length2,
        listed=listed,
        listed_at=listed_at,
        popularity=popular[:, popularity.LONGEST].copy(),
        popular=_evidence(popular, int((models.events > 0).sum())),
        top=_top(popular, models.events),
        head=order[:HEAD],
        head_unit=unit[order[:HEAD]],
        unit=unit,
        fade=_fades(models.landmarks, now),
        by_source=(1 / (events**0.7 + 2)).astype(np.float32),
        by_destination=(1 / (events**0.5 + 2)).astype(np.float32),
        taken=models.events > 0,
        seen=int((models.events > 0).sum()),
        events=int(models.events.sum()),
    )


def _evidence(scores: NDArray[np.float64], seen: int) -> NDArray[np.float32]:
    """log((1 - FLOOR)·n·p + FLOOR) of scores f64[n, m], p their shares: how much likelier than by chance."""
    shares = scores / np.maximum(scores.sum(axis=0), 1e-300)
    return np.asarray(np.log((1 - FLOOR) * seen * shares + FLOOR), np.float32)


def _top(popular: NDArray[np.float64], events: NDArray[np.int64]) -> NDArray[np.int64]:
    n = min(TOP, len(popular))
    if n == 0:
        return np.zeros(0, np.int64)
    columns = [np.argpartition(-popular[:, s], n - 1)[:n] for s in range(popular.shape[1])]
    found = np.unique(np.concatenate(columns))
    return found[events[found] > 0]


@njit(cache=True, nogil=True)
def _fades(landmarks, now):  # type: ignore[no-untyped-def]
    out = np.empty(len(landmarks), np.float32)
    for i in range(len(out)):
        out[i] = 2.0 ** min(max((landmarks[i] - now) / transitions.HALF_LIFE_MS, -100.0), 100.0)
    return out


@njit(cache=True, nogil=True)
def _tags(tags, n_tags, popular, order):  # type: ignore[no-untyped-def]
    """Events, squared weights, lengths, and the lists of the most popular items of each tag."""
    events, count = np.zeros(n_tags), np.zeros(n_tags, np.int64)
    for i in range(len(tags)):
        for t in tags[i]:
            if t >= 0:
                events[t] += popular[i]
                count[t] += 1
    idf2 = (np.log(len(tags) / (count + 1.0)) + 0.1) ** 2
    at = np.zeros(n_tags + 1, np.int64)
    at[1:] = np.cumsum(np.minimum(count, POSTINGS))
    listed, filled = np.empty(at[n_tags], np.int32), at[:n_tags].copy()
    length2 = np.zeros(len(tags))
    for i in order:
        for t in tags[i]:
            if t >= 0:
                length2[i] += idf2[t]
                if filled[t] < at[t + 1]:
                    listed[filled[t]] = i
                    filled[t] += 1
    return events, idf2, length2, listed, at
