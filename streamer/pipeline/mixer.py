"""The mix of one partition: learned from a sample of its events, each ranked before it is learned from, and stored.

An event is in the sample when the lowest `thinning` bits of its id's hash are 0 (LEAST_THINNING fewer while the mix is
young), so it does not matter how events are cut into batches. Tested is who takes an item for the first time, as far as
their recent items tell, and had an event before. Stored: MessagePack of `MixRow`, in one row of the partition.
"""

import math
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.errors import StateError
from streamer.model import mix
from streamer.model.board import FLOOR
from streamer.model.experts import NAMES, POPULARITY, SILENCE
from streamer.model.popularity import LONGEST
from streamer.pipeline.layout import Users
from streamer.pipeline.quality import FIRST, Placed
from streamer.pipeline.rank import Ranker

LAYOUT: Final = 1
# One event in eight: from every one the mix learns no better that could be measured (`model.mix`).
LEAST_THINNING: Final = 3
MOST_THINNING: Final = 20
YOUNG: Final = 256  # events learned, all of them while it is young: some 1 ms each, and rankings are worth looking at

# Weights before anything was learned, by history: 1, 2-3, 4-7, 8-15 events, and longer. Near the middle of what Online
# Retail and REES46 each end with, transitions a little above it: where they tell everything (people around a ring of
# items), less would cost more. HR@20 of the first 5,000 events with nothing learned, Online Retail / REES46 / ring:
# .153 / .205 / .586; with .3 for all .141 / .199 / .568; with what the other set ends with .159 / .193.
START: Final = {
    "transitions": (0.4, 0.4, 0.4, 0.4, 0.4),
    "transitions_long": (0.15, 0.15, 0.2, 0.3, 0.3),
    "interests": (0.1, 0.2, 0.3, 0.4, 0.5),
    "titles": (0.3, 0.3, 0.3, 0.3, 0.3),
    "factors": (0.5, 0.5, 0.5, 0.4, 0.4),
    "popularity_1d": (0.3, 0.2, 0.15, 0.15, 0.15),
    "popularity_7d": (0.2, 0.1, 0.1, 0.05, 0.05),
    "popularity_30d": (0.3, 0.2, 0.15, 0.1, 0.05),
}


class MixRow(msgspec.Struct, frozen=True, array_like=True):
    """A mix as it is stored. Arrays are little-endian f64[1 + BUCKETS, experts]; experts go by their names."""

    layout: int
    experts: tuple[str, ...]
    weights: bytes
    squares: bytes
    thinning: int
    learned: int = YOUNG


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(MixRow).decode


class Tested(NamedTuple):
    """An event that was ranked before it is learned from."""

    history: int  # events of the user before it
    evidence: NDArray[np.float32]  # [c, experts] for the items that this user did not have of late
    taken: int  # which of them it was, -1: none
    known: bool  # whether anybody took the item before
    outside: int  # items that nobody speaks for
    popularity: float  # the item's probability by popularity alone


def new_mix() -> mix.Mix:
    """A mix that has learned nothing."""
    return mix.new_mix(np.array([START[name] for name in NAMES]).T)


