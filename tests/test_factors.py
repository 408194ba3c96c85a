"""The factor model against plain replays of its equations, and what it promises for any input."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from streamer.model.factors import (
    C0,
    MAX_WEIGHT,
    REG,
    Learning,
    fold_in_many,
    gram,
    initial_vector,
    learn,
    recency_weights,
    whitening,
)

Floats = NDArray[np.float32]
any_float = st.floats(width=32)
compiles = settings(deadline=None)  # a kernel's first call compiles it
MASK = 2**64 - 1
K = 8


def unit_rows(n: int, k: int = K, seed: int = 0) -> Floats:
    rows = np.random.default_rng(seed).normal(size=(n, k))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Signals:
    """Random signals of an owner of every second item."""

    def __init__(self, seed: int, n: int = 30, items: int = 24, k: int = K) -> None:
        rng = np.random.default_rng(seed)
        self.shared = unit_rows(items, k, seed)
        self.own_slots = np.arange(0, items, 2, dtype=np.int32)
        self.vectors = self.shared[self.own_slots].copy()
        self.positives = rng.integers(-1, len(self.own_slots) + 1, n).astype(np.int32)
        self.predecessors = rng.integers(-2, items + 2, (n, 6)).astype(np.int32)
        self.weights = rng.choice([0.5, 1.0, 3.0, 9.0, 0.0], n).astype(np.float32)
        self.whitener = whitening(gram(self.shared), C0, REG)

    def learn(self, seed: int = 1, first: int = 0, params: Learning = Learning(), cut: slice = slice(None)) -> int:  # noqa: B008
        return learn(
            self.vectors,
            self.own_slots,
            self.positives[cut],
            self.predecessors[cut],
            self.weights[cut],
            self.shared,
            self.whitener,
            seed,
            first,
            params,
        )


def fold_in(vectors: Floats, weights: Floats, gram_matrix: NDArray[np.float64], c0: float, reg: float) -> Floats:
    """One user, who has all the vectors."""
    slots = np.arange(len(vectors), dtype=np.int32)
    return fold_in_many(vectors, slots, np.array([0, len(slots)]), weights, gram_matrix, c0, reg)[0]


# The same in plain Python


def mix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def plain_signs(key: int, k: int) -> NDArray[np.float64]:
    return np.array([1.0 if mix(key + d // 64 * 64 & MASK) >> d % 64 & 1 else -1.0 for d in range(k)])


def plain_start(tags: list[int], item: int, k: int) -> NDArray[np.float64]:
    total = sum((plain_signs(tag, k) for tag in tags), np.zeros(k)) / math.sqrt(max(len(tags), 1))
    total += 0.1 * plain_signs(item, k)
    return total / np.linalg.norm(total)


def plain_fold_in(vectors: Floats, weights: Floats, gram_matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    q = vectors.astype(np.float64)
    system = C0 * gram_matrix + REG * np.eye(q.shape[1]) + q.T @ np.diag(weights - C0) @ q
    return np.linalg.solve(system, q.T @ weights)


def plain_learn(signals: Signals, seed: int, first: int, params: Learning) -> NDArray[np.float64]:
    vectors = signals.vectors.astype(np.float64)
    for s, i in enumerate(signals.positives):
        before, weight = signals.predecessors[s].tolist(), min(float(signals.weights[s]), MAX_WEIGHT)
        if not (0 <= i < len(vectors) and weight > 0):
            continue
        known = [h for h in before if 0 <= h < len(signals.shared) and h != signals.own_slots[i]]
        p = signals.whitener @ sum(
            ((1 + 4 * 2 ** (-age / 3)) * signals.shared[h].astype(np.float64) for age, h in enumerate(known)),
            np.zeros(K),
        )
        if not known:
            continue
        p /= np.linalg.norm(p)
        for draw in range(params.negatives):
            j = (mix((mix(seed ^ mix(first + s)) + draw) & MASK) >> 1) % len(vectors)
            if j == i or signals.own_slots[j] in before:
                continue
            gain = 1 / (1 + math.exp(p @ (vectors[i] - vectors[j])))
            step = params.rate * weight
            vectors[i] += step * (gain * p - params.reg * vectors[i])
            vectors[j] += step * (-gain * p - params.reg * vectors[j])
    return vectors


# The start


@compiles
@given(st.lists(st.integers(0, MASK), max_size=12), st.integers(0, MASK), st.sampled_from([4, 32, 100]))
def test_start_is_the_signed_projection_of_the_tags(tags: list[int], item: int, k: int) -> None:
    start = initial_vector(np.array(tags, np.uint64), np.uint64(item), k)
    assert start.dtype == np.float32
    np.testing.assert_allclose(start, plain_start(tags, item, k), atol=1e-6)
    assert np.linalg.norm(start) == pytest.approx(1, abs=1e-5)


def test_items_with_the_same_tags_start_close_and_others_apart() -> None:
    tags = np.arange(1, 5, dtype=np.uint64)
    same = [initial_vector(tags, item, 32) for item in range(100)]
    other = [initial_vector(tags + np.uint64(10 * item), item, 32) for item in range(1, 101)]
    assert min(float(same[0] @ v) for v in same) > 0.9
    assert abs(np.mean([float(same[0] @ v) for v in other])) < 0.1
    assert len({v.tobytes() for v in same}) == 100


def test_an_item_without_tags_still_starts_somewhere() -> None:
    starts = np.stack([initial_vector(np.zeros(0, np.uint64), item, 32) for item in range(200)])
    np.testing.assert_allclose(np.linalg.norm(starts, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(starts.mean(axis=0), 0, atol=0.06)


# The Gram matrix


def test_gram_is_the_product_with_itself() -> None:
    rows = unit_rows(50)
    np.testing.assert_allclose(gram(rows), rows.astype(np.float64).T @ rows, rtol=1e-12, atol=1e-12)


def test_gram_of_nothing_is_zero() -> None:
    assert gram(np.zeros((0, 4), np.float32)).tolist() == np.zeros((4, 4)).tolist()


# Folding a user in


def test_recency_weights_halve_their_excess_every_three_events() -> None:
    assert recency_weights(7)[::3].tolist() == [5.0, 3.0, 2.0]
    assert recency_weights(0).tolist() == []


@pytest.mark.parametrize("k", [4, 32, 50])
@pytest.mark.parametrize("h", [1, 2, 12, 40])
def test_fold_in_solves_the_ridge_system(h: int, k: int) -> None:
    items = unit_rows(60, k, seed=h)
    weights, matrix = recency_weights(h), gram(items)
    np.testing.assert_allclose(
        fold_in(items[:h], weights, matrix, C0, REG), plain_fold_in(items[:h], weights, matrix), rtol=1e-4, atol=1e-6
    )


def test_a_user_without_items_is_at_zero() -> None:
    none = np.zeros((0, K), np.float32)
    assert fold_in(none, recency_weights(0), gram(unit_rows(9)), C0, REG).tolist() == [0.0] * K


def test_bulk_fold_in_is_fold_in_of_each() -> None:
    items, rng = unit_rows(30), np.random.default_rng(3)
    histories = [rng.integers(0, 30, n) for n in (0, 1, 5, 40, 60)]
    starts = np.cumsum([0, *map(len, histories)])
    weights, matrix = recency_weights(40), gram(items)
    many = fold_in_many(items, np.concatenate(histories).astype(np.int32), starts, weights, matrix, C0, REG)
    each = [fold_in(items[history[:40]], weights, matrix, C0, REG) for history in histories]
    np.testing.assert_array_equal(many, np.stack(each))


@compiles
@given(st.lists(st.integers(0, 19), max_size=12), st.data())
def test_unknown_items_change_nothing_wherever_they_stand(known: list[int], data: st.DataObject) -> None:
    items = unit_rows(21)
    items[20] = np.nan
    mixed = list(known)
    for unknown in data.draw(st.lists(st.sampled_from([-1, -7, 20, 21, 2**31 - 1]), max_size=6)):
        mixed.insert(data.draw(st.integers(0, len(mixed))), unknown)
    slots = np.array(known + mixed, np.int32)
    starts = np.array([0, len(known), len(slots)])
    clean, noisy = fold_in_many(items, slots, starts, recency_weights(12), gram(items), C0, REG)
    assert clean.tolist() == noisy.tolist()


@compiles
@given(
    arrays.arrays(np.float32, (6, 4), elements=any_float),
    arrays.arrays(np.float32, 6, elements=st.floats(0, 1e6, width=32)),
)
def test_fold_in_is_finite_and_leaves_its_inputs(vectors: Floats, weights: Floats) -> None:
    matrix = gram(vectors)
    before = vectors.tobytes(), weights.tobytes(), matrix.tobytes()
    assert np.isfinite(fold_in(vectors, weights, matrix, C0, REG)).all()
    assert (vectors.tobytes(), weights.tobytes(), matrix.tobytes()) == before


# Learning


@pytest.mark.parametrize("seed", range(5))
def test_learn_is_the_plain_loop(seed: int) -> None:
    signals = Signals(seed)
    params = Learning(rate=0.1, reg=0.02, negatives=4)
    expected = plain_learn(signals, 7, 1000, params)
    taught = signals.learn(seed=7, first=1000, params=params)
    assert 0 < taught < len(signals.positives)
    np.testing.assert_allclose(signals.vectors, expected, rtol=1e-4, atol=1e-5)


def test_whitening_inverts_the_background() -> None:
    matrix = gram(unit_rows(20))
    np.testing.assert_allclose(whitening(matrix, C0, REG) @ (C0 * matrix + REG * np.eye(K)), np.eye(K), atol=1e-12)


def test_learning_is_the_same_every_time_and_other_seeds_draw_otherwise() -> None:
    once, again, other = Signals(1), Signals(1), Signals(1)
    once.learn(seed=5)
    again.learn(seed=5)
    other.learn(seed=6)
    assert once.vectors.tobytes() == again.vectors.tobytes() != other.vectors.tobytes()


@compiles
@given(st.integers(0, 30))
def test_cutting_a_batch_in_two_changes_nothing(at: int) -> None:
    whole, parts = Signals(2), Signals(2)
    whole.learn(first=100)
    parts.learn(first=100, cut=slice(0, at))
    parts.learn(first=100 + at, cut=slice(at, None))
    assert whole.vectors.tobytes() == parts.vectors.tobytes()


def test_learning_changes_nothing_but_the_owners_vectors() -> None:
    signals = Signals(3)
    others = [value for name, value in vars(signals).items() if name != "vectors"]
    before = [value.tobytes() for value in others]
    signals.learn()
    assert [value.tobytes() for value in others] == before


def test_unknown_predecessors_teach_nothing_wherever_they_stand() -> None:
    first, last = Signals(4), Signals(4)
    known = first.predecessors[:, :3] % 24
    unknown = np.full_like(known, -1)
    first.predecessors = np.hstack([unknown, known])
    last.predecessors = np.hstack([known, unknown])
    assert first.learn() == last.learn() > 0
    assert first.vectors.tobytes() == last.vectors.tobytes()


def test_an_item_is_no_predecessor_of_its_own() -> None:
    signals = Signals(5)
    signals.predecessors[:] = signals.own_slots[signals.positives.clip(0, 11)][:, None]
    before = signals.vectors.tobytes()
    assert signals.learn() == 0
    assert signals.vectors.tobytes() == before


def test_items_the_user_has_are_never_pushed_away() -> None:
    signals = Signals(6)
    signals.positives[:] = 0
    signals.predecessors[:] = signals.own_slots[1:7]
    before = signals.vectors[1:7].tobytes()
    assert signals.learn() > 0
    assert signals.vectors[1:7].tobytes() == before


@compiles
@given(
    arrays.arrays(np.float32, (8, 4), elements=any_float),
    arrays.arrays(np.float32, (5, 4), elements=any_float),
    arrays.arrays(np.int32, (12, 3), elements=st.integers(-2, 9)),
    arrays.arrays(np.float32, 12, elements=any_float),
    st.integers(0, MASK),
)
def test_no_input_makes_a_vector_cease_to_be_finite(
    shared: Floats, vectors: Floats, predecessors: NDArray[np.int32], weights: Floats, seed: int
) -> None:
    was_finite = np.isfinite(vectors).all(axis=1)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    positives = np.resize(np.arange(-1, 6, dtype=np.int32), 12)
    whitener = whitening(gram(shared), C0, REG)
    own_slots = np.array([0, 2, 4, -1, 6], np.int32)
    learn(vectors, own_slots, positives, predecessors, weights, shared, whitener, np.uint64(seed), 0, Learning())
    assert np.isfinite(vectors[was_finite]).all()
    after = np.linalg.norm(vectors[was_finite].astype(np.float64), axis=1)
    assert (after <= np.maximum(lengths[was_finite], 100) * (1 + 1e-5)).all()


def test_lengths_stay_bounded_under_a_hundred_thousand_signals_for_one_item() -> None:
    signals = Signals(7, n=1000)
    signals.positives[:] = 3
    signals.weights[:] = 1e30
    signals.predecessors[:] = [1, 3, 5, 7, 9, 11]
    for turn in range(100):
        signals.learn(first=1000 * turn)
    assert np.linalg.norm(signals.vectors, axis=1).max() <= 100


def test_two_tastes_come_apart() -> None:
    """Items 0-9 go together, and 10-19: from a random start, users come to rank their own group first."""
    rng, shared = np.random.default_rng(0), unit_rows(20, 16)
    slots = np.arange(20, dtype=np.int32)
    for turn in range(20):
        positives = rng.integers(0, 20, 200).astype(np.int32)
        predecessors = (positives[:, None] // 10 * 10 + rng.integers(0, 10, (200, 6))).astype(np.int32)
        vectors = shared.copy()
        whitener = whitening(gram(shared), C0, REG)
        learn(
            vectors,
            slots,
            positives,
            predecessors,
            np.ones(200, np.float32),
            shared,
            whitener,
            1,
            200 * turn,
            Learning(),
        )
        shared = vectors
    for group in (0, 10):
        p = fold_in(shared[group : group + 3], recency_weights(3), gram(shared), C0, REG)
        assert set(np.argsort(-(shared @ p))[:10]) == set(range(group, group + 10))
