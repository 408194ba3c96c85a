"""Interest weights against sums worked out from their definition, and by hand."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.model.interests import (
    EVENTS,
    EVER,
    LONG,
    LONG_EVENTS,
    MAIN,
    RECENT,
    SHORT,
    SHORT_EVENTS,
    TAG,
    Scales,
    Touch,
    add,
    weakest,
)

SCALES = Scales(half_life_ms=100.0, recent_half_life_ms=10.0, smoothing=3.0)
PLACES = 4
events_of_one_tag = st.lists(
    st.tuples(st.integers(0, 2000), st.sampled_from([0.5, 1.0, 3.0])), min_size=1, max_size=12
)  # (ts, amount)


class Tags:
    """The tags of one user, and columns that look into them."""

    def __init__(self, places: int = PLACES) -> None:
        self.entries = np.zeros(places, TAG)
        self.tag, self.ts, self.weight, self.published, _ = (self.entries[name] for name in TAG.names or ())
        self.n = 0

    def add(self, tag: int, ts: int, amount: float = 1.0, at: int = 1, tags: int = 1, scales: Scales = SCALES) -> int:
        """Add an event with so many tags; the published tag that had to leave, 0 for none."""
        touch = Touch(ts, at, amount, amount / tags)
        self.n, lost = add(self.entries, self.n, np.uint64(tag), touch, scales)
        return int(lost)

    @property
    def tags(self) -> list[int]:
        return self.tag[: self.n].tolist()


def weighing(*tags: tuple[float, int]) -> np.ndarray:  # type: ignore[type-arg]
    """Tags of which only the main weight and its time tell anything."""
    entries = np.zeros(len(tags), TAG)
    entries["weight"][:, MAIN], entries["ts"] = zip(*tags, strict=True)
    return entries


def true_weight(events: list[tuple[int, float]], half_life_ms: float, now: int) -> float:
    return sum(amount * 0.5 ** ((now - ts) / half_life_ms) for ts, amount in events)


def test_an_event_weighs_its_amount_when_it_happens() -> None:
    tags = Tags()
    tags.add(7, ts=1000, amount=3.0, tags=2)
    assert tags.weight[0].tolist() == [1.5, 3.0, 1.0, 1.5, 1.5, 1.5]
    assert (tags.tags, tags.ts[0]) == ([7], 1000)


def test_every_scale_fades_by_its_own_half_life() -> None:
    tags = Tags()
    tags.add(7, ts=0, amount=4.0)
    tags.add(7, ts=100, amount=2.0)
    recent, main, events, *_ = tags.weight[0].tolist()
    assert recent == pytest.approx(4 / 2**10 + 2)
    assert main == pytest.approx(4 / 2 + 2)
    assert events == pytest.approx(1 / 2 + 1)


def test_scales_fade_with_the_events_of_the_user() -> None:
    tags = Tags()
    tags.add(7, ts=0, at=1)
    tags.add(7, ts=0, at=4)
    assert tags.weight[0, SHORT] == pytest.approx(0.5 + 1)
    assert tags.weight[0, LONG] == pytest.approx(0.5 ** (3 / 20) + 1)
    assert tags.weight[0, EVER] == 2
    assert tags.entries[0]["at"] == 4


@given(st.permutations([(ts, -3 + ts) for ts in range(9)]))
def test_numbered_events_may_come_in_any_order(events: list[tuple[int, int]]) -> None:
    tags = Tags()
    for ts, at in events:
        tags.add(7, ts, at=at)
    newest = max(at for _, at in events)
    assert tags.weight[0, SHORT] == pytest.approx(sum(0.5 ** ((newest - at) / SHORT_EVENTS) for _, at in events))
    assert tags.weight[0, LONG] == pytest.approx(sum(0.5 ** ((newest - at) / LONG_EVENTS) for _, at in events))


def test_a_late_event_weighs_what_is_left_of_it_and_does_not_turn_time_back() -> None:
    tags = Tags()
    tags.add(7, ts=200)
    tags.add(7, ts=100)
    assert tags.weight[0, MAIN] == pytest.approx(1.5)
    assert tags.ts[0] == 200


@given(events_of_one_tag, st.randoms())
def test_weights_are_the_sums_that_define_them_whatever_the_order(
    events: list[tuple[int, float]], random: Random
) -> None:
    random.shuffle(events)
    tags = Tags()
    for ts, amount in events:
        tags.add(7, ts, amount)
    newest = max(ts for ts, _ in events)
    assert tags.ts[0] == newest
    assert tags.weight[0, RECENT] == pytest.approx(true_weight(events, 10, newest), rel=1e-5)
    assert tags.weight[0, MAIN] == pytest.approx(true_weight(events, 100, newest), rel=1e-5)
    assert tags.weight[0, EVENTS] == pytest.approx(true_weight([(ts, 1.0) for ts, _ in events], 100, newest), rel=1e-5)


@given(events_of_one_tag, st.integers(0, 2000), st.integers(0, 2000))
def test_late_event_never_raises_a_weight(events: list[tuple[int, float]], ts: int, by: int) -> None:
    """The later an event happened, the more it weighs: one that is late adds no more than one in time."""
    in_time, late = Tags(), Tags()
    for when, amount in events:
        in_time.add(7, when, amount)
        late.add(7, when, amount)
    newest = int(late.ts[0])
    before = late.weight[0].copy()
    in_time.add(7, newest)
    late.add(7, min(ts, newest - by))
    assert (late.weight[0] <= in_time.weight[0] * (1 + 1e-6)).all()
    assert (late.weight[0] >= before).all()


def test_a_half_life_may_be_infinite() -> None:
    tags = Tags()
    for ts in (5000, 0, 10**12):
        tags.add(7, ts, scales=Scales(math.inf, 10.0, 0.0))
    assert tags.weight[0, MAIN] == 3.0


def test_tags_do_not_touch_each_other() -> None:
    tags = Tags()
    tags.add(7, 1000)
    before = tags.weight[0].copy()
    tags.add(8, 1900, 3.0)
    assert tags.tags == [7, 8]
    assert (tags.weight[0] == before).all()
    assert tags.ts.tolist()[:2] == [1000, 1900]


def test_when_all_places_are_taken_the_weakest_leaves() -> None:
    tags = Tags()
    for tag, ts, amount in [(1, 900, 3.0), (2, 1000, 1.0), (3, 1000, 0.5), (4, 700, 3.0)]:
        tags.add(tag, ts, amount)
    tags.add(5, 1000)  # at 1000 they weigh 1.5, 1, 0.5 and 0.375
    assert tags.tags == [1, 2, 3, 5]
    assert tags.weight[3].tolist() == [1.0] * 6


def test_of_equally_weak_tags_the_one_seen_longest_ago_leaves() -> None:
    assert weakest(weighing((1, 200), (1, 200), (2, 100)), 3, 200, 100.0) == 2  # all weigh 1 by now
    assert weakest(weighing((1, 200), (1, 200), (2, 200)), 3, 200, 100.0) == 0


def test_a_late_event_that_faded_does_not_push_out_a_stronger_tag() -> None:
    tags = Tags()
    for tag in (1, 2, 3, 4):
        tags.add(tag, 1000)
    before = tags.entries.tobytes()
    assert tags.add(5, 999) == 0
    assert tags.entries.tobytes() == before
    tags.add(5, 999, 2.0)  # late, but twice as strong
    assert tags.tags == [5, 2, 3, 4]


@given(st.permutations([(tag, ts) for tag in range(2 * PLACES) for ts in (0, 500)]))
def test_of_more_tags_than_places_the_strongest_survive(events: list[tuple[int, int]]) -> None:
    """Each of eight tags is stronger than all before it together: whatever the order, the four strongest stay."""
    tags = Tags()
    strength = {tag: 4.0**tag for tag in range(2 * PLACES)}
    for tag, ts in events:
        tags.add(1 + tag, ts, strength[tag] * 2 ** ((500 - ts) / 100))  # as strong at 500, whenever it happened
    assert sorted(tags.tags) == [5, 6, 7, 8]
    assert {float(tags.weight[j, MAIN]) for j in range(PLACES)} == {2 * strength[tag - 1] for tag in tags.tags}


@pytest.mark.parametrize(("published", "lost"), [(0.3, 1), (0.0, 0), (-0.3, 0)])
def test_only_a_tag_that_was_published_as_an_interest_is_named_when_it_leaves(published: float, lost: int) -> None:
    tags = Tags(places=1)
    tags.add(1, 0)
    tags.published[0] = published
    assert tags.add(2, 0) == lost
    assert tags.published[0] == 0


def test_the_weakest_is_the_same_for_a_late_event() -> None:
    """Who is weakest does not depend on when one looks: all fade alike."""
    tags = weighing((3, 700), (1, 1000), (2, 900))
    assert {weakest(tags, 3, now, 100.0) for now in (0, 500, 1000, 5000)} == {0}


def test_reading_changes_nothing() -> None:
    tags = Tags()
    tags.add(1, 500, 2.0)
    tags.add(2, 1000)
    before = tags.entries.tobytes()
    weakest(tags.entries, tags.n, 3000, 100.0)
    assert tags.entries.tobytes() == before
