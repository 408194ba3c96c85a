"""The gate: did a profile change enough to be worth a message? One compiled pass over the changed users.

A tag's share of a user's interests is held against the share that was last published:

    in_before = published > 0            (a share under the threshold is stored with its sign turned)
    in_now    = share ≥ enter, or in_before and share ≥ leave
    added     = in_now and not in_before
    dropped   = in_before and not in_now
    shifted   = both, and |share - published| ≥ shift

Shares are taken at the user's own newest event: nobody's profile changes by silence.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.model.compiled import leaf
from streamer.model.interests import MAIN, shares
from streamer.pipeline.catalogue import Catalogue
from streamer.pipeline.hashing import lookup
from streamer.pipeline.layout import N_TAGS, N_VECTOR, TAGS, Users

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
    smoothing: float
    half_life_ms: float
    cosine: float


class Assessed(NamedTuple):
    """The verdict on each user."""

    share: NDArray[np.float64]  # [n, TAGS]
    prior: NDArray[np.float64]  # [n, TAGS] the population's share of the same tag, at least `prior_floor`
    status: NDArray[np.uint8]  # [n, TAGS]
    reasons: NDArray[np.uint8]  # [n] bits; 0: nothing material


def assess(users: Users, slots: NDArray[np.int64], catalogue: Catalogue, thresholds: Thresholds) -> Assessed:
    """Hold every user against what was last published. Changes nothing."""
    n = len(slots)
    prior = np.full((n, TAGS), catalogue.prior_floor)
    result = Assessed(np.zeros((n, TAGS)), prior, np.zeros((n, TAGS), np.uint8), np.zeros(n, np.uint8))
    tags = catalogue.tag_table
    _assess(users, slots, tags.keys, tags.values, catalogue.tag_prior, thresholds, result)
    return result


def rows_of(assessed: Assessed, rows: NDArray[np.int64]) -> Assessed:
    """The verdicts on some of the users."""
    return Assessed(assessed.share[rows], assessed.prior[rows], assessed.status[rows], assessed.reasons[rows])


def vector_is_old(users: Users, slots: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whose vector has to be folded in anew before the gate can tell whether it moved."""
    stale: NDArray[np.bool_] = users.head["since_vector"][slots] >= VECTOR_EVERY
    return stale


def cosines(users: Users, slots: NDArray[np.int64], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine of each published vector with the present one; 1 where one is null, 0 where none of this width went out.

    A null vector means that nothing was known of the user's items: getting to know them moves nobody.
    """
    has_one = users.head["counts"][slots, N_VECTOR] > 0
    old = users.vector[slots].astype(np.float64) * has_one[:, None]
    new = vectors.astype(np.float64)
    norms = np.linalg.norm(old, axis=1), np.linalg.norm(new, axis=1)
    product = norms[0] * norms[1]
    cosine = np.einsum("ij,ij->i", old, new) / np.where(product > 0, product, 1)
    return np.where(has_one | (norms[1] == 0), np.where(product > 0, cosine, 1.0), 0.0)


def quantise(vectors: NDArray[np.float32]) -> NDArray[np.int8]:
    """Vectors as bytes for the comparison with later ones: the largest number becomes ±127."""
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    return np.rint(vectors / np.where(largest > 0, largest, 1) * 127).astype(np.int8)


@leaf
def _assess(users, slots, tag_keys, tag_values, tag_prior, thresholds, out):  # type: ignore[no-untyped-def]
    for i in range(len(slots)):
        s = slots[i]
        n = np.int64(users.head[s].counts[N_TAGS])
        tags = users.tags[users.block[s] : users.block[s] + n]
        for j in range(n):
            t = lookup(tag_keys, tag_values, tags[j].tag)
            if 0 <= t < len(tag_prior):
                out.prior[i, j] = max(out.prior[i, j], tag_prior[t])
        now = users.head[s].as_of
        shares(
            tags,
            n,
            now,
            MAIN,
            thresholds.half_life_ms,
            out.prior[i],
            thresholds.smoothing,
            out.share[i],
        )
        if users.head[s].version == 0:
            out.reasons[i] |= FIRST
        if users.head[s].lost_tag != 0:
            out.reasons[i] |= INTERESTS
        for j in range(n):
            out.status[i, j] = _verdict(out.share[i, j], tags[j].published, thresholds)
            if out.status[i, j] != SAME:
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
def mark_published(users, slots, share, status):  # type: ignore[no-untyped-def]
    """Keep the shares that are published now as what later ones are held against."""
    for i in range(len(slots)):
        s = slots[i]
        n = np.int64(users.head[s].counts[N_TAGS])
        tags = users.tags[users.block[s] : users.block[s] + n]
        for j in range(n):
            before = tags[j].published > 0
            now = status[i, j] == ADDED or (before and status[i, j] != DROPPED)
            tags[j].published = share[i, j] if now else -share[i, j]
