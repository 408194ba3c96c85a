"""The mix of scales: what it says, and what it learns, by hand. `test_publish` holds it against a naive replay."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.model.history import BUCKETS, bucket
from streamer.model.interests import RECENT, SCALES, TAG, Scales
from streamer.model.tag_mix import (
    EXPERTS,
    LONGEST,
    OWN,
    POPULATION,
    PRIOR,
    SAMPLE,
    WARM_UP,
    WINDOW,
    Learned,
    Work,
    chance,
    credit,
    is_learned_from,
    look_at,
    new_learned,
    new_work,
    recent_share,
    settle,
)

NOW, AT = 1000, 5


def tags(*weights: float) -> np.ndarray:  # type: ignore[type-arg]
    """Tags of which all scales say the same, as of NOW."""
    entries = np.zeros(len(weights), TAG)
    entries["weight"] = np.repeat(np.array(weights)[:, None], SCALES, axis=1)
    entries["ts"], entries["at"] = NOW, AT
    return entries


class Asked:
    """A user with tags, asked for chances."""

    def __init__(self, entries: np.ndarray, smoothing: float = 0.0, history: int = 9, now: int = NOW) -> None:  # type: ignore[type-arg]
        self.smoothing, self.history, self.entries = smoothing, history, entries
        self.learned, self.work, self.now = new_learned(), new_work(8), now

    def chance(self, j: int, *prior: float) -> float:
        self._look(prior)
        return float(chance(self.work, j, self.smoothing))

    def learn(self, j: int, *prior: float) -> None:
        self._look(prior)
        credit(self.work, j, 1.0, self.smoothing)
        settle(self.learned, self.history, self.work)

    def _look(self, prior: tuple[float, ...]) -> None:
        scales = Scales(100.0, 10.0, self.smoothing)
        look_at(self.entries, self.now, AT, self.history, scales, self.learned, self.work)
        self.work.prior[:] = prior


def test_at_first_half_is_the_users_own_and_half_the_populations() -> None:
    asked = Asked(tags(1.0, 3.0))
    assert asked.chance(1, 0.1, 0.1, 0.1, 0.1) == pytest.approx(0.5 * 0.75 + 0.5 * 0.1)
    assert asked.chance(-1, 0.1, 0.1, 0.1, 0.1) == pytest.approx(0.5 * 0.1)
    assert asked.chance(-1, 0.1, 0.2, 0.3, 0.4) == pytest.approx(0.5 * 0.25)


def test_where_all_has_faded_the_populations_share_is_left() -> None:
    asked = Asked(tags(1.0, 3.0), smoothing=1.0, now=NOW + 10**7)
    asked.entries["weight"][:, 3:] = 0
    assert asked.chance(1, 0.1, 0.1, 0.1, 0.1) == pytest.approx(0.1)
    assert recent_share(asked.work, 1, 1.0) == pytest.approx(0.1)


def test_recently_is_the_same_mix_with_the_shortest_time_for_all_of_the_users_own() -> None:
    asked = Asked(tags(1.0, 3.0))
    assert asked.chance(1, 0.1, 0.2, 0.3, 0.4) == pytest.approx(recent_share(asked.work, 1, 0.0))
    asked.entries["weight"][:, RECENT] = 1, 1
    asked.chance(1, 0.1, 0.2, 0.3, 0.4)
    assert recent_share(asked.work, 1, 0.0) == pytest.approx(0.5 * 0.5 + 0.5 * 0.25)


def test_a_user_without_tags_goes_by_the_population() -> None:
    assert Asked(tags(), smoothing=1.0).chance(-1, 0.1, 0.1, 0.1, 0.1) == pytest.approx(0.1)
    assert Asked(tags()).chance(-1, 0.1, 0.1, 0.1, 0.1) == pytest.approx(0.05)  # no smoothing: no division by nothing


@given(st.lists(st.floats(0.01, 9), min_size=1, max_size=6), st.floats(0, 5), st.integers(0, 50))
def test_chances_of_all_tags_there_are_sum_to_one(weights: list[float], smoothing: float, learned: int) -> None:
    asked = Asked(tags(*weights), smoothing)
    for i in range(learned):
        asked.learn(i % len(weights) - (i % 3 == 0), 0.2, 0.1, 0.3, 0.2)
    share = 1 / (len(weights) + 1)
    found = [asked.chance(j, *[share] * POPULATION) for j in range(-1, len(weights))]
    assert sum(found) == pytest.approx(1)


def test_who_foretold_the_event_counts_for_more() -> None:
    asked = Asked(tags(1.0, 9.0))
    before = asked.chance(1, 0.01, 0.01, 0.01, 0.01)
    for _ in range(50):
        asked.learn(1, 0.01, 0.01, 0.01, 0.01)
    assert asked.chance(1, 0.01, 0.01, 0.01, 0.01) > before + 0.2
    for _ in range(500):
        asked.learn(-1, 0.01, 0.5, 0.01, 0.01)
    own, population = asked.learned.shared[:OWN].sum(), asked.learned.shared[OWN:]
    assert population[1] > 5 * own
    assert population.argmax() == 1


def test_an_event_is_credited_by_the_parts_of_its_chance() -> None:
    asked = Asked(tags(1.0, 3.0))
    before = asked.learned.shared.copy()
    asked.learn(0, 0.05, 0.05, 0.05, 0.05)
    own = 0.5 * 0.25 / (0.5 * 0.25 + 0.5 * 0.05)
    gained = asked.learned.shared - before
    assert gained[:OWN].sum() == pytest.approx(own)
    assert gained.sum() == pytest.approx(1)
    assert asked.learned.own[bucket(9)] == pytest.approx(gained)
    assert not asked.work.credit.any()


def test_a_bucket_without_events_goes_by_all_users() -> None:
    asked = Asked(tags(1.0, 3.0), history=1000)
    for _ in range(300):
        asked.learn(1, 0.01, 0.01, 0.01, 0.01)
    experienced = asked.chance(1, 0.01, 0.01, 0.01, 0.01)
    asked.history = 1
    assert asked.chance(1, 0.01, 0.01, 0.01, 0.01) == pytest.approx(experienced, rel=0.05)
    assert not asked.learned.own[0].any()
    assert PRIOR < 300


def test_what_was_learned_long_ago_is_forgotten() -> None:
    asked = Asked(tags(1.0))
    for _ in range(int(3 * WINDOW)):
        asked.learn(0, 0.1, 0.1, 0.1, 0.1)
    assert WINDOW / 2 < asked.learned.shared.sum() <= WINDOW
    assert asked.learned.own.sum() <= WINDOW


@pytest.mark.parametrize(("history", "number"), [(1, 0), (2, 1), (3, 1), (4, 2), (7, 2), (8, 3), (2**40, BUCKETS - 1)])
def test_users_with_about_as_many_events_learn_together(history: int, number: int) -> None:
    assert bucket(history) == number


def test_after_the_first_events_a_sample_is_learned_from() -> None:
    learned = new_learned()
    assert all(is_learned_from(learned, np.uint64(event)) for event in range(20))
    learned.events[0] = WARM_UP
    assert sum(is_learned_from(learned, np.uint64(event)) for event in range(80 * SAMPLE)) == 80


def test_looking_changes_nothing_but_its_own_work() -> None:
    asked = Asked(tags(1.0, 3.0))
    before = asked.entries.tobytes(), *(numbers.tobytes() for numbers in asked.learned)
    asked.chance(1, 0.1, 0.1, 0.1, 0.1)
    assert (asked.entries.tobytes(), *(numbers.tobytes() for numbers in asked.learned)) == before


def test_the_worked_number_of_the_documentation() -> None:
    learned = Learned(np.zeros(EXPERTS), np.zeros((BUCKETS, EXPERTS)), np.zeros(1, np.int64))
    learned.shared[1] = learned.shared[OWN + LONGEST] = 0.5
    work: Work = new_work(2)
    look_at(tags(1.0, 3.0), NOW, AT, 9, Scales(100.0, 10.0, 0.0), learned, work)
    work.prior[:] = 0.05
    assert chance(work, 0, 0.0) == pytest.approx(0.15)
    credit(work, 0, 1.0, 0.0)
    assert work.credit[1] == pytest.approx(0.125 / 0.15)
