"""The mix of scales behind an interest's share: how likely a tag of the user's next event is this one.

    P(t) = Σ_s w_s · (x_s[t] + m·P0[t]) / (N_s + m)  +  Σ_k w_k · P_k[t]        N_s = Σ_t x_s[t]

s runs over five of the user's scales (`model.interests`), k over the population's shares at 1, 7 and 30 days and the
catalogue's, which knows tags that nobody took yet; P0 is that of 30 days and m the smoothing. The weights w sum to 1,
are shared by users with about as many events (1, 2–3, 4–7, …), and are learned before an event is counted, by
expectation maximisation one event at a time (Cappé and Moulines 2009):

    credit_m += (share of P(t) that comes from m), averaged over the event's tags t
    w_m = (credit_m of the bucket + PRIOR · w_m of all users) / (Σ_m credit_m of the bucket + PRIOR)

When credits sum up to WINDOW they are halved: what was learned is forgotten at that pace. From the first WARM_UP events
all are learned from, later one in SAMPLE: every one brings .003 of NLL on either set.

A worked number: weights .5 for one scale of a user and .5 for the population, m 0, of the user's weight a quarter on t,
P_k[t] = .05: P(t) = .5·.25 + .5·.05 = .15, and an event with this one tag credits the scale with .125 / .15 = .83.

NLL of the next event's tags, Online Retail / REES46 (all events of users with an earlier one): the population alone
6.07 / 5.14, lifetime counts with learned weights 5.76 / 2.86, 1 day and 30 days 5.72 / 2.58, with EVER 5.70 / 2.58,
with 3 events 5.70 / 2.53; ten scales 5.70 / 2.53 (weights fitted afterwards). The catalogue's shares bring .002 / .09,
that events weigh alike however many tags they have .013 / .04. A tag-to-tag expert (what others went on to) would bring
.015 / .10, for a matrix of all tags: not taken.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.model.compiled import leaf
from streamer.model.history import BUCKETS, bucket
from streamer.model.interests import (
    EVER,
    LONG,
    LONG_EVENTS,
    MAIN,
    RECENT,
    SHORT,
    SHORT_EVENTS,
    fade,
)

OWN: Final = 5  # scales of the user: RECENT, MAIN, SHORT, LONG, EVER
POPULATION: Final = 4  # shares by popularity at three half-lives, and in the catalogue
LONGEST: Final = 2  # P0 among them
EXPERTS: Final = OWN + POPULATION
PRIOR: Final = 30.0  # events: a bucket goes by all users until it has about as many; 10 to 100 are alike
WINDOW: Final = 4000.0  # events; 1,000 to 20,000 are alike
WARM_UP: Final = 2000
SAMPLE: Final = 8
START: Final = 20.0  # events that the first weights count as: half to the user, half to the population


class Learned(NamedTuple):
    """Credits of the experts."""

    shared: NDArray[np.float64]  # [EXPERTS]
    own: NDArray[np.float64]  # [BUCKETS, EXPERTS]
    events: NDArray[np.int64]  # [1] learned from


class Work(NamedTuple):
    """Room for one user at a time."""

    faded: NDArray[np.float64]  # [tags, OWN] weights at the moment of asking
    total: NDArray[np.float64]  # [OWN] their sums over all tags
    factor: NDArray[np.float64]  # [EXPERTS] weights, those of the user's scales by what they are divided by
    prior: NDArray[np.float64]  # [POPULATION] of the tag at hand
    credit: NDArray[np.float64]  # [EXPERTS]


def new_learned() -> Learned:
    """Nothing is learned: half of the weight to the user's scales."""
    shared = np.repeat([0.5 / OWN, 0.5 / POPULATION], [OWN, POPULATION]) * START
    return Learned(shared, np.zeros((BUCKETS, EXPERTS)), np.zeros(1, np.int64))


def new_work(tags: int) -> Work:
    """Room for users with so many tags."""
    return Work(np.zeros((tags, OWN)), np.zeros(OWN), np.zeros(EXPERTS), np.zeros(POPULATION), np.zeros(EXPERTS))


