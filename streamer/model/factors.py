"""Factors: one vector an item, learned online at its owner; one vector a user, computed from the user's recent items.

Start.  q_i = normalise(Σ_tags s(tag) / √tags + 0.1·s(item)), s(·) in {-1, +1}^k from a hash: same tags, near vectors.
User.   p_u = (c0·QᵀQ + reg·I + Σ_h (w_h - c0)·q_h q_hᵀ)⁻¹ Σ_h w_h q_h, w_h = 1 + 4·2^(-age_h / 3), age in known items:
        the ridge solution of implicit ALS (Hu, Koren and Volinsky 2008). Nothing of it is stored, so it is safe to
        replay and never stale when items move.
Learn.  A signal says that item i followed the items h (newest first). Its context is the direction in which the user's
        vector lies, p = normalise((c0·QᵀQ + reg·I)⁻¹ Σ_h w_h q_h): the fold-in without its second-order term, k²
        operations. Then BPR (Rendle et al. 2009) against items j that the owner draws from its own:
            g = σ(-p·(q_i - q_j)),  q_i += η·(g·p - λ·q_i),  q_j += η·(-g·p - λ·q_j),  η = rate · weight
        |p| = 1, g ≤ 1 and η·λ ≤ 1, so no vector gets longer than max(what it was, 1/λ), or ceases to be finite.

Stored by an owner, per item: its k float32, little-endian, nothing else (128 bytes at k 32). Draws come from a hash of
(seed, number of the signal, draw), so a replay draws the same. Sums run in a fixed order, without fast-math.

Unknown items (slot -1, or beyond the table) and rows that are not finite are passed over, as if not in the list.

Why this learner. HR@20, prequential (test, then learn), on Online Retail (first 120,000 first purchases, every 8th
scored) / REES46 (all), k 32, vectors shared every 500 / 200 events; a one-off comparison, on the sets it was tuned on:

    popularity                                                .064 / .060
    SGD, positives only                                       .041 / .003
    the start alone, never learned                            .061 / .144
    an item's ridge solution over its last 64 contexts        .129 / .156
    the same from the mean of all its contexts                .147 / .155
    BPR, context: plain mean of the predecessors              .134 / .188    without tags .083 / .051
    BPR, context: the full fold-in, made a unit vector        .147 / .186    without tags .131 / .053; 5 × the cost
    BPR, context as above                                     .148 / .187    without tags .131 / .053
      with four owners instead of one                         .149 / .187
      at k 64                                                 .169 / .190

A worked number: one item (1, 0), the newest of its user (weight 5), in a Gram matrix of itself alone, c0 0.5, reg 3:
p = 5 / (0.5 + 3 + 4.5) = 0.625 on the first axis.

>>> items = np.array([[1, 0]], np.float32)
>>> slots, starts = np.zeros(1, np.int32), np.array([0, 1])
>>> fold_in_many(items, slots, starts, recency_weights(1), gram(items), 0.5, 3.0).tolist()
[[0.625, 0.0]]
"""

import math
from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.model.linear import (
    Floats,
    Matrix,
    Slots,
    add_outer,
    dot,
    factor,
    gram,
    prior,
    solve,
    usable,
)

__all__ = [
    "C0",
    "MAX_WEIGHT",
    "REG",
    "Learning",
    "fold_in_many",
    "gram",
    "initial_vector",
    "learn",
    "recency_weights",
    "ridge",
    "whitening",
]

C0: Final = 0.2  # weight of all items that the user did not take; .1 to .5 differ by .005 of HR@20
REG: Final = 4.0  # ridge; 1 to 10 differ by .001
ITEM_SHARE: Final = 0.1  # tells items with the same tags apart; 1.0 costs a fifth of HR@20 on REES46
MAX_WEIGHT: Final = 5.0  # no signal steps further than five clicks: a runaway weight cannot throw a vector about


class Learning(NamedTuple):
    """How an owner learns. What other values cost is in HR@20 on Online Retail."""

    rate: float = 0.05  # step a signal, in (0, 1]: 0.03 costs .003, 0.1 costs .005
    reg: float = 0.01  # λ in (0, 1]: bounds lengths at 100 (measured: up to 5); .003 to .02 differ by .002
    negatives: int = 8  # draws a signal: 4 cost .005, 12 gain nothing


