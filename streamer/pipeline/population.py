"""The population's share of each tag, as kernels read it; and chances of tags in its light."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.model.compiled import leaf
from streamer.model.interests import Scales
from streamer.model.tag_mix import Learned, Work, credit, is_learned_from, look_at, settle
from streamer.pipeline.hashing import lookup


class Population(NamedTuple):
    """Shares at the half-lives of `model.popularity`, and in the catalogue; `keys`, `values`: from tag to row."""

    keys: NDArray[np.uint64]
    values: NDArray[np.int32]
    share: NDArray[np.float64]  # [tags, POPULATION]
    floor: NDArray[np.float64]  # [POPULATION] of what is in no row, as if one event, or one entry, had it


class Mind(NamedTuple):
    """What the share of a tag depends on beside the user's row. `learned` changes as events are folded."""

    population: Population
    scales: Scales
    learned: Learned
    work: Work


@leaf
def shares_of(population, tag, out):  # type: ignore[no-untyped-def]
    """The population's shares of a tag into `out` f64[POPULATION]."""
    row = lookup(population.keys, population.values, tag)
    known = 0 <= row < len(population.share)
    for k in range(len(out)):
        out[k] = population.share[row, k] if known else population.floor[k]


@leaf
def learn_from(mind, event, head, mine, tags, ts):  # type: ignore[no-untyped-def]
    """Learn from an event at `ts` ms with the id `event` and `tags` u64[n], before it is counted for its user.

    `head` HEAD and `mine` TAG[m] are the user's. Only a sample is learned from, and nothing that came late: what the
    user's tags were then is not known any more.
    """
    history = head.clicks + head.purchases
    if history == 0 or len(tags) == 0 or ts < head.as_of or not is_learned_from(mind.learned, event):
        return
    work, smoothing = mind.work, mind.scales.smoothing
    look_at(mine, ts, np.int64(head.clock), history, mind.scales, mind.learned, work)
    for tag in tags:
        shares_of(mind.population, tag, work.prior)
        credit(work, _place(mine, tag), 1 / len(tags), smoothing)
    settle(mind.learned, history, work)


@leaf
def _place(mine, tag):  # type: ignore[no-untyped-def]
    for j in range(len(mine)):
        if mine[j].tag == tag:
            return j
    return -1
