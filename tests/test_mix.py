"""The mix against its equations, and what it promises."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.model import mix
from streamer.model.history import BUCKETS
from streamer.model.mix import OWN_RATE, RATE

M = 3
START = np.full((1, M), 0.3)


def some_evidence(seed: int, candidates: int = 6) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(candidates, M)).astype(np.float32)


class Plain:
    """The same in plain Python."""

    def __init__(self) -> None:
        self.weights = [[0.3] * M] + [[0.0] * M for _ in range(BUCKETS)]
        self.squares = [[0.0] * M for _ in range(1 + BUCKETS)]

    def learn(
        self, history: int, evidence: list[list[float]], taken: int, silence: list[float], outside: int
    ) -> list[float]:
        own = 1 + min(int(math.log2(max(history, 1))), BUCKETS - 1)
        theta = [max(a + b, 0.0) for a, b in zip(self.weights[0], self.weights[own], strict=True)]
        rows = [*evidence, silence]
        e = [math.exp(sum(w * x for w, x in zip(theta, row, strict=True))) for row in rows]
        total = sum(e[:-1]) + outside * e[-1]
        for m in range(M):
            mean = sum(p * row[m] for p, row in zip(e[:-1], evidence, strict=True)) + outside * e[-1] * silence[m]
            gradient = rows[taken][m] - mean / total
            for row, rate in ((0, RATE), (own, OWN_RATE)):
                self.squares[row][m] += gradient**2
                self.weights[row][m] += rate * gradient / math.sqrt(1 + self.squares[row][m])
        self.weights[0] = [max(w, 0.0) for w in self.weights[0]]
        return [p / total for p in e]


SILENCE = np.array([-1.2, 0.0, -0.5])
steps = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 2**32 - 1), st.integers(-1, 5), st.integers(1, 9)), max_size=12
)


@given(steps)
def test_learning_is_the_plain_loop(history: list[tuple[int, int, int, int]]) -> None:
    found, plain = mix.new_mix(START), Plain()
    for events, seed, taken, outside in history:
        evidence = some_evidence(seed)
        before = evidence.tobytes(), SILENCE.tobytes()
        chances = mix.learn(found, events, evidence, taken, SILENCE, outside)
        expected = plain.learn(events, evidence.tolist(), taken, SILENCE.tolist(), outside)
        assert chances.tolist() == pytest.approx(expected, abs=1e-6)
        assert chances[:-1].sum() + outside * chances[-1] == pytest.approx(1)
        assert (evidence.tobytes(), SILENCE.tobytes()) == before
    np.testing.assert_allclose(found.weights, plain.weights, atol=1e-6)
    np.testing.assert_allclose(found.squares, plain.squares, atol=1e-6)


def test_the_expert_who_knows_wins_and_the_one_who_misleads_is_silenced() -> None:
    found, rng = mix.new_mix(START), np.random.default_rng(5)
    for _ in range(2000):
        evidence = rng.normal(size=(20, M)).astype(np.float32)
        taken = int(np.argmax(evidence[:, 0] + rng.normal(size=20)))
        evidence[:, 2] = -evidence[:, 0]
        mix.learn(found, 8, evidence, taken, SILENCE, 0)
    knows, guesses, misleads = mix.weights_for(found, 8)
    assert knows > 0.8
    assert guesses < 0.2
    assert misleads < 0.1


def test_a_bucket_without_events_goes_by_what_is_true_of_all() -> None:
    found = mix.new_mix(START)
    for seed in range(50):
        mix.learn(found, 1, some_evidence(seed), 0, SILENCE, 5)
    assert mix.weights_for(found, 100).tolist() == found.weights[0].tolist()
    assert mix.weights_for(found, 1).tolist() != found.weights[0].tolist()


def test_each_bucket_starts_with_its_own_weights_and_longer_histories_with_the_last() -> None:
    found = mix.new_mix(np.array([[0.1] * M, [0.5] * M]))
    assert [mix.weights_for(found, history)[0] for history in (1, 2, 3, 4, 5000)] == pytest.approx([0.1] + [0.5] * 4)


def test_reading_the_mix_changes_nothing() -> None:
    found = mix.new_mix(START)
    before = found.weights.tobytes()
    mix.chances(some_evidence(1), mix.weights_for(found, 3), SILENCE, 4)
    assert found.weights.tobytes() == before
