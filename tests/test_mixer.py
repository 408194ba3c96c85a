"""The mix of a partition: which events it is tested on, what it keeps, and what is noted of it."""

import math
from itertools import pairwise

import numpy as np
import pytest

from streamer.engine.ranking import AT_ONCE_S, SAMPLE_EVERY_MS, SAMPLE_SHARE, PartitionMix, Ranking
from streamer.engine.slices import Slices
from streamer.errors import StateError
from streamer.model.experts import NAMES
from streamer.pipeline import mixer as mixer_
from streamer.pipeline.mixer import LEAST_THINNING, MOST_THINNING, YOUNG, Mixer
from streamer.pipeline.quality import COLD_BELOW, MINUTE_MS, POINTS, Meter, Placed
from tests.pipeline_world import T0
from tests.test_rank import Shop

LATER = T0 + 60_000


class Tried:
    """A shop whose mix is learned."""

    def __init__(self) -> None:
        self.shop = Shop()
        self.mixer = Mixer(self.shop.ranker)

    def test(self, item_id: str, user_id: str = "ann") -> mixer_.Tested | None:
        line = self.shop.line
        return self.mixer.test(line.users, line.slot(user_id), line.catalogue.see(item_id), LATER)


def grown() -> Mixer:
    """A mixer that is not young any more."""
    tests = Tried()
    tests.shop.look("mug")
    tested = tests.test("pan")
    assert tested is not None
    for _ in range(YOUNG):
        tests.mixer.learn(tested)
    return tests.mixer


def test_one_event_in_eight_is_in_the_sample_however_batches_are_cut() -> None:
    hashes = np.random.default_rng(3).integers(1, 2**63, 20_000).astype(np.uint64)
    mixer = grown()
    whole = list(mixer.sample(hashes))
    assert whole == [*mixer.sample(hashes[:7001]), *(7001 + place for place in mixer.sample(hashes[7001:]))]
    assert len(whole) == pytest.approx(20_000 / 8, rel=0.1)
    mixer.thin(2)
    thinner = list(mixer.sample(hashes))
    assert set(thinner) < set(whole)
    assert len(thinner) == pytest.approx(20_000 / 32, rel=0.2)


def test_a_young_mix_learns_from_every_event_until_it_has_learned_enough() -> None:
    hashes = np.full(3 * YOUNG, 0xFF, np.uint64)  # none of them is in the sample of a grown one
    tests = Tried()
    tests.shop.look("mug")
    tested = tests.test("pan")
    assert tested is not None
    asked = []
    for place in tests.mixer.sample(hashes):
        asked.append(place)
        if place % 2:
            tests.mixer.learn(tested)
    assert asked == list(range(2 * YOUNG))


def test_thinning_stays_within_its_limits() -> None:
    mixer = Tried().mixer
    mixer.thin(-5)
    assert mixer.thinning == LEAST_THINNING
    mixer.thin(100)
    assert mixer.thinning == MOST_THINNING


def test_a_first_event_and_a_repeat_are_no_tests() -> None:
    tests = Tried()
    assert tests.test("mug") is None
    tests.shop.look("mug")
    assert tests.test("mug") is None
    assert tests.test("pan") is not None


def test_what_the_user_had_is_no_candidate() -> None:
    tests = Tried()
    tests.shop.look("mug", "tent")
    tested = tests.test("pan")
    assert tested is not None
    assert len(tested.evidence) == 3
    assert tested.outside == 0
    assert tested.history == 2


