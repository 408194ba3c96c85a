"""Ragged rows of weighted keys against plain dictionaries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.model.ragged import Rows, clear, has_room, put

Key = tuple[int, int]  # row, key


def add(rows: Rows, i: int, key: int, amount: float) -> None:
    while rows.pool.used[0] + 8 * rows.pool.most > len(rows.pool.keys):
        rows.make_room()
    place = put(rows.pool, i, np.uint64(key))
    rows.pool.weights[place] += np.float32(amount)


def contents(rows: Rows, i: int) -> dict[int, float]:
    keys, weights = rows.row(i)
    return dict(zip(keys.tolist(), weights[:, 0].tolist(), strict=True))


def made(n: int, most: int) -> Rows:
    rows = Rows(width=2, most=most)
    rows.reach(n)
    return rows


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 2**64 - 1)), max_size=80))
def test_rows_are_dictionaries_while_they_are_not_full(steps: list[Key]) -> None:
    rows, plain = made(4, most=100), [dict[int, float]() for _ in range(4)]
    for i, key in steps:
        add(rows, i, key, 1.5)
        plain[i][key] = plain[i].get(key, 0) + 1.5
    assert [contents(rows, i) for i in range(4)] == plain


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9)), max_size=200), st.integers(1, 12))
def test_a_full_row_drops_its_weakest_quarter(steps: list[Key], most: int) -> None:
    rows, plain = made(1, most), dict[int, float]()
    for key, amount in steps:
        if key not in plain and len(plain) == most:
            dropped = sorted(plain.values())[: max(most // 4, 1)]
            before = dict(plain)
            add(rows, 0, key, amount)
            kept = contents(rows, 0)
            plain = {k: v for k, v in before.items() if k in kept and k != key} | {key: amount}
            assert sorted(v for k, v in before.items() if k not in plain) == dropped
        else:
            plain[key] = plain.get(key, 0) + amount
            add(rows, 0, key, amount)
        assert contents(rows, 0) == plain


def test_hundreds_of_rows_stay_what_they_are_while_the_pool_grows() -> None:
    rows = made(10, most=64)
    for n in range(30):
        rows.reach(10 * (n + 1))
        for i in range(10 * (n + 1)):
            add(rows, i, 1000 * i + n + 1, i + 1)
    for i in (0, 57, 299):
        assert contents(rows, i) == {1000 * i + n + 1: i + 1 for n in range(i // 10, 30)}


@pytest.mark.parametrize("n", [0, 1, 7, 64, 100])
def test_a_filled_row_has_the_entries_that_fit(n: int) -> None:
    rows = made(1, most=64)
    rows.fill(0, np.arange(1, n + 1, dtype=np.uint64), np.full((n, 2), 2.0, np.float32))
    assert len(contents(rows, 0)) <= 64
    if n <= 64:
        assert contents(rows, 0) == dict.fromkeys(range(1, n + 1), 2.0)


def test_a_row_takes_the_place_of_another() -> None:
    rows = made(3, most=8)
    for i in range(3):
        add(rows, i, i + 1, i + 1)
    rows.move(2, 0)
    assert [contents(rows, i) for i in range(3)] == [{3: 3.0}, {2: 2.0}, {}]
    rows.move(1, 1)
    assert contents(rows, 1) == {}


def test_a_cleared_row_is_empty_and_can_be_used_again() -> None:
    rows = made(1, most=8)
    add(rows, 0, 5, 1)
    clear(rows.pool, 0)
    assert contents(rows, 0) == {}
    add(rows, 0, 6, 1)
    assert contents(rows, 0) == {6: 1.0}


def test_a_pool_at_its_limit_keeps_the_strongest_of_every_row() -> None:
    rows = Rows(width=2, most=64, limit=4096)
    rows.reach(200)
    for i in range(200):
        for key in range(1, 40):
            while not has_room(rows.pool, 1) and rows.make_room():
                pass
            rows.pool.weights[put(rows.pool, i, np.uint64(key))] = key
    assert len(rows.pool.keys) <= 4096
    assert rows.pool.most < 64
    for i in range(200):
        kept = contents(rows, i)
        assert {39: 39.0, 38: 38.0, 37: 37.0}.items() <= kept.items()
        assert all(weight == key for key, weight in kept.items())


def test_a_pool_that_no_pressing_helps_says_so_and_stays_what_it_is() -> None:
    rows = Rows(width=2, most=64, limit=1024)
    rows.reach(5000)
    filled = 0
    while has_room(rows.pool, 1) or rows.make_room():
        rows.pool.weights[put(rows.pool, filled, np.uint64(7))] = 1
        filled += 1
    assert not rows.make_room()
    assert [contents(rows, i) for i in range(filled)] == [{7: 1.0}] * filled
