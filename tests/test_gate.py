"""Which changes are worth a message."""

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.model.interests import MAIN, Scales
from streamer.model.tag_mix import EXPERTS, Learned, new_learned, new_work
from streamer.pipeline.catalogue import Catalogue
from streamer.pipeline.gate import (
    ADDED,
    DROPPED,
    FIRST,
    INTERESTS,
    SAME,
    SHIFTED,
    VECTOR_EVERY,
    Assessed,
    Thresholds,
    assess,
    cosines,
    mark_published,
    quantise,
    rows_of,
    vector_is_old,
)
from streamer.pipeline.layout import N_TAGS, N_VECTOR, TAGS, Users, allocate, ensure_room, tags_of
from streamer.pipeline.population import Mind
from tests.pipeline_world import SHAPE, T0, Line, click, state_of

PLAIN = Thresholds(enter=0.02, leave=0.01, shift=0.25, cosine=0.9)
SLOTS = np.array([1])
ONLY_MAIN = Learned(np.eye(EXPERTS)[1], new_learned().own, new_learned().events)
MIND = Mind(Catalogue(8).population, Scales(1000.0, 10.0, 0.0), ONLY_MAIN, new_work(TAGS))


class One:
    """A user with two tags: one that has a given share, and the rest."""

    def __init__(self) -> None:
        self.users: Users = allocate(2, SHAPE)
        self.users.head["version"] = 1
        ensure_room(self.users, 1, 2, 0, 0, 0)
        self.users.head["counts"][1, N_TAGS] = 2
        self.tags = tags_of(self.users, 1)
        self.tags["tag"] = 7, 8
        self.tags["published"][1] = 1  # the rest is an interest, and shifts are looked at in the first one

    def hold(self, share: float, thresholds: Thresholds = PLAIN) -> Assessed:
        self.tags["weight"][:, MAIN] = share, 1 - share
        return assess(self.users, SLOTS, MIND, thresholds)

    def publish(self, found: Assessed) -> None:
        mark_published(self.users, SLOTS, found)


@pytest.mark.parametrize(
    ("share", "published", "status"),
    [
        (0.0200001, 0.0, ADDED),
        (0.0199999, 0.0, SAME),
        (0.0200001, -0.015, ADDED),
        (0.0199999, -0.019, SAME),
        (0.0100001, 0.03, SAME),
        (0.0099999, 0.03, DROPPED),
        (0.0, 1.0, DROPPED),
        (0.0, 0.0, SAME),
        (0.75, 0.5, SHIFTED),
        (0.5, 0.75, SHIFTED),
        (0.5, 0.2500001, SAME),
        (0.5, 0.5, SAME),
        (0.5, -0.5, ADDED),
    ],
)
def test_a_share_is_held_against_the_published_one(share: float, published: float, status: int) -> None:
    one = One()
    one.tags["published"][0] = published
    found = one.hold(share)
    assert found.share[0] == pytest.approx(share)
    assert found.status[0] == status


def test_a_tag_at_the_edge_does_not_flap() -> None:
    one, verdicts = One(), []
    for share in (0.03, 0.015, 0.011, 0.019, 0.009, 0.015, 0.019, 0.021, 0.012):
        found = one.hold(share)
        verdicts.append(int(found.status[0]))
        one.publish(found)
    assert verdicts == [ADDED, SAME, SAME, SAME, DROPPED, SAME, SAME, ADDED, SAME]


def test_what_is_published_is_what_later_shares_are_held_against() -> None:
    one = One()
    for share, kept in [(0.015, -0.015), (0.4, 0.4), (0.005, -0.005)]:
        one.publish(one.hold(share))
        assert one.tags["published"][0] == pytest.approx(kept)


def test_many_small_steps_that_are_never_published_add_up_to_a_shift() -> None:
    one = One()
    one.publish(one.hold(0.3))
    assert [int(one.hold(share).status[0]) for share in (0.4, 0.5, 0.54, 0.56)] == [SAME, SAME, SAME, SHIFTED]


def test_any_verdict_on_a_tag_is_a_reason() -> None:
    one = One()
    one.tags["published"] = 0.5
    assert one.hold(0.5).reasons.tolist() == [0]
    assert one.hold(0.005).reasons.tolist() == [INTERESTS]


