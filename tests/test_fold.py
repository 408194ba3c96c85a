"""The fold held against a plain replay: the same events, in any order, any batches, with repeats."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.model.interests import EVER, LONG, LONG_EVENTS, SHORT, SHORT_EVENTS
from streamer.model.tag_mix import new_learned
from streamer.pipeline.fold import APPLIED, DUPLICATE, EXCESS, HOUR_MS, TAUGHT_AN_HOUR, TAUGHT_AN_ITEM
from streamer.pipeline.hashing import hash_id
from streamer.pipeline.layout import CURRENCIES, PREDECESSORS, TAGS, Shape, tags_of
from streamer.pipeline.rows import pack_learned
from streamer.profile import Profile
from tests.oracle import Replay, UserTruth
from tests.pipeline_world import DAY_MS, ITEMS, T0, Line, Record, click, purchase, state_of

EXACT = 1e-5  # float32 weights, a dozen of additions

item_ids = st.sampled_from([*ITEMS, "unlisted"])
own_tags = st.lists(st.sampled_from(["", "gift", "blue", "sale", "new"]), max_size=3)
moments = st.integers(T0 - 90 * DAY_MS, T0)


@st.composite
def user_events(draw: st.DrawFn, ids: st.SearchStrategy[str]) -> tuple[str, Record]:
    """(topic, record), all appended at the same time: as late as its user's latest."""
    event_id, item_id, ts, user_id = draw(ids), draw(item_ids), draw(moments), draw(st.sampled_from(["ann", "bob"]))
    tags = draw(own_tags)
    if draw(st.booleans()):
        return "clicks", click(event_id, item_id, ts, user_id, tags=tags)._replace(timestamp=T0)
    money = {"price": draw(st.integers(0, 10**5)) / 100, "currency": draw(st.sampled_from(["EUR", "USD"]))}
    bought = purchase(event_id, item_id, ts, user_id, tags=tags, quantity=draw(st.integers(1, 9)), **money)
    return "purchases", bought._replace(timestamp=T0)


some_repeats = st.lists(user_events(st.integers(0, 12).map(str)), max_size=25)
no_repeats = st.lists(user_events(st.uuids().map(str)), min_size=1, max_size=12)


def fed(events: list[tuple[str, Record]]) -> Line:
    """The pipeline after these events, one batch each."""
    line = Line()
    for topic, record in events:
        line.feed(**{topic: [record]})
    return line


def truth_of(events: list[tuple[str, Record]]) -> dict[str, UserTruth]:
    replay = Replay(ITEMS)
    for topic, record in events:
        replay.apply(topic, record.key, record.value, record.timestamp, partition=0)
    return replay.users


def assert_true(profile: Profile, truth: UserTruth) -> None:
    """Everything but shares, which hold against the population."""
    activity = profile.activity
    assert (activity.clicks, activity.purchases) == (truth.clicks, truth.purchases)
    assert activity.spend == pytest.approx(truth.spend)
    assert (activity.first_seen, activity.last_seen, profile.as_of) == (
        truth.first_seen,
        truth.last_seen,
        truth.last_seen,
    )
    assert list(activity.by_hour) == truth.by_hour
    assert [(item.item_id, item.ts, item.kind) for item in profile.recent_items] == truth.recent_items
    assert profile.cause == truth.cause
    interests = {interest.tag: interest for interest in profile.interests}
    assert interests.keys() == truth.interests.keys()
    for tag, true in truth.interests.items():
        assert interests[tag].weight == pytest.approx(true.weight, rel=EXACT, abs=1e-6)
        assert interests[tag].events == pytest.approx(true.events, rel=EXACT, abs=1e-4)
        assert interests[tag].last_ts == true.last_ts


@given(some_repeats)
def test_profiles_say_what_a_plain_replay_says(events: list[tuple[str, Record]]) -> None:
    line, users = fed(events), truth_of(events)
    assert line.slot_of.keys() == users.keys()
    for user_id, truth in users.items():
        assert_true(line.profile(user_id), truth)