def test_testing_changes_nothing_and_learning_raises_what_was_taken() -> None:
    tests = Tried()
    tests.shop.look("mug")
    before = tests.mixer.mix.weights.tobytes()
    tested = tests.test("pan")
    assert tested is not None
    assert tests.mixer.mix.weights.tobytes() == before
    assert tests.mixer.take() is None
    losses = [tests.mixer.learn(tested).log_loss for _ in range(20)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_an_item_that_nobody_took_is_a_miss_that_teaches_nothing() -> None:
    tests = Tried()
    tests.shop.look("mug")
    tested = tests.test("never seen")
    assert tested is not None
    placed = tests.mixer.learn(tested)
    assert (placed.hit, placed.popularity_hit) == (0.0, 0.0)
    assert math.isfinite(placed.log_loss)
    assert placed.popularity_log_loss > 1
    assert tests.mixer.take() is None


def test_probabilities_of_popularity_are_those_of_all_items_that_the_user_has_not() -> None:
    tests = Tried()
    tests.shop.look("mug")
    losses = []
    for item_id in ("pan", "tent", "lamp", "card"):
        tested = tests.test(item_id)
        assert tested is not None
        losses.append(tested.popularity)
    assert sum(losses) == pytest.approx(1)


def test_a_stored_mix_goes_on_as_if_it_had_never_stopped() -> None:
    tests = Tried()
    tests.shop.look("mug")
    tests.mixer.thin(2)
    tested = tests.test("pan")
    assert tested is not None
    tests.mixer.learn(tested)
    row = tests.mixer.take()
    assert row is not None
    assert tests.mixer.take() is None
    other = Mixer(tests.shop.ranker)
    other.load(row)
    assert other.take() is None
    assert tests.mixer.learn(tested) == other.learn(tested)
    assert tests.mixer.take() == other.take()


def test_experts_of_a_stored_mix_go_by_their_names() -> None:
    tests = Tried()
    tests.shop.look("mug")
    tested = tests.test("pan")
    assert tested is not None
    tests.mixer.learn(tested)
    row = mixer_._decode(tests.mixer.take() or b"")
    weights = np.frombuffer(row.weights).reshape(-1, len(NAMES))
    squares = np.frombuffer(row.squares).reshape(-1, len(NAMES))
    kept = [m for m in range(len(NAMES)) if m != 1]
    older = mixer_.MixRow(
        row.layout,
        tuple(NAMES[m] for m in reversed(kept)),
        weights[:, list(reversed(kept))].tobytes(),
        squares[:, list(reversed(kept))].tobytes(),
        row.thinning,
    )
    other = Mixer(tests.shop.ranker)
    fresh = other.mix.weights[:, 1].copy()
    other.load(mixer_._encode(older))
    assert other.mix.weights[:, kept].tolist() == weights[:, kept].tolist()
    assert other.mix.weights[:, 1].tolist() == fresh.tolist()
    assert other.mix.squares[:, kept].tolist() == squares[:, kept].tolist()


def test_a_mix_of_a_newer_worker_is_refused() -> None:
    row = mixer_._encode(mixer_.MixRow(mixer_.LAYOUT + 1, NAMES, b"", b"", 3))
    with pytest.raises(StateError, match="upgrade the worker"):
        Tried().mixer.load(row)


# Quality

GOOD = Placed(1.0, 0.5, 1.0, 0.0, 3.0)
BAD = Placed(0.0, 0.1, 5.0, 0.0, 4.0)


def test_scores_are_means_of_cold_and_of_warm_users() -> None:
    meter = Meter()
    meter.add(GOOD, 1, T0)
    meter.add(BAD, COLD_BELOW - 1, T0)
    meter.add(BAD, COLD_BELOW, T0)
    found = meter.quality("m/1", {"titles": 0.5})
    assert (found.cold.events, found.warm.events) == (2, 1)
    assert found.cold.hit_rate == 0.5
    assert found.cold.expected == pytest.approx(0.3)
    assert found.cold.log_loss == pytest.approx(3)
    assert found.cold.popularity_log_loss == pytest.approx(3.5)
    assert found.warm.hit_rate == 0
    assert found.weights == {"titles": 0.5}


def test_points_are_minutes_with_events_and_the_oldest_leave() -> None:
    meter = Meter()
    for minute in range(POINTS + 5):
        meter.add(GOOD, 1, T0 + 2 * minute * MINUTE_MS)
    points = meter.quality("m/1", {}).points
    assert len(points) == POINTS
    assert all(point.at % MINUTE_MS == 0 for point in points)
    assert [b.at - a.at for a, b in pairwise(points)] == [2 * MINUTE_MS] * (POINTS - 1)
    assert points[-1].cold.events == 1
    assert points[-1].warm.events == 0


# What the sample may cost


class Paced:
    """The mix of a partition whose sample takes as much time as a test says."""

    def __init__(self) -> None:
        line = Tried().shop.line
        self.mix = PartitionMix(Ranking(line.space, partitions=1, most_bytes=1 << 20, slices=Slices()), 0)
        self.now_ms = T0
        self.mix._keep_within_share(T0)

    def spend(self, share: float) -> int:
        """So much of the time until the next look; returns how thin the sample is then."""
        self.now_ms += SAMPLE_EVERY_MS
        self.mix._spent_s = share * SAMPLE_EVERY_MS / 1000
        self.mix._keep_within_share(self.now_ms)
        return self.mix.mixer.thinning


def test_a_sample_that_takes_too_much_is_thinned_at_once_and_grows_again_step_by_step() -> None:
    paced = Paced()
    assert paced.spend(0.9 * SAMPLE_SHARE) == LEAST_THINNING
    assert paced.spend(30 * SAMPLE_SHARE) == LEAST_THINNING + 5
    assert paced.spend(0.5 * SAMPLE_SHARE) == LEAST_THINNING + 5
    assert [paced.spend(0.0) for _ in range(7)] == [*range(LEAST_THINNING + 4, LEAST_THINNING - 1, -1), 3, 3]


def test_while_somebody_asks_a_batch_ranks_one_event() -> None:
    slices = Slices()
    ranking = Ranking(Tried().shop.line.space, partitions=1, most_bytes=1 << 20, slices=slices)
    assert ranking.at_once_s == AT_ONCE_S
    slices.note_question()
    assert ranking.at_once_s == 0


def test_a_board_that_rests_on_less_than_came_since_is_no_measure_of_experts() -> None:
    shop = Tried().shop
    ranking = Ranking(shop.line.space, partitions=4, most_bytes=1 << 20, slices=Slices())
    ranking.mixers[0] = Mixer(ranking.ranker)
    ranking.renew_at_once()
    rests_on = ranking.ranker.board.events
    assert rests_on == 25
    ranking.folded += rests_on // 4
    assert ranking.is_current
    ranking.folded += 1
    assert not ranking.is_current
    ranking.renew_at_once()
    assert ranking.is_current
