"""Transitions against a plain replay of their equations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.model import transitions
from streamer.model.ragged import Rows
from streamer.model.transitions import BACK, EARLIER_SESSION, HALF_LIFE_MS, MEMORIES, SESSION_GAP_MS, learn, link
from tests.pipeline_world import T0

ITEMS = 6
Signal = tuple[int, int, list[int]]  # item, ts, the items before it, newest first
signals = st.tuples(
    st.integers(0, ITEMS - 1),
    st.integers(T0 - 3 * HALF_LIFE_MS, T0),
    st.lists(st.integers(0, ITEMS - 1), max_size=4),
)
Weights = dict[tuple[int, int], tuple[float, float]]  # of (item, the item before it)


class Learned:
    """In_i of all items; their hashes are 1, 2, …"""

    def __init__(self, *history: Signal) -> None:
        self.rows = Rows(width=2, most=32)
        self.rows.reach(ITEMS)
        self.landmarks = np.zeros(ITEMS, np.int64)
        self.learn(*history)

    def learn(self, *history: Signal) -> None:
        before = np.zeros((len(history), 4), np.uint64)
        for row, (_, _, items) in zip(before, history, strict=True):
            row[: len(items)] = np.array(items, np.int64) + 1
        positives, ts = (np.array([signal[k] for signal in history], np.int64) for k in (0, 1))
        done = 0
        while (
            done := learn(
                self.rows.pool, self.landmarks, positives, np.arange(1, ITEMS + 1, dtype=np.uint64), before, ts, done
            )
        ) < len(history):
            self.rows.make_room()

    def weights(self, now: int) -> Weights:
        """As of a time."""
        out: Weights = {}
        for i in range(ITEMS):
            for key, weights in zip(*self.rows.row(i), strict=True):
                short, long = (weights * 2.0 ** ((self.landmarks[i] - now) / HALF_LIFE_MS)).tolist()
                out[i, int(key) - 1] = (short, long)
        return out


def plain(history: tuple[Signal, ...], now: int) -> Weights:
    out: dict[tuple[int, int], list[float]] = {}
    for i, ts, before in history:
        for age, h in enumerate(before):
            if h != i:
                sums = out.setdefault((i, h), [0.0, 0.0])
                for m in range(2):
                    sums[m] += 2 ** (-age / MEMORIES[m]) * 2 ** ((ts - now) / HALF_LIFE_MS)
    return {pair: (short, long) for pair, (short, long) in out.items()}


def same(found: Weights, expected: Weights) -> bool:
    return found.keys() == expected.keys() and all(
        found[pair] == pytest.approx(expected[pair], rel=1e-4) for pair in expected
    )


@given(st.lists(signals, max_size=30))
def test_learning_is_the_sum_over_all_signals(history: list[Signal]) -> None:
    assert same(Learned(*history).weights(T0), plain(tuple(history), T0))


@given(st.lists(signals, max_size=20), st.randoms())
def test_neither_order_nor_batches_matter(history: list[Signal], random: object) -> None:
    shuffled = list(history)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one_by_one = Learned()
    for signal in shuffled:
        one_by_one.learn(signal)
    assert same(one_by_one.weights(T0), Learned(*history).weights(T0))


def test_years_of_events_do_not_overflow() -> None:
    step = HALF_LIFE_MS // 2
    history = tuple((0, T0 + n * step, [1]) for n in range(400))
    learned = Learned(*history)
    now = T0 + 399 * step
    assert same(learned.weights(now), plain(history, now))
    assert np.isfinite(learned.rows.pool.weights).all()


def test_learning_stops_before_a_row_that_has_no_room() -> None:
    rows = Rows(width=2, most=4)
    rows.reach(100)
    ones = np.arange(1, 101, dtype=np.uint64)
    before = np.tile(np.arange(200, 204, dtype=np.uint64), (100, 1))
    done = learn(rows.pool, np.zeros(100, np.int64), np.arange(100), ones, before, np.full(100, T0), 0)
    assert 0 < done < 100
    assert rows.pool.size[:done].tolist() == [4] * done
    assert not rows.pool.size[done:].any()


# By source


class Linked:
    """C by source, from models that were applied one after another."""

    def __init__(self) -> None:
        self.rows = Rows(width=4, most=32)
        self.rows.reach(ITEMS)

    def apply(self, i: int, before: dict[int, tuple[float, float]]) -> None:
        weights = np.array(list(before.values()), np.float32).reshape(-1, 2)
        while not link(self.rows.pool, i, np.array(list(before), np.int32), weights):
            self.rows.make_room()

    def steps(self, m: int) -> NDArray[np.float64]:
        """C f64[h, j]."""
        out = np.zeros((ITEMS, ITEMS))
        for h in range(ITEMS):
            for key, w in zip(*self.rows.row(h), strict=True):
                out[h, int(key) - 1] = w[m] + BACK[m] * w[2 + m]
        return out


models = st.tuples(
    st.integers(0, ITEMS - 1),
    st.dictionaries(
        st.integers(-1, ITEMS - 1), st.tuples(st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([2.0, 4.0]))
    ),
)


@given(st.lists(models, max_size=20))
def test_the_latest_model_of_every_item_counts_in_both_directions(
    applied: list[tuple[int, dict[int, tuple[float, float]]]],
) -> None:
    linked, latest = Linked(), dict[int, dict[int, tuple[float, float]]]()
    for i, before in applied:
        linked.apply(i, before)
        latest[i] = before
    for m in range(2):
        expected = np.zeros((ITEMS, ITEMS))
        for i, before in latest.items():
            for h, weights in before.items():
                if h >= 0 and h != i:
                    expected[h, i] += weights[m]
                    expected[i, h] += BACK[m] * weights[m]
        np.testing.assert_allclose(linked.steps(m), expected, rtol=1e-6)


def test_items_of_earlier_sessions_count_less_on_the_long_memory() -> None:
    minute = 60_000
    ages = [0, 10 * minute, 10 * minute + SESSION_GAP_MS, 11 * minute + SESSION_GAP_MS, 12 * minute + SESSION_GAP_MS]
    found = transitions.strengths(np.array([T0 - age for age in ages]), T0)
    for m in range(2):
        plain = [2 ** (-age / MEMORIES[m]) for age in range(5)]
        assert found[:2, m].tolist() == pytest.approx(plain[:2])
    gap = transitions.strengths(np.array([T0, T0 - SESSION_GAP_MS - 1, T0 - SESSION_GAP_MS - 2]), T0)
    for m in range(2):
        plain = [2 ** (-age / MEMORIES[m]) * (1 if age == 0 else EARLIER_SESSION[m]) for age in range(3)]
        assert gap[:, m].tolist() == pytest.approx(plain)
    assert transitions.strengths(np.zeros(0, np.int64), T0).shape == (0, 2)


@given(st.lists(models, max_size=12), st.lists(st.integers(-1, ITEMS - 1), max_size=5))
def test_spreading_is_the_sum_over_the_users_items(
    applied: list[tuple[int, dict[int, tuple[float, float]]]], items: list[int]
) -> None:
    linked = Linked()
    for i, before in applied:
        linked.apply(i, before)
    rng = np.random.default_rng(7)
    fade, by_source, by_destination = rng.uniform(0.1, 1, (3, ITEMS)).astype(np.float32)
    strength = rng.uniform(0.1, 1, (len(items), 2))
    scores, touched = np.zeros((ITEMS, 2)), np.zeros(ITEMS, np.int64)
    n = transitions.spread(
        linked.rows.pool, np.array(items, np.int64), strength, fade, by_source, by_destination, scores, touched, 0
    )
    expected = np.zeros((ITEMS, 2))
    for age, h in enumerate(items):
        for key, w in zip(*linked.rows.row(h), strict=True) if h >= 0 else ():
            j = int(key) - 1
            for m in range(2):
                step = w[m] * fade[j] + BACK[m] * w[2 + m] * fade[h]
                expected[j, m] += strength[age, m] * by_source[h] * step * by_destination[j]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert sorted(touched[:n].tolist()) == np.flatnonzero(expected[:, 1]).tolist()