@given(no_repeats.flatmap(lambda events: st.tuples(st.just(events), st.permutations(events))))
def test_the_order_of_arrival_does_not_matter_by_time(
    orders: tuple[list[tuple[str, Record]], list[tuple[str, Record]]],
) -> None:
    one, other = (fed(events) for events in orders)
    for line in (one, other):  # the weights of the mix do: they are learned before each event is counted
        line.world = line.world._replace(learned=new_learned())
    for user_id in one.slot_of:
        a, b = one.profile(user_id), other.profile(user_id)
        assert (a.activity, a.as_of) == (b.activity, b.as_of)
        assert sorted(a.recent_items, key=repr) == sorted(b.recent_items, key=repr)
        interests = {interest.tag: interest for interest in b.interests}
        for interest in a.interests:
            same = interests.pop(interest.tag)
            assert interest.last_ts == same.last_ts
            assert interest.weight == pytest.approx(same.weight, rel=EXACT, abs=1e-6)
            assert interest.recent == pytest.approx(same.recent, rel=EXACT, abs=2e-6)
            assert interest.events == pytest.approx(same.events, rel=EXACT, abs=1e-4)
        assert not interests


def weights(line: Line, scale: int) -> dict[str, float]:
    """By tag, as stored."""
    tags = tags_of(line.users, 0)
    names = (line.catalogue.tag_names[tag] for tag in tags["tag"].tolist())
    return dict(zip(names, tags["weight"][:, scale].tolist(), strict=True))


@given(some_repeats)
def test_scales_that_count_events_say_what_a_plain_replay_says(events: list[tuple[str, Record]]) -> None:
    line, users = fed(events), truth_of(events)
    for user_id, truth in users.items():
        slot = line.slot(user_id)
        assert line.users.head["clock"][slot] == truth.clock
        for tag in tags_of(line.users, slot):
            true = truth.interests[line.catalogue.tag_names[int(tag["tag"])]]
            steps = truth.clock - int(tag["at"])
            assert tag["weight"][SHORT] * 0.5 ** (steps / SHORT_EVENTS) == pytest.approx(
                true.short, rel=EXACT, abs=1e-6
            )
            assert tag["weight"][LONG] * 0.5 ** (steps / LONG_EVENTS) == pytest.approx(true.long, rel=EXACT, abs=1e-6)
            assert tag["weight"][EVER] == pytest.approx(true.ever, rel=EXACT)


def test_a_late_event_is_as_old_in_events_as_it_would_be_had_it_come_in_time() -> None:
    in_time, late = Line(), Line()
    records = [click("a", "tent", T0), click("b", "pan", T0 + 1), click("c", "pan", T0 + 2)]
    in_time.feed(records)
    late.feed([*records[1:], records[0]])
    assert late.users.head["clock"][0] == 2
    for scale in (SHORT, LONG, EVER):
        assert weights(late, scale) == pytest.approx(weights(in_time, scale))
    ages = [
        {int(tag["tag"]): int(line.users.head["clock"][0]) - int(tag["at"]) for tag in tags_of(line.users, 0)}
        for line in (in_time, late)
    ]
    assert ages[0] == ages[1]


# Repeats


def test_of_an_hour_with_one_item_the_first_events_teach_others_and_all_count_for_their_user() -> None:
    line = Line()
    outcomes = line.feed([click(str(i), "pan", T0 + i) for i in range(60)]).outcome.tolist()
    assert outcomes == [APPLIED] * TAUGHT_AN_ITEM + [EXCESS] * (60 - TAUGHT_AN_ITEM)
    [kitchen] = line.profile().interests
    assert kitchen.weight == pytest.approx(60, rel=1e-4)
    assert kitchen.events == pytest.approx(60, rel=1e-3)


def test_of_a_users_hour_only_so_many_events_teach_others() -> None:
    line = Line()
    clicks = [click(str(i), f"item {i}", T0 + i, tags=["pans"]) for i in range(TAUGHT_AN_HOUR + 20)]
    assert line.feed(clicks).outcome.tolist() == [APPLIED] * TAUGHT_AN_HOUR + [EXCESS] * 20
    assert line.feed([click("late", "mug", T0 - HOUR_MS)]).outcome.tolist() == [EXCESS]
    assert line.feed([click("other", "mug", T0, user_id="bob")]).outcome.tolist() == [APPLIED]
    assert line.feed([click("next", "mug", T0 + HOUR_MS)]).outcome.tolist() == [APPLIED]
    pans = next(interest for interest in line.profile().interests if interest.tag == "pans")
    assert pans.events == pytest.approx(len(clicks), rel=0.01)


