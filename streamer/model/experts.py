"""The experts: what each of them says about which items a user takes next, as evidence that the mix adds up.

Each expert gives an item j a score ≥ 0; its share of all scores is p_j. The evidence is how much likelier than by
chance that makes the item, among n items that had events:

    x_j = log((1 - FLOOR) · n · p_j + FLOOR)

so that an expert that says nothing of an item counts log(FLOOR) against it, and no more.

transitions, transitions_long   what comes after the user's items: `model.transitions`
interests                       popularity_j · Σ_t u_t / (N_t + 1) over the item's tags: the user's tags, each spread
                                over its items. u_t = Σ_h 2^(-age_h / 10)·[t ∈ h], N_t how popular all its items are
titles                          Σ_h 2^(-age_h / 5) · cos(h, j)⁴ over the items' tags, rare ones weighing more: sharp, so
                                that one item that is much alike tells more than many that are a little
factors                         4 · cosine of the user's vector and the item's (evidence as it is)
popularity_1d, _7d, _30d        how often it was taken of late, by anybody

Only candidates are looked at: what follows the user's items, items with their tags, the most popular, and the nearest
vectors. HR@20 on Online Retail (first 120,000 events, every 32nd scored) / REES46 of each alone, dense, in an
experiment before this code: .166, .202, .174, .167, .148, .075, .081, .066 / .123, .122, .181, .115, .181, .062 × 3.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.model.board import FLOOR, Board
from streamer.model.ragged import Pool, seek
from streamer.model.transitions import spread, strengths

NAMES: Final = (
    "transitions",
    "transitions_long",
    "interests",
    "titles",
    "factors",
    "popularity_1d",
    "popularity_7d",
    "popularity_30d",
)
TRANSITIONS, LONG, INTERESTS, TITLES, FACTORS, POPULARITY = range(6)
INTERESTS_HALF_LIFE: Final = 10.0  # events
TITLES_HALF_LIFE: Final = 5.0
TITLES_ITEMS: Final = 20  # 2^(-20/5) is 6 %
STRONGEST_TAGS: Final = 24  # of the user, whose items are candidates
NEAREST: Final = 128  # vectors
BINS: Final = 1000  # of the cosines from 0 to 1: counting finds the nearest in a tenth of the time that sorting takes
# Most candidates that come from one expert, its best ones: what stands behind them is in no ranking, and costs as much.
FOLLOWING: Final = 1024
ALIKE: Final = 512
A_TAG: Final = 64
COSINE_SCALE: Final = 4.0  # brings cosines to the range of the others

# The evidence for an item of which nobody says anything; its vector points anywhere.
SILENCE: Final = np.array([0.0 if m == FACTORS else math.log(FLOOR) for m in range(len(NAMES))])


class User(NamedTuple):
    """What a ranking needs of a user: their items, newest first, and their vector."""

    items: NDArray[np.int64]  # [h] -1: unknown
    ts: NDArray[np.int64]  # [h] ms
    vector: NDArray[np.float32]  # [k]


class Scratch(NamedTuple):
    """Working memory over n items and t tags, all zeros between calls."""

    follows: NDArray[np.float64]  # [n, 2]
    alike: NDArray[np.float64]  # [n]
    dots: NDArray[np.float64]  # [n]
    marks: NDArray[np.uint8]  # [n]
    tags: NDArray[np.float64]  # [t]
    candidates: NDArray[np.int64]  # [2 n]


def scratch(items: int, tags: int) -> Scratch:
    """Working memory for a board of this size."""
    return Scratch(
        np.zeros((items, 2)),
        np.zeros(items),
        np.zeros(items),
        np.zeros(items, np.uint8),
        np.zeros(tags),
        np.zeros(2 * items + 1, np.int64),
    )


def evidence(
    board: Board, links: Pool, user: User, now: int, work: Scratch
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Candidates i64[c] in no order, and what each expert says of them f32[c, experts], as of `now` (ms).

    `work` is as it was afterwards.
    """
    n, tags = _find(board, links, user, now, work)
    candidates = work.candidates[:n].copy()
    return candidates, _weigh(board, user, work, candidates, tags)


