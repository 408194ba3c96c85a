"""The plane of tags, held against plain Python and against planes that are known."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.model import tag_map

SHELVES = np.kron(np.eye(3), np.ones((4, 2)))  # 12 users, 6 tags: each user has both tags of one shelf


def apart(places: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([[math.dist(a, b) for b in places] for a in places])


def shares_of(rows: list[list[int]]) -> NDArray[np.float64]:
    return np.array(rows, np.float64) / 10


TABLES = st.integers(1, 6).flatmap(
    lambda tags: st.lists(st.lists(st.integers(0, 9), min_size=tags, max_size=tags), min_size=1, max_size=8)
)


@given(TABLES)
def test_cosines_are_those_of_plain_python(rows: list[list[int]]) -> None:
    shares = shares_of(rows)
    found = tag_map.cosines(shares)
    for a, one in enumerate(shares.T.tolist()):
        for b, other in enumerate(shares.T.tolist()):
            norms = math.hypot(*one) * math.hypot(*other)
            dot = sum(x * y for x, y in zip(one, other, strict=True))
            expected = 1.0 if a == b else dot / norms if norms else 0.0
            assert found[a, b] == pytest.approx(expected, abs=1e-9)


@given(TABLES)
def test_map_is_finite_fits_and_is_the_same_each_time(rows: list[list[int]]) -> None:
    alike = tag_map.cosines(shares_of(rows))
    places = tag_map.lay_out(alike)
    assert places.shape == (len(alike), 2)
    assert np.abs(places).max(initial=0) <= 1
    assert np.array_equal(places, tag_map.lay_out(alike))


def test_places_in_a_plane_are_found_again_from_their_distances() -> None:
    truth = np.random.default_rng(1).normal(size=(9, 2))
    assert apart(tag_map.classical(apart(truth))) == pytest.approx(apart(truth))


def test_each_step_lowers_the_stress() -> None:
    rng = np.random.default_rng(2)
    alike = tag_map.cosines(rng.random((30, 12)) ** 4)
    distances = np.sqrt(2 * (1 - alike))
    places = tag_map.classical(distances)
    falls = [tag_map.stress(places, distances)]
    for _ in range(20):
        places = tag_map.settle(places, distances)
        falls.append(tag_map.stress(places, distances))
    assert all(after <= before + 1e-9 for before, after in pairwise(falls))
    assert falls[-1] < 0.8 * falls[0]


def test_tags_of_the_same_people_lie_closer_than_others() -> None:
    between = apart(tag_map.lay_out(tag_map.cosines(SHELVES)))
    same = np.kron(np.eye(3), np.ones((2, 2))) > 0
    assert between[same].max() < 0.1 * between[~same].min()


def test_users_stand_at_the_mean_of_their_tags_by_share() -> None:
    places = np.array([[1.0, 0.0], [0.0, 1.0]])
    shares = np.array([[0.3, 0.1], [0.0, 0.0]])
    assert tag_map.means(shares, places) == pytest.approx(np.array([[0.75, 0.25], [0, 0]]))


def test_map_that_was_turned_is_turned_back() -> None:
    before = np.random.default_rng(3).normal(size=(7, 2))
    mirrored = before @ np.array([[0.6, 0.8], [0.8, -0.6]])
    assert mirrored @ tag_map.turn(mirrored, before) == pytest.approx(before)