@leaf
def look_at(tags, now, at, history, scales, learned, work):  # type: ignore[no-untyped-def]
    """Get ready to tell the chances of a user's tags: TAG[n] at a time in ms and a number of events, into `work`.

    `history` is how many events the user had. Changes nothing else.
    """
    work.total[:] = 0
    for j in range(len(tags)):
        _fade(tags[j], now, at, scales, work.faded[j])
        for s in range(OWN):
            work.total[s] += work.faded[j, s]
    _weigh(learned, history, work.factor)
    for s in range(OWN):
        work.factor[s] /= max(work.total[s] + scales.smoothing, 1e-30)


@leaf
def _weigh(learned, history, out):  # type: ignore[no-untyped-def]
    mine, everybody = learned.own[bucket(history)], learned.shared
    sum_mine, sum_everybody = 0.0, 0.0
    for m in range(EXPERTS):
        sum_mine += mine[m]
        sum_everybody += everybody[m]
    for m in range(EXPERTS):
        out[m] = (mine[m] + PRIOR * everybody[m] / sum_everybody) / (sum_mine + PRIOR)


@leaf
def _fade(entry, now, at, scales, out):  # type: ignore[no-untyped-def]
    age, steps = max(now - entry.ts, 0), max(at - np.int64(entry.at), 0)
    out[0] = entry.weight[RECENT] * fade(age, scales.recent_half_life_ms)
    out[1] = entry.weight[MAIN] * fade(age, scales.half_life_ms)
    out[2] = entry.weight[SHORT] * fade(steps, SHORT_EVENTS)
    out[3] = entry.weight[LONG] * fade(steps, LONG_EVENTS)
    out[4] = entry.weight[EVER]


@leaf
def part_of(work, j, expert, smoothing):  # type: ignore[no-untyped-def]
    """What an expert adds to P of tag `j` (-1: none of the user's); `work.prior` has the population's shares."""
    if expert >= OWN:
        return work.factor[expert] * work.prior[expert - OWN]
    weight = work.faded[j, expert] if j >= 0 else 0.0
    return work.factor[expert] * (weight + smoothing * work.prior[LONGEST])


@leaf
def chance(work, j, smoothing):  # type: ignore[no-untyped-def]
    """P of tag `j`, or of no tag of the user's (-1); `work.prior` has the population's shares."""
    p = 0.0
    for m in range(EXPERTS):
        p += part_of(work, j, m, smoothing)
    return p


@leaf
def recent_share(work, j, smoothing):  # type: ignore[no-untyped-def]
    """P of tag `j` if of the user's scales only the shortest time counted: above `chance` for what is growing."""
    alone = (work.faded[j, 0] + smoothing * work.prior[LONGEST]) / max(work.total[0] + smoothing, 1e-30)
    p, own = 0.0, 1.0
    for k in range(POPULATION):
        p += work.factor[OWN + k] * work.prior[k]
        own -= work.factor[OWN + k]
    return p + own * alone


@leaf
def is_learned_from(learned, event):  # type: ignore[no-untyped-def]
    """Whether an event, by the hash of its id, is one of the sample."""
    return learned.events[0] < WARM_UP or event % np.uint64(SAMPLE) == 0


@leaf
def credit(work, j, part, smoothing):  # type: ignore[no-untyped-def]
    """The event has tag `j` of the user's (-1: a new one) with the shares in `work.prior`; `part` is 1 / its tags."""
    p = max(chance(work, j, smoothing), 1e-30)
    for m in range(EXPERTS):
        work.credit[m] += part * part_of(work, j, m, smoothing) / p


@leaf
def settle(learned, history, work):  # type: ignore[no-untyped-def]
    """The event is done: its credits are learned."""
    _count(learned.shared, work.credit)
    _count(learned.own[bucket(history)], work.credit)
    learned.events[0] += 1
    work.credit[:] = 0


@leaf
def _count(sums, added):  # type: ignore[no-untyped-def]
    total = 0.0
    for m in range(EXPERTS):
        sums[m] += added[m]
        total += sums[m]
    if total > WINDOW:
        for m in range(EXPERTS):
            sums[m] /= 2
