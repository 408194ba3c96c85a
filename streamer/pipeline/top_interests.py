"""Top interests: the strongest tags of users, in order, with all that a profile says of each. Read in bulk."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.model.compiled import leaf
from streamer.model.interests import EVENTS, MAIN, fade
from streamer.pipeline.catalogue import Catalogue
from streamer.pipeline.gate import Assessed
from streamer.pipeline.hashing import lookup
from streamer.pipeline.layout import N_RECENT, Users, place

BECAUSE: Final = 3  # items named behind an interest: enough for a sentence


class TopInterests(NamedTuple):
    """The first `k` interests of n users, strongest first. Places beyond a user's last are 0, in `because` -1."""

    tag: NDArray[np.uint64]  # [n, k]
    last_ts: NDArray[np.int64]  # [n, k]
    numbers: NDArray[np.float64]  # [n, k, 5] weight, share, recent, lift, events
    because: NDArray[np.int64]  # [n, k, BECAUSE] places of recent items; -1: none


class Tagged(NamedTuple):
    """Which tags items have. `keys`, `values`: from an item's hash to its row."""

    keys: NDArray[np.uint64]
    values: NDArray[np.int32]
    tags: NDArray[np.uint64]  # [items, …] hashes
    counts: NDArray[np.int64]  # [items]


def top_interests(
    users: Users, slots: NDArray[np.int64], assessed: Assessed, catalogue: Catalogue, half_life_ms: float, most: int
) -> TopInterests:
    """The first `most` interests of each user; weights fade with the half-life. Changes nothing."""
    out = blank(len(slots), most)
    read_top(users, slots, assessed, tagged(catalogue), half_life_ms, np.empty(most, np.int64), out)
    return out


def blank(n: int, most: int) -> TopInterests:
    """Of n users none has any interest yet."""
    return TopInterests(
        tag=np.zeros((n, most), np.uint64),
        last_ts=np.zeros((n, most), np.int64),
        numbers=np.zeros((n, most, 5)),
        because=np.full((n, most, BECAUSE), -1),
    )


def tagged(catalogue: Catalogue) -> Tagged:
    """The items as they are now."""
    return Tagged(catalogue.table.keys, catalogue.table.values, catalogue.tags, catalogue.n_tags)


@leaf
def read_top(users, slots, assessed, items, half_life_ms, order, out):  # type: ignore[no-untyped-def]
    """`top_interests` into a blank one; `order` i64[k] is room to sort in."""
    for i in range(len(slots)):
        s = slots[i]
        shown = _strongest_first(assessed.share[assessed.at[i] : assessed.at[i + 1]], order)
        _read_numbers(users, s, half_life_ms, assessed, order[:shown], out, i)
        first, n = place(users, s, N_RECENT), np.int64(users.head[s].counts[N_RECENT])
        _find_because(users.recents[first : first + n], items, out.tag[i], out.because[i])


@leaf
def _strongest_first(share, order):  # type: ignore[no-untyped-def]
    """Places by falling share into `order`, as many as fit; of equals the earlier place first. Returns how many."""
    n = 0
    for j in range(len(share)):
        k = n
        while k > 0 and share[order[k - 1]] < share[j]:
            k -= 1
        if k == len(order):
            continue
        n = min(n + 1, len(order))
        for later in range(n - 1, k, -1):
            order[later] = order[later - 1]
        order[k] = j
    return n


@leaf
def _read_numbers(users, s, half_life_ms, assessed, order, out, i):  # type: ignore[no-untyped-def]
    now, first = users.head[s].as_of, assessed.at[i]
    for r in range(len(order)):
        j = order[r]
        entry = users.tags[users.block[s] + j]
        left = fade(now - entry.ts, half_life_ms)
        out.tag[i, r] = entry.tag
        out.last_ts[i, r] = entry.ts
        out.numbers[i, r, 0] = entry.weight[MAIN] * left
        out.numbers[i, r, 1] = assessed.share[first + j]
        out.numbers[i, r, 2] = assessed.recent[first + j]
        out.numbers[i, r, 3] = assessed.share[first + j] / assessed.prior[first + j]
        out.numbers[i, r, 4] = entry.weight[EVENTS] * left


@leaf
def _find_because(recents, items, tags, because):  # type: ignore[no-untyped-def]
    """Recent items that carry an interest's tag, newest first."""
    for k in range(len(recents)):
        item = lookup(items.keys, items.values, recents[k].item)
        if item < 0:
            continue
        for t in range(items.counts[item]):
            for r in range(len(tags)):
                if tags[r] == 0:
                    break
                if tags[r] == items.tags[item, t]:
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