@njit(cache=True)
def _mix(x):  # type: ignore[no-untyped-def]
    """splitmix64 (Steele, Lea and Flood 2014): 64 well-mixed bits of a u64 counter."""
    x = np.uint64(x) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True)
def _add_signs(key, amount, out):  # type: ignore[no-untyped-def]
    """Add ±amount to every number of `out` by the bits of the key's hash."""
    bits = np.uint64(0)
    for d in range(len(out)):
        if d % 64 == 0:
            bits = _mix(np.uint64(key) + np.uint64(d))
        out[d] += amount if bits & np.uint64(1) else -amount
        bits >>= np.uint64(1)


@njit(cache=True)
def initial_vector(tag_hashes: NDArray[np.uint64], item_hash: int, k: int) -> Floats:
    """The vector f32[k] that an item starts with, of length 1. Depends on the set of tags, not on their order.

    >>> a = initial_vector(np.array([7, 8], np.uint64), 1, 32)
    >>> b = initial_vector(np.array([8, 7], np.uint64), 2, 32)
    >>> c = initial_vector(np.array([9], np.uint64), 3, 32)
    >>> float(a @ b) > 0.95, abs(float(a @ c)) < 0.5
    (True, True)
    """
    total = np.zeros(k)
    for tag in tag_hashes:
        _add_signs(tag, 1.0, total)
    total /= math.sqrt(max(len(tag_hashes), 1))
    _add_signs(item_hash, ITEM_SHARE, total)
    return (total / math.sqrt((total * total).sum() + 1e-12)).astype(np.float32)


@njit(cache=True)
def recency_weights(n: int) -> Floats:
    """w_h = 1 + 4·2^(-age / 3) f32[n] for ages 0, 1, …: the newest item weighs 5, the fourth 3, old ones 1."""
    return (1.0 + 4.0 * 2.0 ** (-np.arange(n) / 3.0)).astype(np.float32)


@njit(cache=True)
def ridge(item_vectors, slots, n, weights, gram_matrix, c0, reg, matrix, p):  # type: ignore[no-untyped-def]
    """The ridge solution for the items in the first `n` slots into `p` f64[k]; zeros when there is none."""
    prior(gram_matrix, c0, reg, matrix)
    p[:] = 0
    known = 0
    for h in range(n):
        if known < len(weights) and 0 <= slots[h] < len(item_vectors) and usable(item_vectors[slots[h]]):
            q = item_vectors[slots[h]]
            w = np.float64(weights[known])
            known += 1
            add_outer(matrix, q, w - c0)
            for a in range(len(p)):
                p[a] += w * q[a]
    if known:
        factor(matrix, reg)
        solve(matrix, p)
    if not usable(p):
        p[:] = 0


@njit(cache=True)
def fold_in_many(
    item_vectors: Floats,
    slots: Slots,
    starts: NDArray[np.int64],
    weights: Floats,
    gram_matrix: Matrix,
    c0: float,
    reg: float,
) -> Floats:
    """The vectors f32[users, k] of many users. User u has the items slots[starts[u] : starts[u + 1]], newest first.

    `weights` f32[H] is by age, as of `recency_weights(H)`; of a longer list the newest H known items count.
    `gram_matrix` f64[k, k] is that of all items, `reg` > 0. Without items: zeros. Cost: 8 µs for 40 items at k 32.
    """
    k = item_vectors.shape[1]
    out = np.zeros((len(starts) - 1, k), np.float32)
    matrix, p = np.zeros((k, k)), np.zeros(k)
    for u in range(len(out)):
        own = slots[starts[u] : starts[u + 1]]
        ridge(item_vectors, own, len(own), weights, gram_matrix, c0, reg, matrix, p)
        for a in range(k):
            out[u, a] = p[a]
    return out


@njit(cache=True)
def whitening(gram_matrix: Matrix, c0: float, reg: float) -> Matrix:
    """(c0·QᵀQ + reg·I)⁻¹ f64[k, k], what `learn` needs of the Gram matrix; once a batch is enough."""
    lower = np.zeros_like(gram_matrix)
    prior(gram_matrix, c0, reg, lower)
    factor(lower, reg)
    inverse = np.eye(len(lower))
    for row in inverse:
        solve(lower, row)
    return inverse


