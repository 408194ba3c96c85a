"""The gate: did a profile change enough to be worth a message? One compiled pass over the changed users.

A tag's share (how likely it is to be that of the user's next event: `model.tag_mix`) is held against the share that was
last published:

    in_before = published > 0            (a share under the threshold is stored with its sign turned)
    in_now    = share ≥ enter, or in_before and share ≥ leave
    added     = in_now and not in_before
    dropped   = in_before and not in_now
    shifted   = both, and |share - published| ≥ shift

Shares are taken at the user's own newest event: nobody's profile changes by silence.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.model.compiled import leaf
from streamer.model.tag_mix import LONGEST, chance, look_at, recent_share
from streamer.pipeline.layout import N_TAGS, N_VECTOR, Users
from streamer.pipeline.population import Mind, shares_of

# Why a profile is published: bits of `Assessed.reasons`.
FIRST, INTERESTS, VECTOR = 1, 2, 4
# What became of a tag: values of `Assessed.status`.
SAME, ADDED, DROPPED, SHIFTED = 0, 1, 2, 3
# A vector is folded in anew after so many events at the earliest: they carry half of its weight (half-life 3 events).
VECTOR_EVERY: Final = 4


class Thresholds(NamedTuple):
    """What counts as a material change; see the settings of the same names."""

    enter: float
    leave: float
    shift: float
    cosine: float


class Assessed(NamedTuple):
    """The verdict on each user. Tags stand end to end, as in the users' rows: user i has `at[i] : at[i + 1]`."""

    at: NDArray[np.int64]  # [n + 1]
    share: NDArray[np.float64]
    recent: NDArray[np.float64]  # the share if of the user's scales only the shortest time counted
    prior: NDArray[np.float64]  # the population's share of the same tag, not less than of one event
    status: NDArray[np.uint8]
    reasons: NDArray[np.uint8]  # [n] bits; 0: nothing material


def assess(users: Users, slots: NDArray[np.int64], mind: Mind, thresholds: Thresholds) -> Assessed:
    """Hold every user against what was last published. Changes nothing."""
    out = room(len(slots), len(slots) * int(users.most[N_TAGS]))
    judge(users, slots, mind, thresholds, out)
    n = out.at[-1]
    return Assessed(out.at, out.share[:n], out.recent[:n], out.prior[:n], out.status[:n], out.reasons)


def room(users: int, tags: int) -> Assessed:
    """For the verdicts on so many users with so many tags in all."""
    share, recent, prior = np.empty((3, tags))
    return Assessed(
        np.zeros(users + 1, np.int64), share, recent, prior, np.empty(tags, np.uint8), np.zeros(users, np.uint8)
    )


def rows_of(assessed: Assessed, rows: NDArray[np.int64]) -> Assessed:
    """The verdicts on some of the users."""
    size = np.diff(assessed.at)[rows]
    at = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
    tags = np.arange(at[-1]) + np.repeat(assessed.at[rows] - at[:-1], size)
    return Assessed(
        at,
        assessed.share[tags],
        assessed.recent[tags],
        assessed.prior[tags],
        assessed.status[tags],
        assessed.reasons[rows],
    )


def vector_is_old(users: Users, slots: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whose vector has to be folded in anew before the gate can tell whether it moved."""
    stale: NDArray[np.bool_] = users.head["since_vector"][slots] >= VECTOR_EVERY
    return stale


def cosines(users: Users, slots: NDArray[np.int64], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine of each published vector with the present one; 1 where one is null, 0 where none of this width went out.

    A null vector means that nothing was known of the user's items: getting to know them moves nobody.
    """
    out = np.empty(len(slots))
    _cosines(users, slots, vectors, out)
    return out


@leaf
def _cosines(users, slots, vectors, out):  # type: ignore[no-untyped-def]
    for i in range(len(slots)):
        product = old_square = new_square = 0.0
        for k in range(vectors.shape[1]):
            old, new = np.float64(users.vector[slots[i], k]), np.float64(vectors[i, k])
            product += old * new
            old_square += old * old
            new_square += new * new
        has_one = users.head[slots[i]].counts[N_VECTOR] > 0
        if not has_one and new_square > 0:
            out[i] = 0.0
        elif not has_one or old_square == 0 or new_square == 0:
            out[i] = 1.0
        else:
            out[i] = product / math.sqrt(old_square * new_square)


def quantise(vectors: NDArray[np.float32]) -> NDArray[np.int8]:
    """Vectors as bytes for the comparison with later ones: the largest number becomes ±127."""
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    return np.rint(vectors / np.where(largest > 0, largest, 1) * 127).astype(np.int8)


@leaf
def judge(users, slots, mind, thresholds, out):  # type: ignore[no-untyped-def]
    """`assess` into an `Assessed` with room for it, whose `reasons` are 0."""
    work, smoothing = mind.work, mind.scales.smoothing
    for i in range(len(slots)):
        s = slots[i]
        head, first = users.head[s], out.at[i]
        out.at[i + 1] = first + head.counts[N_TAGS]
        tags = users.tags[users.block[s] : users.block[s] + head.counts[N_TAGS]]
        look_at(tags, head.as_of, np.int64(head.clock), head.clicks + head.purchases, mind.scales, mind.learned, work)
        if head.version == 0:
            out.reasons[i] |= FIRST
        if head.lost_tag != 0:
            out.reasons[i] |= INTERESTS
        for j in range(len(tags)):
            shares_of(mind.population, tags[j].tag, work.prior)
            out.share[first + j] = chance(work, j, smoothing)
            out.recent[first + j] = recent_share(work, j, smoothing)
            out.prior[first + j] = max(work.prior[LONGEST], mind.population.floor[LONGEST])
            out.status[first + j] = _verdict(out.share[first + j], tags[j].published, thresholds)
            if out.status[first + j] != SAME:
                out.reasons[i] |= INTERESTS


@leaf
def _verdict(share, published, thresholds):  # type: ignore[no-untyped-def]
    before = published > 0
    now = share >= thresholds.enter or (before and share >= thresholds.leave)
    if now and not before:
        return ADDED
    if before and not now:
        return DROPPED
    if now and abs(share - published) >= thresholds.shift:
        return SHIFTED
    return SAME


@leaf
def mark_published(users, slots, assessed):  # type: ignore[no-untyped-def]
    """Keep the shares that are published now as what later ones are held against."""
    for i in range(len(slots)):
        first, block = assessed.at[i], users.block[slots[i]]
        for j in range(assessed.at[i + 1] - first):
            entry, share, status = users.tags[block + j], assessed.share[first + j], assessed.status[first + j]
            now = status == ADDED or (entry.published > 0 and status != DROPPED)
            entry.published = share if now else -share
