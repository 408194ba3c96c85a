"""The experts against their equations in plain Python, over boards small enough for every item to be a candidate."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.model import board as board_
from streamer.model import experts, popularity, transitions
from streamer.model.board import FLOOR, Board, Models
from streamer.model.experts import NAMES, Scratch, User
from streamer.model.ragged import Rows
from tests.pipeline_world import T0

DAY_MS = 86_400_000
TAGS = 5
K = 4


class World:
    """Random models of a few items."""

    def __init__(self, seed: int, n: int = 9) -> None:
        rng = np.random.default_rng(seed)
        self.n = n
        self.models = Models(
            popularity=rng.uniform(0, 5, (n, 3)) * (rng.uniform(size=(n, 1)) < 0.8),
            newest=T0 - rng.integers(0, 40 * DAY_MS, n),
            events=rng.integers(0, 30, n),
            landmarks=T0 - rng.integers(0, 200 * DAY_MS, n),
        )
        self.vectors = rng.normal(size=(n, K)).astype(np.float32)
        self.vectors[0] = 0
        self.tags = np.full((n, 3), -1, np.int32)
        for i in range(n):
            own = rng.permutation(TAGS)[: rng.integers(0, 4)]
            self.tags[i, : len(own)] = own
        self.before = {
            i: {int(h): rng.uniform(0.1, 3, 2).astype(np.float32) for h in rng.permutation(n)[:3] if h != i}
            for i in range(n)
        }
        self.links = Rows(width=4, most=64)
        self.links.reach(n)
        for i, before in self.before.items():
            weights = np.array(list(before.values()), np.float32).reshape(-1, 2)
            while not transitions.link(self.links.pool, i, np.array(list(before), np.int32), weights):
                self.links.make_room()
        self.board = board_.make(self.models, self.vectors, self.tags, TAGS, T0)
        self.user = User(
            items=rng.integers(-1, n, rng.integers(0, 8)),
            ts=np.zeros(0, np.int64),
            vector=rng.normal(size=K).astype(np.float32),
        )
        ages = np.cumsum(rng.integers(0, 40 * 60_000, len(self.user.items)))
        self.user = self.user._replace(ts=T0 - ages)

    def evidence(self, work: Scratch | None = None) -> dict[int, list[float]]:
        work = work or experts.scratch(self.n, TAGS)
        slots, found = experts.evidence(self.board, self.links.pool, self.user, T0, work)
        return dict(zip(slots.tolist(), found.tolist(), strict=True))

    def tags_of(self, i: int) -> list[int]:
        return [int(t) for t in self.tags[i] if t >= 0]


def plain_scores(world: World) -> NDArray[np.float64]:
    """Scores f64[n, 4] of the first four experts."""
    n, models = world.n, world.models
    popular = [
        float(models.popularity[i, 2]) * 2 ** (-(T0 - int(models.newest[i])) / popularity.HALF_LIVES_MS[2])
        for i in range(n)
    ]
    tag_events = [sum(popular[i] for i in range(n) if t in world.tags_of(i)) for t in range(TAGS)]
    count = [sum(t in world.tags_of(i) for i in range(n)) for t in range(TAGS)]
    idf = [math.log(n / (c + 1)) + 0.1 for c in count]
    fade = [2 ** (-(T0 - int(models.landmarks[i])) / transitions.HALF_LIFE_MS) for i in range(n)]
    strength = transitions.strengths(world.user.ts, T0)
    out = np.zeros((n, 4))
    for age, h in enumerate(world.user.items.tolist()):
        if h < 0:
            continue
        for j in range(n):
            for m in range(2):
                forward = world.before[j].get(h, np.zeros(2))[m] * fade[j]
                back = world.before[h].get(j, np.zeros(2))[m] * fade[h]
                step = forward + transitions.BACK[m] * back
                by_source = 1 / (models.events[h] ** 0.7 + 2)
                out[j, m] += strength[age, m] * by_source * step / (models.events[j] ** 0.5 + 2)
            own, other = world.tags_of(h), world.tags_of(j)
            for t in set(own) & set(other):
                out[j, 2] += 2 ** (-age / 10) / (tag_events[t] + 1) * popular[j]
            dot = sum(idf[t] ** 2 for t in set(own) & set(other))
            if dot:
                lengths = [math.sqrt(sum(idf[t] ** 2 for t in tags)) for tags in (own, other)]
                out[j, 3] += 2 ** (-age / 5) * (dot / (lengths[0] * lengths[1])) ** 4
    return out


@given(st.integers(0, 2**32 - 1))
def test_evidence_is_what_the_equations_say(seed: int) -> None:
    world = World(seed)
    found, scores = world.evidence(), plain_scores(world)
    totals = scores[list(found)].sum(axis=0) if found else np.zeros(4)
    seen = int((world.models.events > 0).sum())
    for j, evidence in found.items():
        for m in range(4):
            p = scores[j, m] / totals[m] if totals[m] else 0.0
            assert evidence[m] == pytest.approx(math.log((1 - FLOOR) * seen * p + FLOOR), abs=1e-3), NAMES[m]
        lengths = np.linalg.norm(world.vectors[j]) * np.linalg.norm(world.user.vector)
        cosine = float(world.vectors[j] @ world.user.vector) / lengths if lengths else 0.0
        assert evidence[experts.FACTORS] == pytest.approx(4 * cosine, abs=1e-4)


@given(st.integers(0, 2**32 - 1))
def test_everything_that_speaks_for_an_item_makes_it_a_candidate(seed: int) -> None:
    world = World(seed)
    expected = set(np.flatnonzero(plain_scores(world).any(axis=1)).tolist())
    expected |= set(np.flatnonzero(world.models.events > 0).tolist())
    assert expected <= world.evidence().keys()


@given(st.integers(0, 2**32 - 1))
def test_popularity_speaks_for_an_item_as_often_as_it_was_taken(seed: int) -> None:
    world = World(seed)
    popular = popularity.at(world.models.popularity, world.models.newest, T0)
    seen = int((world.models.events > 0).sum())
    shares = popular / np.maximum(popular.sum(axis=0), 1e-300)
    for j, evidence in world.evidence().items():
        expected = np.log((1 - FLOOR) * seen * shares[j] + FLOOR)
        assert evidence[experts.POPULARITY :] == pytest.approx(expected.tolist(), abs=1e-5)


def bits(value: Any) -> bytes:
    return b"".join(np.asarray(part).tobytes() for part in value)


@given(st.integers(0, 2**32 - 1))
def test_reading_leaves_no_trace(seed: int) -> None:
    world = World(seed)
    work = experts.scratch(world.n, TAGS)
    before = bits(world.board), bits(world.links.pool), bits(world.user), bits(world.models)
    first = world.evidence(work)
    assert world.evidence(work) == first
    assert (bits(world.board), bits(world.links.pool), bits(world.user), bits(world.models)) == before
    assert not any(part.any() for part in work[:-1])


def test_a_user_without_items_is_offered_what_is_popular() -> None:
    world = World(3)
    world.user = User(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(K, np.float32))
    found = world.evidence()
    assert found.keys() == set(np.flatnonzero(world.models.events > 0).tolist())
    assert {tuple(evidence[:4]) for evidence in found.values()} == {(float(np.float32(math.log(FLOOR))),) * 4}


def test_an_empty_board_has_no_candidates() -> None:
    empty = board_.make(board_.no_models(), np.zeros((0, K), np.float32), np.zeros((0, 3), np.int32), 0, T0)
    user = User(np.full(2, -1), np.full(2, T0), np.zeros(K, np.float32))
    slots, found = experts.evidence(empty, Rows(4, 8).pool, user, T0, experts.scratch(0, 0))
    assert (slots.tolist(), found.shape) == ([], (0, len(NAMES)))


@given(st.integers(0, 2**32 - 1))
def test_reasons_are_the_users_items_that_an_item_follows_or_resembles(seed: int) -> None:
    world = World(seed)
    all_found = experts.reasons(world.board, world.links.pool, world.user, T0, np.arange(world.n))
    for j, found in enumerate(all_found.tolist()):
        for h, reason in zip(world.user.items.tolist(), found, strict=True):
            linked = h >= 0 and h != j and (h in world.before[j] or j in world.before[h])
            alike = h >= 0 and bool(set(world.tags_of(h)) & set(world.tags_of(j)))
            assert (reason > 0) == (linked or alike)


def test_only_the_most_popular_items_of_a_tag_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    n = board_.POSTINGS + 20
    popular = np.arange(n, dtype=np.float64)[:, None].repeat(3, axis=1) + 1
    models = Models(popular, np.full(n, T0), np.ones(n, np.int64), np.zeros(n, np.int64))
    tags = np.zeros((n, 1), np.int32)
    made: Board = board_.make(models, np.ones((n, K), np.float32), tags, 1, T0)
    assert made.listed.tolist() == list(range(n - 1, 19, -1))


def crowd(n: int) -> World:
    """A world of n items, all popular alike, without tags; after item 0 come the others, the higher the more often."""
    world = World(1)
    world.n, ones = n, np.ones(n, np.int64)
    world.models = Models(np.ones((n, 3)), T0 * ones, ones, T0 * ones)
    world.vectors = np.random.default_rng(1).normal(size=(n, K)).astype(np.float32)
    world.tags = np.full((n, 1), -1, np.int32)
    world.links = Rows(width=4, most=n)
    world.links.reach(n)
    for _ in range(4):
        world.links.make_room()
    for j in range(1, n):
        assert transitions.link(world.links.pool, j, np.array([0], np.int32), np.full((1, 2), j, np.float32))
    world.board = board_.make(world.models, world.vectors, world.tags, TAGS, T0)
    return world


def test_of_all_that_follow_only_the_strongest_are_candidates() -> None:
    world = crowd(3 * experts.FOLLOWING)
    world.user = User(np.zeros(1, np.int64), np.full(1, T0), np.zeros(K, np.float32))
    work = experts.scratch(world.n, TAGS)
    found = world.evidence(work)
    silent = np.float32(math.log(FLOOR))
    follow = {j for j, evidence in found.items() if evidence[experts.LONG] > silent}
    assert follow == set(range(world.n - experts.FOLLOWING // 2, world.n))
    assert world.evidence(work) == found


def test_the_nearest_vectors_are_candidates() -> None:
    world = crowd(2000)
    vector = np.random.default_rng(2).normal(size=K).astype(np.float32)
    world.user = User(np.zeros(0, np.int64), np.zeros(0, np.int64), vector)
    nearest = np.argsort(-world.board.unit @ vector)[: experts.NEAREST]
    found = world.evidence()
    assert set(nearest.tolist()) <= found.keys()
    assert len(found) <= board_.TOP + 2 * experts.NEAREST
