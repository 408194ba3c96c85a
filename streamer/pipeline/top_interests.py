"""Top interests: the strongest tags of users, in order, with all that a profile says of each. Read in bulk."""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.model.compiled import leaf
from streamer.model.interests import EVENTS, MAIN, RECENT, shares
from streamer.pipeline.catalogue import Catalogue
from streamer.pipeline.gate import Assessed
from streamer.pipeline.hashing import lookup
from streamer.pipeline.layout import N_RECENT, N_TAGS, TAGS, Users, place

BECAUSE: Final = 3  # items named behind an interest: enough for a sentence


class Scales(NamedTuple):
    """How profiles are read off rows; see the settings of the same names."""

    interests: int
    smoothing: float
    half_life_ms: float
    recent_half_life_ms: float


class TopInterests(NamedTuple):
    """The first `k` interests of n users, strongest first. Places beyond a user's last are 0, in `because` -1."""

    tag: NDArray[np.uint64]  # [n, k]
    last_ts: NDArray[np.int64]  # [n, k]
    numbers: NDArray[np.float64]  # [n, k, 5] weight, share, recent, lift, events
    because: NDArray[np.int64]  # [n, k, BECAUSE] places of recent items; -1: none


def top_interests(
    users: Users, slots: NDArray[np.int64], assessed: Assessed, catalogue: Catalogue, scales: Scales
) -> TopInterests:
    """The first `scales.interests` of each user. Changes nothing."""
    n, k, items = len(slots), scales.interests, catalogue.table
    out = TopInterests(
        tag=np.zeros((n, k), np.uint64),
        last_ts=np.zeros((n, k), np.int64),
        numbers=np.zeros((n, k, 5)),
        because=np.full((n, k, BECAUSE), -1),
    )
    lives = (scales.half_life_ms, scales.recent_half_life_ms, scales.smoothing)
    _read(users, slots, assessed, lives, items.keys, items.values, catalogue.tags, catalogue.n_tags, out)
    return out


@njit(cache=True)
def _read(users, slots, assessed, lives, item_keys, item_values, item_tags, n_item_tags, out):  # type: ignore[no-untyped-def]
    order, recent = np.empty(TAGS, np.int64), np.empty(TAGS)
    for i in range(len(slots)):
        s = slots[i]
        n = np.int64(users.head[s].counts[N_TAGS])
        tags = users.tags[users.block[s] : users.block[s] + n]
        _strongest_first(assessed.share[i], n, order)
        _read_numbers(tags, users.head[s].as_of, lives, assessed.share[i], assessed.prior[i], order, recent, out, i)
        first, n = place(users, s, N_RECENT), np.int64(users.head[s].counts[N_RECENT])
        _find_because(
            users.recents[first : first + n], item_keys, item_values, item_tags, n_item_tags, out.tag[i], out.because[i]
        )


@leaf
def _strongest_first(share, n, order):  # type: ignore[no-untyped-def]
    """Places by falling share; of equals the earlier place first. Insertion: the lists are short and nearly sorted."""
    for j in range(n):
        k = j
        while k > 0 and share[order[k - 1]] < share[j]:
            order[k] = order[k - 1]
            k -= 1
        order[k] = j


@leaf
def _read_numbers(tags, now, lives, share, prior, order, recent, out, i):  # type: ignore[no-untyped-def]
    half_life, recent_half_life, smoothing = lives
    shares(tags, len(tags), now, RECENT, recent_half_life, prior, smoothing, recent)
    for r in range(min(len(tags), out.tag.shape[1])):
        j = order[r]
        fade = 2.0 ** (-(now - tags[j].ts) / half_life)
        out.tag[i, r] = tags[j].tag
        out.last_ts[i, r] = tags[j].ts
        out.numbers[i, r, 0] = tags[j].weight[MAIN] * fade
        out.numbers[i, r, 1] = share[j]
        out.numbers[i, r, 2] = recent[j]
        out.numbers[i, r, 3] = share[j] / prior[j]
        out.numbers[i, r, 4] = tags[j].weight[EVENTS] * fade


@leaf
def _find_because(recents, item_keys, item_values, item_tags, n_item_tags, tags, because):  # type: ignore[no-untyped-def]
    """Recent items that carry an interest's tag, newest first."""
    for k in range(len(recents)):
        item = lookup(item_keys, item_values, recents[k].item)
        if item < 0:
            continue
        for t in range(n_item_tags[item]):
            for r in range(len(tags)):
                if tags[r] == 0:
                    break
                if tags[r] == item_tags[item, t]:
                    _add_because(recents, k, because[r])
                    break


@leaf
def _add_because(recents, k, because):  # type: ignore[no-untyped-def]
    """Name recent item `k`, unless the same item is named already or there is no place left."""
    for b in range(len(because)):
        if because[b] < 0:
            because[b] = k
            return
        if recents[because[b]].item == recents[k].item:
            return
