"""Decay: the same sum whatever the order, and never more than came in."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from streamer.model.decay import add, advance, decay, forward, log2_add

compiles = settings(deadline=None)  # a kernel's first call compiles it
times = st.integers(0, 4_000_000_000_000)
near = st.integers(0, 10_000_000)
weights = st.floats(0, 1e6)
half_lives = st.floats(1e3, 1e11)


@pytest.mark.parametrize(
    ("age_ms", "left"), [(0, 1.0), (100, 0.5), (300, 0.125), (-1, 1.0), (-(10**15), 1.0), (10**15, 0.0)]
)
def test_half_is_left_after_each_half_life(age_ms: int, left: float) -> None:
    assert decay(age_ms, 100.0) == left


def test_an_infinite_half_life_never_fades() -> None:
    assert decay(4_000_000_000_000, math.inf) == 1.0


@compiles
@given(weights, times, times, half_lives)
def test_no_move_in_time_raises_a_weight(weight: float, start: int, end: int, half_life: float) -> None:
    assert 0 <= advance(weight, start, end, half_life) <= weight


@compiles
@given(weights, near, near, near, half_lives)
def test_two_moves_are_as_one(weight: float, start: int, first: int, second: int, half_life: float) -> None:
    middle, end = start + first, start + first + second
    two = advance(advance(weight, start, middle, half_life), middle, end, half_life)
    assert two == pytest.approx(advance(weight, start, end, half_life), rel=1e-9, abs=1e-300)


@compiles
@given(weights, times, weights, times, half_lives)
def test_a_late_event_adds_no_more_than_itself_and_leaves_the_time(
    weight: float, ref: int, amount: float, lateness: int, half_life: float
) -> None:
    total, now = add(weight, ref, amount, ref - lateness, half_life)
    assert now == ref
    assert weight <= total <= weight + amount


@compiles
@given(weights, times, weights, times, half_lives)
def test_adding_does_not_care_which_side_came_first(a: float, ts_a: int, b: float, ts_b: int, half_life: float) -> None:
    assert add(a, ts_a, b, ts_b, half_life) == add(b, ts_b, a, ts_a, half_life)


@compiles
@given(st.lists(st.tuples(near, st.floats(0.01, 100)), min_size=1, max_size=20), st.randoms(), half_lives)
def test_any_order_of_arrival_gives_the_sum_of_the_definition(
    events: list[tuple[int, float]], random: object, half_life: float
) -> None:
    last = max(ts for ts, _ in events)
    expected = math.fsum(amount * 2 ** (-(last - ts) / half_life) for ts, amount in events)
    random.shuffle(events)  # type: ignore[attr-defined]
    total, ref = 0.0, 0
    for ts, amount in events:
        total, ref = add(total, ref, amount, ts, half_life)
    assert ref == last
    assert total == pytest.approx(expected, rel=1e-9)


@compiles
@given(near, near, near, st.floats(1e5, 1e11))
def test_forward_weights_are_backward_weights_times_a_constant(
    ts: int, later: int, mark: int, half_life: float
) -> None:
    ratio = forward(ts, half_life, mark) / forward(ts + later, half_life, mark)
    assert ratio == pytest.approx(decay(later, half_life), rel=1e-9)


@compiles
@given(times, times, st.floats(1e-3, 1e12))
def test_forward_weights_stay_within_float64(ts: int, mark: int, half_life: float) -> None:
    weight = forward(ts, half_life, mark)
    assert 0 < weight < math.inf
    assert 0 < weight * 2**20 < math.inf


@compiles
@given(st.floats(-900, 900), st.floats(-900, 900))
def test_logarithms_add_as_the_numbers_do(a: float, b: float) -> None:
    assert log2_add(a, b) == pytest.approx(math.log2(2**a + 2**b), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "total"), [(-math.inf, -math.inf, -math.inf), (1e9, -math.inf, 1e9), (1e9, 1e9, 1e9 + 1)]
)
def test_logarithms_add_far_beyond_float64_and_from_nothing(a: float, b: float, total: float) -> None:
    assert log2_add(a, b) == total


def test_kernels_may_call_all_of_it() -> None:
    @njit
    def kernel(ts):  # type: ignore[no-untyped-def]
        total, ref = 0.0, ts[0]
        for t in ts:
            total, ref = add(total, ref, 1.0, t, 100.0)
        return advance(total, ref, ref + 100, 100.0), log2_add(forward(ref, 100.0, ts[0]), 4.0), decay(-5, 1.0)

    assert kernel(np.array([1000, 1200, 1100])) == (0.875, 5.0, 1.0)