@pytest.mark.parametrize(
    "fourth",
    [
        click("d", "pan", T0 + 3_600_002),
        click("d", "tent", T0 + 3),
        purchase("d", "pan", T0 + 3),
        click("d", "pan", T0 - 3_600_000),
        click("d", "pan", T0 + 3, user_id="bob"),
    ],
    ids=["an hour later", "another item", "another kind", "an hour before", "another user"],
)
def test_only_repeats_of_a_user_on_an_item_within_an_hour_teach_nothing(fourth: Record) -> None:
    line = Line()
    line.feed([click(name, "pan", T0 + i) for i, name in enumerate("abc")])
    topic = "purchases" if b"price" in (fourth.value or b"") else "clicks"
    assert line.feed(**{topic: [fourth]}).outcome.tolist() == [APPLIED]


def test_nothing_is_learned_from_repeats_nor_from_what_came_late() -> None:
    line = Line()
    line.feed([click("a", "pan", T0)])
    for record, events in [
        (click("b", "pan", T0 + 1), 1),
        (click("c", "pan", T0 + 2), 2),
        (click("d", "pan", T0 + 3), 2),
        (click("e", "tent", T0 - 1), 2),
        (click("f", "unlisted", T0 + 4), 2),
        (click("g", "tent", T0 + 5), 3),
    ]:
        line.feed([record])
        assert line.world.learned.events[0] == events


@given(some_repeats, st.integers(1, 7))
def test_batches_may_be_cut_anywhere(events: list[tuple[str, Record]], size: int) -> None:
    """One event a batch, or many of both topics together: not a bit differs."""
    events = [(topic, record._replace(timestamp=T0 + i)) for i, (topic, record) in enumerate(events)]
    together = Line()
    for user_id in fed(events).slot_of:
        together.slot(user_id)
    for start in range(0, len(events), size):
        batch = events[start : start + size]
        together.feed(
            clicks=[record for topic, record in batch if topic == "clicks"],
            purchases=[record for topic, record in batch if topic == "purchases"],
        )
    apart = fed(events)
    together.users.used[:] = apart.users.used  # numbers the batch
    assert state_of(together.users) == state_of(apart.users)
    assert pack_learned(together.world.learned) == pack_learned(apart.world.learned)
    assert together.causes == apart.causes


def is_repeat(line: Line, event_id: str) -> bool:
    return line.feed([click(event_id)]).outcome.tolist() == [DUPLICATE]


@pytest.mark.parametrize("width", [1, 2, 64, 300])
def test_exactly_the_last_event_ids_are_remembered(width: int) -> None:
    line = Line(shape=Shape(recent=4, seen=width, vector=8))
    line.feed([click(str(i)) for i in range(width)])
    assert is_repeat(line, "0")
    line.feed([click("one more")])
    assert not is_repeat(line, "0")
    assert is_repeat(line, "one more") == (width > 1)


def test_a_repeat_does_not_lengthen_the_memory_of_an_event_id() -> None:
    line = Line(shape=Shape(recent=4, seen=3, vector=8))
    line.feed([click(name) for name in ("a", "b", "a", "c", "d")])
    assert not is_repeat(line, "a")


def test_a_repeat_changes_nothing_but_the_time_of_use() -> None:
    line = Line()
    line.feed([click("a")])
    before = state_of(line.users._replace(used=np.zeros(1)))
    folded = line.feed([click("a", "tent", T0 + 5, tags=["x"])], [purchase("a")])
    assert folded.outcome.tolist() == [DUPLICATE, DUPLICATE]
    assert state_of(line.users._replace(used=np.zeros(1))) == before


def test_the_same_event_id_of_two_users_is_two_events() -> None:
    line = Line()
    assert line.feed([click("a"), click("a", user_id="bob")]).outcome.tolist() == [APPLIED, APPLIED]


def test_a_purchase_weighs_three_clicks() -> None:
    line = Line()
    line.feed([click("a", "pan")], [purchase("b", "tent")])
    weights = {interest.tag: interest.weight for interest in line.profile().interests}
    assert weights == {"kitchen": 1.0, "camping": 3.0}


def test_tags_of_an_event_count_beside_those_of_its_item_and_each_once() -> None:
    line = Line()
    line.feed([click("a", "mug", tags=["gift", "blue", "blue", ""])])
    assert {interest.tag: interest.weight for interest in line.profile().interests} == {
        "kitchen": 1.0,
        "gift": 1.0,
        "blue": 1.0,
    }


def test_money_is_summed_without_rounding_errors() -> None:
    line = Line()
    line.feed(purchases=[purchase(str(i), price=0.1, quantity=1) for i in range(30)])
    assert line.profile().activity.spend == {"EUR": 3.0}


