"""The mix: how much each expert's evidence counts, learned from what users really take, one event at a time.

    u_j = Σ_m θ_m · x_jm,  P(j) = exp(u_j) / Σ_k exp(u_k)      θ_m = max(shared_m + own_m of the user's bucket, 0)

x is the evidence of `model.experts`, the sum runs over all items: those of which no expert says anything (`outside`
says how many) are in it with the evidence of silence. Buckets are by length of history: 1, 2–3, 4–7, …
This is the conditional logit (McFadden 1974), learned before the event is by a Newton step on log P of the item i that
was taken:

    gradient = x_i - Σ_j P(j)·x_j,   F = Σ_j P(j)·x_j·x_jᵀ - (Σ_j P(j)·x_j)(…)ᵀ
    shared += A⁻¹ · gradient,        A += F - (A - PRIOR·I) / MEMORY,    A = PRIOR·I at first

and the bucket's own part likewise with OWN_PRIOR, so that a bucket without events goes by what is true of all. A is the
Fisher information of what was learned so far (online Newton, an extended Kalman filter with fading memory): steps are
long while little is known and where evidence tells much, and experts that say the same share one step.

Measured over the first 20,000 events of Online Retail / all of REES46 / 9,000 steps of people around a ring of items,
each event scored and one in eight learned; HR@20 of the first 5,000, and of all:

    AdaGrad at .2 (shared) and .1 (own), all weights .3 at first    .165 .194 / .208 .212 / .785 .857
    Newton step, all weights .3 at first                            .165 .195 / .207 .215 / .803 .866
      the first 256 tests learned from every event                  .168 .196 / .208 .215 / .809 .870
      and the start of `pipeline.mixer`                             .169 .196 / .210 .216 / .808 .869
    AdaGrad over every event, three passes before                   .168 .196 / .209 .215 / .808 .869

So what is won is won early: over 60,000 events of Online Retail it is .2146 and .2152.

PRIOR 3 to 30 and OWN_PRIOR 50 to 300 differ by .003; MEMORY 300 to ∞ by .001.

Why not a weighted sum of the experts' probabilities with exponentiated gradient: Online Retail (first 120,000, every
32nd scored) / REES46, HR@20: .201 / .209 with weights learned, .219 / .206 with scores squared by hand first, against
.222 / .208 with θ, which is the sharpness itself, so that nothing is set by hand.

A worked number: one expert, evidence 1 for the item taken and 0 for one other, θ .3: P = e^.3 / (e^.3 + 1) = .574; the
gradient is 1 - .574 = .426, F = .574 · .426 = .245, and the shared weight becomes .3 + .426 / (10 + .245) = .342.
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.model.linear import add_outer, factor, solve

BUCKETS: Final = 12
PRIOR: Final = 10.0  # what the start is worth, in Fisher information: that of some 20 events
OWN_PRIOR: Final = 50.0  # and that a bucket is like all others
MEMORY: Final = 1000.0  # learned events


class Mix(NamedTuple):
    """Weights and what they rest on; row 0 is shared by all users, row 1 + b is what bucket b adds."""

    weights: NDArray[np.float64]  # [1 + BUCKETS, experts]
    information: NDArray[np.float64]  # [1 + BUCKETS, experts, experts] A: its lower half


def new_mix(start: NDArray[np.float64]) -> Mix:
    """Nothing learned yet: `start` f64[b, experts] for the first b buckets, the last of it for all longer histories."""
    weights = np.empty((1 + BUCKETS, start.shape[1]))
    weights[0] = start.mean(axis=0)
    weights[1:] = start[np.minimum(np.arange(BUCKETS), len(start) - 1)] - weights[0]
    priors = np.full(1 + BUCKETS, OWN_PRIOR)
    priors[0] = PRIOR
    return Mix(weights, priors[:, None, None] * np.eye(start.shape[1]))


@njit(cache=True)
def bucket(history):  # type: ignore[no-untyped-def]
    """The bucket of a user with so many events: floor(log2)."""
    b = 0
    while history > 1 and b < BUCKETS - 1:
        history //= 2
        b += 1
    return b


@njit(cache=True)
def weights_for(mix, history):  # type: ignore[no-untyped-def]
    """θ f64[experts] for a user with so many events."""
    return np.maximum(mix.weights[0] + mix.weights[1 + bucket(history)], 0.0)


@njit(cache=True)
def utilities(evidence, weights):  # type: ignore[no-untyped-def]
    """u f64[c] of candidates from their evidence f32[c, experts]."""
    out = np.zeros(len(evidence))
    for c in range(len(evidence)):
        for m in range(len(weights)):
            out[c] += weights[m] * evidence[c, m]
    return out


@njit(cache=True)
def chances(evidence, weights, silence, outside):  # type: ignore[no-untyped-def]
    """P f64[c + 1] of the candidates, and last of any one of the `outside` items, which have the evidence `silence`.

    They sum to 1 with the last taken `outside` times. Cost: 15 ns a candidate.
    """
    p = np.empty(len(evidence) + 1)
    p[:-1] = utilities(evidence, weights)
    p[-1] = (weights * silence).sum()
    p = np.exp(p - p.max())
    return p / (p[:-1].sum() + outside * p[-1])


@njit(cache=True)
def learn(mix, history, evidence, taken, silence, outside):  # type: ignore[no-untyped-def]
    """Learn that of the candidates with `evidence` f32[c, experts] number `taken` was, -1 one of those outside.

    By a user with `history` events; returns `chances` before. Changes `mix` in place. Cost: 60 ns a candidate.
    """
    p = chances(evidence, weights_for(mix, history), silence, outside)
    mean, fisher = _moments(evidence, p, silence, outside)
    gradient = (evidence[taken].astype(np.float64) if taken >= 0 else silence) - mean
    _step(mix.weights[0], mix.information[0], gradient, fisher, PRIOR)
    np.maximum(mix.weights[0], 0.0, mix.weights[0])
    own = 1 + bucket(history)
    _step(mix.weights[own], mix.information[own], gradient, fisher, OWN_PRIOR)
    return p


@njit(cache=True)
def _moments(evidence, p, silence, outside):  # type: ignore[no-untyped-def]
    """Mean f64[experts] and covariance, its lower half, of the evidence under `p` as `chances` returns it."""
    mean = outside * p[-1] * silence
    fisher = np.zeros((len(silence), len(silence)))
    add_outer(fisher, silence, outside * p[-1])
    for c in range(len(evidence)):
        for m in range(len(silence)):
            mean[m] += p[c] * evidence[c, m]
        add_outer(fisher, evidence[c], p[c])
    add_outer(fisher, mean, -1.0)
    return mean, fisher


@njit(cache=True)
def _step(weights, information, gradient, fisher, prior):  # type: ignore[no-untyped-def]
    information *= 1 - 1 / MEMORY
    information += fisher
    for m in range(len(weights)):
        information[m, m] += prior / MEMORY
    lower, step = information.copy(), gradient.copy()
    factor(lower, prior)
    solve(lower, step)
    weights += step