class Mixer:
    """Tests and learns sampled events."""

    def __init__(self, ranker: Ranker) -> None:
        self.ranker = ranker
        self.mix = new_mix()
        self.thinning = LEAST_THINNING
        self._learned = 0  # events
        self._changed = False

    @property
    def is_young(self) -> bool:
        """Whether it has yet to see what these users are like."""
        return self._learned < YOUNG

    def sample(self, events: NDArray[np.uint64]) -> Iterator[int]:
        """Places of the sampled among events (hashes of their ids); what is learned in between counts."""
        usual = events & np.uint64((1 << self.thinning) - 1) == 0
        often = events & np.uint64((1 << self.thinning - LEAST_THINNING) - 1) == 0
        for place in np.flatnonzero(often).tolist():
            if usual[place] or self.is_young:
                yield place

    def thin(self, by: int) -> None:
        """Sample so many times half as often (or twice, below 0), within the limits."""
        thinning = min(max(self.thinning + by, LEAST_THINNING), MOST_THINNING)
        self._changed |= thinning != self.thinning
        self.thinning = thinning

    def test(self, users: Users, slot: int, item: int, ts: int) -> Tested | None:
        """Rank for the user in a slot, who takes the catalogue's `item` at `ts` (ms); None where that is no test."""
        history = int(users.head["clicks"][slot]) + int(users.head["purchases"][slot])
        board = self.ranker.board
        if history == 0 or board.seen == 0:
            return None
        user = self.ranker.user(users, slot)
        if (user.items == item).any():
            return None
        scored = self.ranker.score(user, ts)
        own = np.unique(user.items[(user.items >= 0) & (user.items < len(board.taken))])
        own = own[board.taken[own]]
        places, taken = _open(scored.slots, board.taken, own, item)
        known = item < len(board.taken) and bool(board.taken[item])
        popular = np.exp(board.popular[:, LONGEST][own])  # of all items together `seen`
        its = float(np.exp(board.popular[item, LONGEST])) if known else FLOOR
        return Tested(
            history,
            scored.evidence[places],
            taken,
            known,
            outside=max(board.seen - len(own) - len(places), 0),
            popularity=its / max(board.seen - float(popular.sum()), its),
        )

    def learn(self, tested: Tested) -> Placed:
        """The event happened; returns what the mix and popularity had said of it."""
        outside = max(tested.outside, int(tested.taken < 0))
        if tested.known:
            self._changed = True
            self._learned += 1
            p = mix.learn(self.mix, tested.history, tested.evidence, tested.taken, SILENCE, outside)
        else:
            p = mix.chances(tested.evidence, mix.weights_for(self.mix, tested.history), SILENCE, outside)
        return _placed(p, tested)

    def take(self) -> bytes | None:
        """The row to store, if anything changed since the last call."""
        if not self._changed:
            return None
        self._changed = False
        weights, squares = (column.tobytes() for column in self.mix)
        return _encode(MixRow(LAYOUT, NAMES, weights, squares, self.thinning, self._learned))

    def load(self, row: bytes) -> None:
        """Take over what was stored; an expert that is not in it starts anew. Raises StateError for a newer row."""
        stored = _decode(row)
        if stored.layout > LAYOUT:
            raise StateError(f"mix of layout {stored.layout}, this worker knows {LAYOUT}: upgrade the worker")
        own = [m for m, name in enumerate(NAMES) if name in stored.experts]
        theirs = [stored.experts.index(NAMES[m]) for m in own]
        for column, raw in zip(self.mix, (stored.weights, stored.squares), strict=True):
            column[:, own] = np.frombuffer(raw).reshape(-1, len(stored.experts))[:, theirs]
        self.thinning, self._learned = stored.thinning, stored.learned


def _placed(p: NDArray[np.float64], tested: Tested) -> Placed:
    """What was said of the item: by the mix, with the chances `p`, and by popularity."""
    return Placed(
        hit=_hit(p[:-1], tested.taken),
        expected=float(-np.sort(-p[:-1])[:FIRST].sum()),
        log_loss=-math.log(p[tested.taken]),
        popularity_hit=_hit(tested.evidence[:, POPULARITY + LONGEST], tested.taken),
        popularity_log_loss=-math.log(tested.popularity),
    )


def _hit(scores: NDArray[np.floating[Any]], taken: int) -> float:
    """1 where the taken item stood among the first, ties at their middle; else 0."""
    if taken < 0:
        return 0.0
    above, equal = int((scores > scores[taken]).sum()), int((scores == scores[taken]).sum()) - 1
    return float(1 + above + equal / 2 <= FIRST)


@njit(cache=True)
def _open(slots, known, own, item):  # type: ignore[no-untyped-def]
    """Places of slots that are `known` and none of the user's own, and at which of these the item is, or -1."""
    places, taken, n = np.empty(len(slots), np.int64), -1, 0
    for c in range(len(slots)):
        j = slots[c]
        at = np.searchsorted(own, j)
        if known[j] and (at == len(own) or own[at] != j):
            if j == item:
                taken = n
            places[n] = c
            n += 1
    return places[:n], taken
