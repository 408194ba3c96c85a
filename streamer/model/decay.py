"""Half-life decay. Pure maths for numba kernels and plain Python alike: callers pass the times, in ms.

Half-lives are above 0; an infinite one never fades. A weight w of time t is worth, at a later time T and with
half-life H,

    w · 2^(-(T - t) / H)

Two ways to keep a decaying sum, and both are here:

Backward: the sum is stored with the time at which it is valid (`ref`). An event after `ref` first ages the sum, then
adds itself and moves `ref`; a late event leaves `ref` alone and adds only what is left of it by then. The sum is the
same, to rounding, whatever the order of arrival:

>>> add(1.0, 1000, 1.0, 1100, 100.0)        # a half of the old one, and the new one
(1.5, 1100)
>>> add(1.0, 1100, 1.0, 1000, 100.0)        # the same two, the other way round
(1.5, 1100)

Forward (Cormode et al. 2009, "Forward decay"): an event adds 2^((t - L) / H), L a fixed landmark, and nothing stored
ever ages; a reader divides by the same expression of its own time, and rankings need not even that. Float64 holds
2^±1022, so a landmark serves 1000 half-lives on either side (19 years at 7 days, but 42 days at 1 hour); beyond,
`forward` stays at the edge. A sum that has to outlive this is kept as a logarithm, which has no such limit:

>>> forward(3000, 1000.0, 1000)
4.0
>>> log2_add(2.0, 2.0)                      # 4 + 4 = 8
3.0
"""

import math

from numba import njit

MAX_EXPONENT = 1000.0  # 2^1000: a sum of 2^20 such terms still fits float64, and so does what divides by it


@njit(cache=True, inline="always")
def decay(age_ms: float, half_life_ms: float) -> float:
    """What is left of 1 after `age_ms`, in [0, 1]. A negative age counts as none; an infinite half-life never fades.

    >>> decay(200, 100.0), decay(-200, 100.0), decay(10**15, math.inf)
    (0.25, 1.0, 1.0)
    """
    return math.exp2(-max(age_ms, 0.0) / half_life_ms)


@njit(cache=True, inline="always")
def advance(weight: float, from_ts: int, to_ts: int, half_life_ms: float) -> float:
    """A weight valid at `from_ts`, as it is worth at `to_ts`. Never grows: a `to_ts` in the past leaves it as it is.

    >>> advance(8.0, 1000, 1300, 100.0), advance(8.0, 1000, 700, 100.0)
    (1.0, 8.0)
    """
    return weight * decay(to_ts - from_ts, half_life_ms)


@njit(cache=True, inline="always")
def add(weight: float, ref_ts: int, amount: float, ts: int, half_life_ms: float) -> tuple[float, int]:
    """Add `amount` of time `ts` to `weight` of time `ref_ts`: the sum, and the later of both times, when it is valid.

    Also merges two sums. Symmetric in its two sides.

    >>> add(4.0, 1200, 2.0, 1000, 100.0)
    (4.5, 1200)
    """
    now = max(ref_ts, ts)
    return advance(weight, ref_ts, now, half_life_ms) + advance(amount, ts, now, half_life_ms), now


@njit(cache=True, inline="always")
def forward(ts_ms: int, half_life_ms: float, landmark_ms: int) -> float:
    """The forward-decay weight of an event: 2^((ts - landmark) / half-life), its exponent held within ±1000.

    >>> forward(10**12, 1.0, 0) == 2.0**1000
    True
    """
    return math.exp2(min(max((ts_ms - landmark_ms) / half_life_ms, -MAX_EXPONENT), MAX_EXPONENT))


@njit(cache=True, inline="always")
def log2_add(a: float, b: float) -> float:
    """The logarithm (base 2) of the sum of two forward weights given by their logarithms; -inf stands for nothing.

    The logarithm of an event's own weight is (ts - landmark) / half-life, plus log2 of its amount.

    >>> round(log2_add(5000.0, 4999.0), 4), log2_add(-math.inf, 7.0)
    (5000.585, 7.0)
    """
    high = max(a, b)
    if high == -math.inf:
        return high
    return high + math.log2(1.0 + 2.0 ** (min(a, b) - high))