@njit(cache=True)
def _find(board, links, user, now, work):  # type: ignore[no-untyped-def]
    """Candidates into `work.candidates`; scores of the first four experts stay in `work`."""
    items = user.items
    known = 0
    if len(links.at) >= len(board.fade):
        known = spread(
            links,
            items,
            strengths(user.ts, now),
            board.fade,
            board.by_source,
            board.by_destination,
            work.follows,
            work.candidates,
            0,
        )
    known = _keep_strongest(work.follows, work.candidates, known)
    for c in range(known):
        work.marks[work.candidates[c]] = 1
    tags = _user_tags(board.tags, items, work.tags)
    known = _with_tags(board, tags, work, known)
    known = _with_titles(board, items, work, known)
    known = _add_all(board.top, work.marks, work.candidates, known)
    return _nearest(board.head, board.head_unit, user.vector, work.marks, work.candidates, known), tags


@njit(cache=True)
def _keep_strongest(follows, candidates, n):  # type: ignore[no-untyped-def]
    """Leave the FOLLOWING of n candidates that follow most on either memory; returns how many these are."""
    if n <= FOLLOWING:
        return n
    short, long = np.empty(n), np.empty(n)
    for c in range(n):
        short[c], long[c] = follows[candidates[c], 0], follows[candidates[c], 1]
    half = n - FOLLOWING // 2
    least_short, least_long = np.partition(short, half)[half], np.partition(long, half)[half]
    kept = 0
    for c in range(n):
        j = candidates[c]
        if short[c] >= max(least_short, 1e-300) or long[c] >= least_long:
            candidates[kept] = j
            kept += 1
        else:
            follows[j, 0] = follows[j, 1] = 0
    return kept


@njit(cache=True)
def _add(j, marks, candidates, n):  # type: ignore[no-untyped-def]
    if marks[j] == 0:
        marks[j] = 1
        candidates[n] = j
        return n + 1
    return n


@njit(cache=True)
def _add_all(items, marks, candidates, n):  # type: ignore[no-untyped-def]
    for j in items:
        n = _add(j, marks, candidates, n)
    return n


@njit(cache=True)
def _user_tags(item_tags, items, weights):  # type: ignore[no-untyped-def]
    """Weights of the user's tags into `weights` f64[t]; returns which there are."""
    found = np.empty(len(items) * item_tags.shape[1], np.int64)
    n = 0
    for age in range(len(items)):
        if items[age] < 0:
            continue
        g = 2.0 ** (-age / INTERESTS_HALF_LIFE)
        for t in item_tags[items[age]]:
            if t >= 0:
                if weights[t] == 0:
                    found[n] = t
                    n += 1
                weights[t] += g
    return found[:n]


@njit(cache=True)
def _with_tags(board, tags, work, n):  # type: ignore[no-untyped-def]
    """Items of the tags that tell most about this user."""
    strength = np.empty(len(tags))
    for k in range(len(tags)):
        strength[k] = -work.tags[tags[k]] / (board.tag_events[tags[k]] + 1)
    order = np.argsort(strength)
    for k in order[:STRONGEST_TAGS]:
        t = tags[k]
        first, end = board.listed_at[t], board.listed_at[t + 1]
        n = _add_all(board.listed[first : min(first + A_TAG, end)], work.marks, work.candidates, n)
    return n


@njit(cache=True)
def _with_titles(board, items, work, n):  # type: ignore[no-untyped-def]
    """Items with words of the user's latest ones, and how much alike they are into `work.alike`."""
    touched, found, new = np.empty(len(work.dots), np.int64), np.empty(len(work.dots), np.int64), 0
    for age in range(min(len(items), TITLES_ITEMS)):
        h = items[age]
        if h < 0 or board.length2[h] == 0:
            continue
        count = 0
        for t in board.tags[h]:
            if t < 0:
                break
            for j in board.listed[board.listed_at[t] : board.listed_at[t + 1]]:
                if work.dots[j] == 0:
                    touched[count] = j
                    count += 1
                work.dots[j] += board.idf2[t]
        g = 2.0 ** (-age / TITLES_HALF_LIFE)
        for k in range(count):
            j = touched[k]
            if work.alike[j] == 0 and work.marks[j] == 0:
                found[new] = j
                new += 1
            cosine2 = work.dots[j] ** 2 / (board.length2[h] * board.length2[j])
            work.alike[j] += g * cosine2 * cosine2
            work.dots[j] = 0
    return _add_alike(found[:new], work, n)


@njit(cache=True)
def _add_alike(found, work, n):  # type: ignore[no-untyped-def]
    """The ALIKE of the items `found` that are most alike; the likeness of the others is forgotten."""
    least = 0.0
    if len(found) > ALIKE:
        least = np.partition(work.alike[found], len(found) - ALIKE)[len(found) - ALIKE]
    for j in found:
        if work.alike[j] >= least:
            n = _add(j, work.marks, work.candidates, n)
        else:
            work.alike[j] = 0
    return n