@njit(cache=True)
def _context(item_vectors, before, own_slot, weights, whitener, total, p):  # type: ignore[no-untyped-def]
    """The unit vector that the predecessors `before` point in, into `p` f64[k]; False when there is none.

    The item itself is no predecessor of its own: it would only learn to resemble itself.
    """
    total[:] = 0
    p[:] = 0
    known = 0
    for slot in before:
        if slot != own_slot and 0 <= slot < len(item_vectors) and usable(item_vectors[slot]):
            for a in range(len(total)):
                total[a] += weights[known] * item_vectors[slot, a]
            known += 1
    for b in range(len(p)):
        for a in range(len(p)):
            p[a] += total[b] * whitener[b, a]
    length = math.sqrt(dot(p, p))
    if not 1e-30 < length < 1e30:
        return False
    p /= length
    return True


@njit(cache=True)
def _draw(seed, signal, draw, n):  # type: ignore[no-untyped-def]
    """A row in [0, n) from a hash of its three numbers."""
    key = _mix(np.uint64(seed) ^ _mix(np.uint64(signal))) + np.uint64(draw)
    return np.int64(_mix(key) >> np.uint64(1)) % n


@njit(cache=True)
def _among(slot, slots):  # type: ignore[no-untyped-def]
    for other in slots:  # noqa: SIM110  (numba has no any() over a generator)
        if other == slot:
            return True
    return False


@njit(cache=True)
def _contrast(vectors, own_slots, i, before, p, step, seed, signal, params):  # type: ignore[no-untyped-def]
    """BPR steps of one signal on row i and on rows drawn for contrast, in place.

    Row i moves along p only, so its product with p, and what becomes of it, are a number each until the end. Rows that
    are not finite stay what they are, and teach nothing.
    """
    keep, own = 1.0 - step * params.reg, dot(p, vectors[i])
    kept, gained = 1.0, 0.0
    for draw in range(params.negatives):
        j = _draw(seed, signal, draw, len(vectors))
        if j == i or (own_slots[j] >= 0 and _among(own_slots[j], before)):
            continue
        d = own - dot(p, vectors[j])
        if not math.isfinite(d):
            continue
        gain = step / (1.0 + math.exp(min(d, 700.0)))  # beyond 709 exp overflows, and nothing is left to learn
        own, kept, gained = keep * own + gain, keep * kept, keep * gained + gain
        for a in range(len(p)):
            vectors[j, a] = keep * vectors[j, a] - gain * p[a]
    if gained > 0:
        for a in range(len(p)):
            vectors[i, a] = kept * vectors[i, a] + gained * p[a]


@njit(cache=True)
def learn(
    vectors: Floats,
    own_slots: Slots,
    positives: Slots,
    predecessors: Slots,
    weights: Floats,
    item_vectors: Floats,
    whitener: Matrix,
    seed: int,
    first: int,
    params: Learning,
) -> int:
    """Learn n signals in order, changing an owner's `vectors` f32[own, k] in place; returns how many taught anything.

    `own_slots` i32[own]: the slot of each own item in `item_vectors` f32[items, k], the copy that all share (-1: not
    there yet). A signal: the row `positives` i32[n] of an own item, the slots `predecessors` i32[n, m] of the same
    user's items before it, newest first, and its weight f32[n] by kind of event (capped at MAX_WEIGHT; one not above 0,
    or NaN, is passed over). `whitener` is `whitening` of the Gram matrix. `seed` and `first`, the number of the first
    signal ever since, fix the draws: cutting a batch in two changes nothing. Cost: .7 to 1.2 µs a signal at k 32.
    """
    own, k = vectors.shape
    by_age = recency_weights(predecessors.shape[1])
    total, p = np.zeros(k), np.zeros(k)
    taught = 0
    for s in range(len(positives)):
        i = positives[s]
        if not (0 <= i < own and weights[s] > 0):
            continue
        before = predecessors[s]
        if not _context(item_vectors, before, own_slots[i], by_age, whitener, total, p):
            continue
        taught += 1
        step = params.rate * min(weights[s], MAX_WEIGHT)
        _contrast(vectors, own_slots, i, before, p, step, seed, first + s, params)
    return taught
