"""Top interests: the strongest tags of users, in order, with all that a profile says of each. Read in bulk."""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.model.interests import EVENTS, MAIN, RECENT, shares
from streamer.pipeline.catalogue import Catalogue
from streamer.pipeline.gate import Assessed
from streamer.pipeline.hashing import lookup
from streamer.pipeline.layout import N_RECENT, N_TAGS, Users

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
    half_life, recent_half_life, smoothing = lives
    for i in range(len(slots)):
        s = slots[i]
        n = np.int64(users.head[s].counts[N_TAGS])
        now = users.head[s].as_of
        order = np.argsort(-assessed.share[i, :n], kind="mergesort")
        recent = np.empty(n)
        shares(
            users.tag_weight[s], users.tag_ts[s], n, now, RECENT, recent_half_life, assessed.prior[i], smoothing, recent
        )
        for r in range(min(n, out.tag.shape[1])):
            j = order[r]
            fade = 2.0 ** (-(now - users.tag_ts[s, j]) / half_life)
            out.tag[i, r] = users.tag[s, j]
            out.last_ts[i, r] = users.tag_ts[s, j]
            out.numbers[i, r, 0] = users.tag_weight[s, j, MAIN] * fade
            out.numbers[i, r, 1] = assessed.share[i, j]
            out.numbers[i, r, 2] = recent[j]
            out.numbers[i, r, 3] = assessed.share[i, j] / assessed.prior[i, j]
            out.numbers[i, r, 4] = users.tag_weight[s, j, EVENTS] * fade
        _find_because(users, s, i, item_keys, item_values, item_tags, n_item_tags, out)


@njit(cache=True)
def _find_because(users, s, i, item_keys, item_values, item_tags, n_item_tags, out):  # type: ignore[no-untyped-def]
    """Recent items that carry an interest's tag, newest first."""
    for k in range(np.int64(users.head[s].counts[N_RECENT])):
        item = lookup(item_keys, item_values, users.recent_item[s, k])
        if item < 0:
            continue
        for t in range(n_item_tags[item]):
            for r in range(out.tag.shape[1]):
                if out.tag[i, r] == 0:
                    break
                if out.tag[i, r] == item_tags[item, t]:
                    _add_because(users.recent_item[s], k, out.because[i, r])
                    break


@njit(cache=True)
def _add_because(recent_items, k, because):  # type: ignore[no-untyped-def]
    """Name recent item `k`, unless the same item is named already or there is no place left."""
    for b in range(len(because)):
        if because[b] < 0:
            because[b] = k
            return
        if recent_items[because[b]] == recent_items[k]:
            return