@njit(cache=True, fastmath={"reassoc"})
def _dot(a, b):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for k in range(len(a)):
        total += a[k] * b[k]
    return total


@njit(cache=True)
def _nearest(head, head_unit, vector, marks, candidates, n):  # type: ignore[no-untyped-def]
    """The NEAREST of the head by their cosine, and those that are as near to within 1/BINS."""
    length = math.sqrt((vector * vector).sum())
    if len(head) <= NEAREST or not 0 < length < math.inf:
        return n
    bins, counts = np.empty(len(head), np.int64), np.zeros(2 * BINS + 1, np.int64)
    for k in range(len(head)):
        bins[k] = int(BINS * (1 + min(max(_dot(head_unit[k], vector) / length, -1.0), 1.0)))
        counts[bins[k]] += 1
    least, enough = 2 * BINS, counts[2 * BINS]
    while enough < NEAREST:
        least -= 1
        enough += counts[least]
    for k in range(len(head)):
        if bins[k] >= least:
            n = _add(head[k], marks, candidates, n)
    return n


@njit(cache=True)
def _weigh(board, user, work, candidates, tags):  # type: ignore[no-untyped-def]
    """The evidence f32[c, experts]; brings `work` back to zeros."""
    raw = np.zeros((len(candidates), 4))
    for c in range(len(candidates)):
        j = candidates[c]
        raw[c, TRANSITIONS], raw[c, LONG], raw[c, TITLES] = work.follows[j, 0], work.follows[j, 1], work.alike[j]
        for t in board.tags[j]:
            if t < 0:
                break
            raw[c, INTERESTS] += work.tags[t] / (board.tag_events[t] + 1)
        raw[c, INTERESTS] *= board.popularity[j]
        work.follows[j] = 0
        work.alike[j] = 0
        work.marks[j] = 0
    for t in tags:
        work.tags[t] = 0
    return _evidence(board, user.vector, candidates, raw)


@njit(cache=True)
def _evidence(board, vector, candidates, raw):  # type: ignore[no-untyped-def]
    out = np.empty((len(candidates), len(NAMES)), np.float32)
    length = np.float32(math.sqrt((vector * vector).sum()) + 1e-30)
    for m in range(4):
        total = raw[:, m].sum()
        scale = (1 - FLOOR) * board.seen / total if total > 0 else 0.0
        for c in range(len(candidates)):
            out[c, m] = math.log(scale * raw[c, m] + FLOOR) if raw[c, m] > 0 else math.log(FLOOR)
    for c in range(len(candidates)):
        j = candidates[c]
        out[c, FACTORS] = COSINE_SCALE * _dot(board.unit[j], vector) / length
        for s in range(3):
            out[c, POPULARITY + s] = board.popular[j, s]
    return out


@njit(cache=True)
def reasons(board, links, user, now, items):  # type: ignore[no-untyped-def]
    """How much each of the user's h items speaks for each of `items` i64[n]: f64[n, h].

    It is its part of the item's transitions plus its part of the likeness.
    """
    follows, alike = np.zeros((len(items), len(user.items))), np.zeros((len(items), len(user.items)))
    strength = strengths(user.ts, now)
    for n in range(len(items)):
        for age in range(len(user.items)):
            h = user.items[age]
            if h >= 0:
                follows[n, age] = strength[age, 1] * board.by_source[h] * _step(links, h, items[n])
                alike[n, age] = 2.0 ** (-age / TITLES_HALF_LIFE) * _cosine(board, h, items[n]) ** 4
        follows[n] /= max(follows[n].sum(), 1e-300)
        alike[n] /= max(alike[n].sum(), 1e-300)
    return follows + alike


@njit(cache=True)
def _step(links, h, item):  # type: ignore[no-untyped-def]
    """Transitions from h to the item on the long memory, both directions."""
    if h >= len(links.size) or links.size[h] == 0:
        return 0.0
    e = seek(links.keys, links.at[h], links.room[h], np.uint64(item + 1))
    return links.weights[e, 1] + links.weights[e, 3] if links.keys[e] != 0 else 0.0


@njit(cache=True)
def _cosine(board, h, item):  # type: ignore[no-untyped-def]
    dot = 0.0
    for t in board.tags[h]:
        for s in board.tags[item]:
            if t == s and t >= 0:
                dot += board.idf2[t]
    return dot / math.sqrt(board.length2[h] * board.length2[item]) if dot > 0 else 0.0