def test_a_currency_too_many_counts_as_a_purchase_without_an_amount() -> None:
    line = Line()
    codes = ["AAA", "BBB", "CCC", "DDD", "EEE", "FFF", "GGG"]
    line.feed(purchases=[purchase(code, currency=code) for code in codes])
    activity = line.profile().activity
    assert activity.purchases == len(codes)
    assert activity.spend == dict.fromkeys(codes[:CURRENCIES], 10.0)


def test_hours_are_counted_in_utc() -> None:
    line = Line()
    line.feed([click("a", ts=T0), click("b", ts=T0 + 2 * 3_600_000)])
    assert [hour for hour, n in enumerate(line.profile().activity.by_hour) if n] == [0, 22]


def test_the_beginning_of_time_is_a_time() -> None:
    line = Line()
    line.feed([click("a", ts=0), click("b", ts=5)])
    assert line.profile().activity.first_seen == 0


def test_recent_items_are_the_newest_by_time_and_of_equals_the_later_arrival_first() -> None:
    line = Line(shape=Shape(recent=3, seen=64, vector=8))
    line.feed(
        [
            click("a", "mug", T0),
            click("b", "pan", T0 - 2),
            click("c", "tent", T0),
            click("d", "lamp", T0 - 1),
            click("e", "card", T0 - 9),
        ]
    )
    assert [item.item_id for item in line.profile().recent_items] == ["tent", "mug", "lamp"]


def test_predecessors_are_the_items_before_the_event_newest_first() -> None:
    line = Line()
    line.feed([click("a", "mug", T0 - 3), click("b", "pan", T0 - 1)])
    folded = line.feed([click("c", "tent", T0), click("d", "lamp", T0 - 2)])
    mug, pan, tent = (hash_id(item) for item in ("mug", "pan", "tent"))
    assert folded.predecessors[0, :3].tolist() == [pan, mug, 0]
    assert folded.predecessors[1, :4].tolist() == [tent, pan, mug, 0]
    assert folded.predecessors.shape == (2, PREDECESSORS)


def test_of_equal_times_a_purchase_is_the_newer_whichever_topic_was_read_first() -> None:
    bought, seen = purchase("p", "tent", T0), click("c", "mug", T0)
    one_way, other_way = Line(), Line()
    one_way.feed([seen])
    one_way.feed(purchases=[bought])
    other_way.feed(purchases=[bought])
    other_way.feed([seen])
    for line in (one_way, other_way):
        assert [item.item_id for item in line.profile().recent_items] == ["tent", "mug"]


def test_topics_are_folded_in_the_order_in_which_kafka_got_them() -> None:
    line = Line()
    line.feed(
        clicks=[click("a", "mug")._replace(timestamp=T0 + 1), click("b", "pan")._replace(timestamp=T0 + 3)],
        purchases=[purchase("c", "tent")._replace(timestamp=T0 + 2)],
    )
    assert line.causes[0] == b"b"
    assert line.users.touched_at[0] == T0 + 1


def test_within_a_topic_the_order_of_offsets_holds_even_when_timestamps_run_backwards() -> None:
    line = Line()
    line.feed(
        clicks=[click("a", "mug")._replace(timestamp=T0 + 5), click("b", "pan")._replace(timestamp=T0 + 1)],
        purchases=[purchase("c", "tent")._replace(timestamp=T0 + 2)],
    )
    assert [item.item_id for item in line.profile().recent_items] == ["tent", "pan", "mug"]
    assert line.causes[0] == b"b"


def test_a_tag_too_many_pushes_the_weakest_out() -> None:
    line = Line()
    line.feed([click(str(i), f"item {i}", T0 + i, tags=[f"tag {i}"]) for i in range(TAGS + 1)])
    tracked = {line.catalogue.tag_names[tag] for tag in tags_of(line.users, 0)["tag"].tolist()}
    assert tracked == {f"tag {i}" for i in range(1, TAGS + 1)}


def test_a_batch_of_nothing_but_bad_records_changes_nothing() -> None:
    line = Line()
    line.feed([click("a")])
    before = state_of(line.users)
    assert len(line.feed([Record(b"ann", b"{")], [Record(None, b"")]).outcome) == 0
    assert state_of(line.users) == before


def test_the_first_arrival_says_how_long_a_user_waits() -> None:
    line = Line()
    line.feed([click("a")._replace(timestamp=T0 + 7), click("b")._replace(timestamp=T0 + 9)])
    assert line.users.touched_at[0] == T0 + 7
