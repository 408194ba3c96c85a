"""Half-life decay. Pure maths: callers pass the times.

A sum of weights that fade by half in H, x(t) = Σ_e w_e · 2^(-(t - ts_e)/H), is kept as its value at the newest event's
time. What comes is added by bringing the older of the two to the time of the newer, so that the order does not matter.
"""

from numba import njit


@njit(cache=True)
def fade(age_ms, half_life_ms):  # type: ignore[no-untyped-def]
    """What is left of a weight of 1 after `age_ms`; before its own time a weight counts in full.

    >>> fade(20.0, 10.0), fade(-5.0, 10.0)
    (0.25, 1.0)
    """
    return 2.0 ** (-max(age_ms, 0) / half_life_ms)


@njit(cache=True)
def add(total, newest, ts, amount, half_life_ms):  # type: ignore[no-untyped-def]
    """`total` as of `newest` with `amount` of `ts` added, as of the newer of both times.

    >>> add(4.0, 0, 10, 1.0, 10.0), add(4.0, 10, 0, 1.0, 10.0)
    (3.0, 4.5)
    """
    return total * fade(ts - newest, half_life_ms) + amount * fade(newest - ts, half_life_ms)