def test_who_was_never_published_is_new() -> None:
    one = One()
    one.users.head["version"] = 0
    assert one.hold(0.5).reasons[0] & FIRST


def test_a_published_tag_that_had_to_leave_is_a_reason() -> None:
    one = One()
    one.publish(one.hold(0.5))
    one.users.head["lost_tag"][1] = 99
    assert one.hold(0.5).reasons.tolist() == [INTERESTS]


def test_shares_are_taken_at_the_users_own_newest_event() -> None:
    one = One()
    one.tags["ts"] = T0, T0 - 1000  # the second has faded by half
    one.users.head["as_of"][1] = T0
    assert one.hold(0.5).share.tolist() == pytest.approx([2 / 3, 1 / 3])


def test_a_user_without_tags_has_no_shares() -> None:
    users = allocate(2, SHAPE)
    users.head["version"] = 1
    found = assess(users, np.array([0, 1]), MIND, PLAIN)
    assert found.at.tolist() == [0, 0, 0]
    assert len(found.share) == 0
    assert not found.reasons.any()


def test_assessing_changes_nothing() -> None:
    line = Line()
    line.feed([click("a"), click("b", "tent")])
    line.cut()
    line.feed([click("c", "lamp")])
    before = state_of(line.users)
    assess(line.users, line.slots("ann", "nobody"), line.world.mind, line.world.policy.thresholds)
    assert state_of(line.users) == before


def test_verdicts_can_be_taken_for_some_of_the_users() -> None:
    line = Line()
    line.feed(
        [click("a", item, user_id=user_id) for user_id, item in [("ann", "mug"), ("bob", "pan"), ("cid", "lamp")]]
    )
    found = assess(line.users, line.slots("ann", "bob", "cid"), line.world.mind, PLAIN)
    some = rows_of(found, np.array([2, 0]))
    expected = assess(line.users, line.slots("cid", "ann"), line.world.mind, PLAIN)
    assert found.at.tolist() == [0, 2, 3, 5]
    assert [(a == b).all() for a, b in zip(some, expected, strict=True)] == [True] * len(found)


# Vectors


@pytest.mark.parametrize(("events", "old"), [(VECTOR_EVERY - 1, False), (VECTOR_EVERY, True), (100, True)])
def test_a_vector_is_old_after_so_many_events(events: int, old: bool) -> None:
    users = allocate(2, SHAPE)
    users.head["since_vector"][1] = events
    assert vector_is_old(users, SLOTS).tolist() == [old]


def floats(*rows: list[float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32)


@pytest.mark.parametrize(
    ("published", "now", "cosine"),
    [
        ([1, 0], [5, 0], 1.0),
        ([1, 0], [0, 2], 0.0),
        ([1, 0], [-3, 0], -1.0),
        ([1, 1], [1, 0], 0.5**0.5),
        ([0, 0], [0, 0], 1.0),
        ([0, 0], [1, 0], 1.0),
        ([1, 0], [0, 0], 1.0),
    ],
)
def test_cosines_tell_how_far_a_vector_moved(published: list[float], now: list[float], cosine: float) -> None:
    users = allocate(2, SHAPE._replace(vector=2))
    users.vector[SLOTS] = quantise(floats(published))
    users.head["counts"][1, N_VECTOR] = 2
    assert cosines(users, SLOTS, floats(now)) == pytest.approx([cosine])


def test_what_a_slot_held_before_is_no_published_vector() -> None:
    users = allocate(2, SHAPE._replace(vector=2))
    users.vector[:] = 77
    assert cosines(users, SLOTS, floats([1, 1])).tolist() == [0.0]


def test_vectors_as_bytes_keep_their_direction() -> None:
    rows = np.random.default_rng(1).normal(size=(50, 32)).astype(np.float32) * 1e-3
    kept = quantise(rows)
    assert np.abs(kept).max(axis=1).tolist() == [127] * 50
    again = kept.astype(np.float64)
    cosine = (again * rows).sum(axis=1) / np.linalg.norm(again, axis=1) / np.linalg.norm(rows, axis=1)
    assert cosine.min() > 0.9999


def test_no_vector_as_bytes_is_none() -> None:
    assert quantise(floats([0, 0])).tolist() == [[0, 0]]
    assert quantise(np.zeros((0, 8), np.float32)).shape == (0, 8)
