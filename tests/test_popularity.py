"""Popularity and decay against sums worked out from their definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.model import decay, popularity
from streamer.model.popularity import DAY_MS, HALF_LIVES_MS
from tests.pipeline_world import T0

times = st.lists(st.tuples(st.integers(0, 2), st.integers(T0 - 90 * DAY_MS, T0)), max_size=25)


@given(times, st.integers(0, 10**10))
def test_popularity_is_the_decayed_number_of_events(events: list[tuple[int, int]], later: int) -> None:
    weights, newest, count = np.zeros((3, 3)), np.zeros(3, np.int64), np.zeros(3, np.int64)
    items, ts = (np.array([event[k] for event in events], np.int64) for k in (0, 1))
    popularity.learn(weights, newest, count, items, ts)
    found = popularity.at(weights, newest, T0 + later)
    for i in range(3):
        mine = [t for item, t in events if item == i]
        assert count[i] == len(mine)
        for s, half_life in enumerate(HALF_LIVES_MS):
            assert found[i, s] == pytest.approx(sum(0.5 ** ((T0 + later - t) / half_life) for t in mine), rel=1e-9)


def test_reading_popularity_changes_nothing() -> None:
    weights, newest = np.ones((2, 3)), np.array([T0, T0 - DAY_MS])
    found = popularity.at(weights, newest, T0)
    assert found[:, 0].tolist() == [1.0, 0.5]
    assert weights.tolist() == np.ones((2, 3)).tolist()


def test_what_happened_later_than_a_time_counts_in_full_by_then() -> None:
    assert popularity.at(np.ones((1, 3)), np.array([T0]), T0 - DAY_MS).tolist() == [[1.0] * 3]
    assert decay.fade(-1000, 10.0) == 1.0
