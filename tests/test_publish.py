"""Profiles read off rows, against a plain replay and numbers worked out by hand."""

import base64
import math
from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.events import Item
from streamer.pipeline import publish
from streamer.pipeline.gate import INTERESTS
from streamer.pipeline.hashing import hash_id
from streamer.pipeline.item_model import MODEL_LAYOUT, ItemModel
from streamer.pipeline.profile_json import Telling, tell_as
from streamer.pipeline.publish import Names, World
from streamer.pipeline.reader import Reader
from streamer.pipeline.rows import pack, unpack
from streamer.profile import Interest, ItemEvent, Profile
from tests.naive_mix import NaiveMix
from tests.oracle import Replay
from tests.pipeline_world import DAY_MS, ITEMS, SHAPE, T0, Catalogued, Line, Record, click, profiles, purchase, state_of

# An item has one vote, for all its tags: nobody did anything yet, so these are the population's shares at any
# half-life, and those in the catalogue, where every tag has one vote more.
VOTES = {"kitchen": 1.5, "gift": 1.0, "camping": 1.5, "light": 0.5, "paper": 0.5}
PRIOR = {tag: votes / 5 for tag, votes in VOTES.items()}
POPULATION = {tag: (PRIOR[tag], PRIOR[tag], PRIOR[tag], (votes + 1) / 10) for tag, votes in VOTES.items()}


def interests(profile: Profile) -> dict[str, Interest]:
    return {interest.tag: interest for interest in profile.interests}


def test_a_first_click_in_numbers() -> None:
    line = Line()
    line.feed([click("a", "mug")])
    kitchen, gift = line.profile().interests
    split = (0.5 + 0.3 * 0.3) / (1 + 0.3)  # one of two tags, leaning on the population with the weight of .3
    main = (1 + 0.3 * 0.3) / (2 + 0.3)  # where an event counts in full for each of its tags
    of_all = (3 * 0.3 + 0.25) / 4
    share = round(0.5 * (4 * split + main) / 5 + 0.5 * of_all, 6)
    assert kitchen == Interest(
        tag="kitchen",
        weight=1.0,
        share=share,
        recent=round(0.5 * split + 0.5 * of_all, 6),
        lift=round(share / 0.3, 3),
        events=1.0,
        last_ts=T0,
        because=(ItemEvent("mug", T0, "click"),),
    )
    assert (gift.tag, gift.weight) == ("gift", 1.0)
    assert gift.share < share  # fewer have it


def test_what_a_month_makes_of_a_purchase() -> None:
    line = Line()
    line.feed([click("b", "tent", T0)], [purchase("a", "pan", T0 - 30 * DAY_MS)])
    found = interests(line.profile())
    kitchen, camping = found["kitchen"], found["camping"]
    assert (kitchen.weight, kitchen.events, kitchen.last_ts) == (1.5, 0.5, T0 - 30 * DAY_MS)
    assert (camping.weight, camping.events) == (1.0, 1.0)
    assert camping.recent > camping.share
    assert kitchen.recent < kitchen.share


histories = st.lists(
    st.tuples(st.sampled_from([*ITEMS]), st.integers(T0 - 80 * DAY_MS, T0), st.booleans()), min_size=1, max_size=20
)


@given(histories)
def test_every_number_of_an_interest_is_as_defined(history: list[tuple[str, int, bool]]) -> None:
    mix = NaiveMix(POPULATION)
    line, replay = Line(), Replay(ITEMS, before=mix.before)
    for i, (item_id, ts, bought) in enumerate(history):
        topic, make = ("purchases", purchase) if bought else ("clicks", click)
        record: Record = make(str(i), item_id, ts)._replace(timestamp=T0)
        line.feed(**{topic: [record]})
        replay.apply(topic, record.key, record.value, record.timestamp, partition=0)
    truth, found = replay.users["ann"], interests(line.profile())
    assert found.keys() == truth.interests.keys()
    for tag, interest in found.items():
        assert interest.weight == pytest.approx(truth.interests[tag].weight, rel=1e-5, abs=1e-6)
        assert interest.events == pytest.approx(truth.interests[tag].events, rel=1e-5, abs=1e-4)
        assert interest.share == pytest.approx(mix.share(truth, tag), abs=2e-6)
        assert interest.recent == pytest.approx(mix.recent(truth, tag), abs=2e-6)
        assert interest.lift == pytest.approx(mix.share(truth, tag) / PRIOR[tag], abs=1e-3)
        assert interest.last_ts == truth.interests[tag].last_ts
    shares = [interest.share for interest in found.values()]
    assert shares == sorted(shares, reverse=True)


@given(histories)
def test_because_names_the_newest_items_that_carry_the_tag_each_once(history: list[tuple[str, int, bool]]) -> None:
    line = Line()
    line.feed([click(str(i), item_id, ts)._replace(timestamp=T0) for i, (item_id, ts, _) in enumerate(history)])
    profile = line.profile()
    for interest in profile.interests:
        carriers = [event for event in profile.recent_items if interest.tag in ITEMS[event.item_id]]
        first_of_each = {event.item_id: event for event in reversed(carriers)}
        expected = sorted(first_of_each.values(), key=carriers.index)[:3]
        assert list(interest.because) == expected


def test_an_interest_that_no_recent_item_tells_of_has_no_because() -> None:
    line = Line()
    line.feed([click("a", "mug", tags=["blue"])])
    assert interests(line.profile())["blue"].because == ()


@pytest.mark.parametrize(("most", "tags"), [(1, ["camping"]), (2, ["camping", "kitchen"]), (24, None)])
def test_the_strongest_interests_are_shown_at_most_so_many(most: int, tags: list[str] | None) -> None:
    line = Line(interests=most)
    line.feed([click("a", "tent"), click("b", "tent"), click("c", "pan")], [purchase("d", "tent")])
    line.feed([click("e", "unlisted", tags=["blue"])])
    found = [interest.tag for interest in line.profile().interests]
    assert found == (tags or ["camping", "kitchen", "blue"])


def test_a_tag_that_nobody_is_known_to_have_counts_as_if_one_event_had_it() -> None:
    line = Line()
    line.feed([click("a", "unlisted", tags=["blue"])])
    [blue] = line.profile().interests
    alone = (1 + 0.3 * 0.01) / 1.3  # one of the 100 events that the catalogue weighs as
    assert blue.share == pytest.approx(0.5 * alone + 0.5 * (3 * 0.01 + 0.1) / 4, abs=1e-6)
    assert blue.lift == pytest.approx(blue.share / 0.01, abs=1e-3)


def test_the_lift_of_an_unknown_tag_grows_with_the_events_that_it_was_not_in() -> None:
    line = Line()
    line.feed([click("a", "unlisted", tags=["blue"])])
    line.catalogue.apply_model(ItemModel(MODEL_LAYOUT, "tent", 1, 900.0, T0, b""))
    line.space.refresh()
    [blue] = line.profile().interests
    assert blue.lift == pytest.approx(blue.share / 0.001, abs=1)


def test_a_first_click_on_a_fresh_item_leans_on_the_catalogue_that_lists_it() -> None:
    line = Line()
    line.catalogue.describe(Item("kite", "Kite", ("flying",)))
    line.feed([click("a", "kite")])
    [profile] = profiles(line.cut())
    [flying] = profile.interests
    alone = (1 + 0.3 / 6) / 1.3  # one of six items in the catalogue has it
    assert flying.share == pytest.approx(0.5 * alone + 0.5 * (3 / 6 + 2 / 12) / 4, abs=1e-6)
    assert flying.lift == pytest.approx(flying.share * 6, abs=1e-3)


def read_by_a_stranger(line: Line, names: Names) -> Profile:
    """Ann's row as a worker sees it whose catalogue has not heard of anything yet."""
    stranger = Line(items={})
    slots = stranger.slots("ann")
    unpack(stranger.users, slots, pack(line.users, line.slots("ann"), [b""]))
    world = stranger.world._replace(names=names)
    return publish.profile(world, int(slots[0]), "ann", INTERESTS)


def test_names_that_the_catalogue_does_not_know_come_from_the_fallback() -> None:
    line = Line()
    line.feed([click("a", "mug")])
    item, tag = {hash_id("mug"): "mug"}, {hash_id("kitchen"): "kitchen", hash_id("gift"): "gift"}
    profile = read_by_a_stranger(line, Names(item.get, tag.get))
    assert [interest.tag for interest in profile.interests] == ["kitchen", "gift"]
    assert profile.recent_items == (ItemEvent("mug", T0, "click"),)
    assert {change.tag for change in profile.changed} == {"kitchen", "gift"}


def test_what_nobody_can_name_any_more_is_left_out() -> None:
    line = Line()
    line.feed([click("a", "mug"), click("b", "pan", T0 + 1)])
    profile = read_by_a_stranger(line, Names({hash_id("pan"): "pan"}.get, {hash_id("kitchen"): "kitchen"}.get))
    assert [interest.tag for interest in profile.interests] == ["kitchen"]
    assert [item.item_id for item in profile.recent_items] == ["pan"]


def test_an_item_that_lost_its_tags_is_no_because_any_more() -> None:
    line = Line()
    line.feed([click("a", "mug"), click("b", "pan", T0 + 1)])
    kitchen = interests(line.profile())["kitchen"]
    assert [item.item_id for item in kitchen.because] == ["pan", "mug"]
    line.catalogue.forget("pan")
    kitchen = interests(line.profile())["kitchen"]
    assert [item.item_id for item in kitchen.because] == ["mug"]


def test_the_vector_is_little_endian_float32_in_base64() -> None:
    line = Line()
    line.feed([click("a", "mug")])
    profile = line.profile()
    vector = np.frombuffer(base64.b64decode(profile.vector), "<f4")
    assert (len(vector), profile.vector_dim, profile.model) == (8, 8, "bpr-8/1")
    assert vector.tolist() == publish.fold_in(line.world, line.slots("ann"))[0].tolist()
    assert vector.any()


def test_the_published_profile_is_the_one_that_is_read() -> None:
    line = Line()
    line.feed([click("a", "mug"), click("b", "lamp", T0 - 5)], [purchase("c", "pan", quantity=3, price=2.55)])
    read = line.profile()
    [published] = profiles(line.cut(now_ms=T0 + 9))
    assert published.activity.spend == {"EUR": 7.65}
    assert published.version == 1
    known_when_published = {"version": 0, "published_at": 0, "changed": read.changed}
    assert msgspec.structs.replace(published, **known_when_published) == read
    assert line.profile().version == 1


def test_a_profile_that_is_read_later_says_why_its_version_was_published() -> None:
    line = Line()
    line.feed([click('],"changed":[', "mug")])
    [publication] = line.cut().publications
    line.feed([click("b", "mug", T0 + 1)])
    read = reader().read(line.world, line.slot("ann"), "ann")
    published, told = (
        msgspec.json.decode(v, type=Profile) for v in (publication.value, tell_as(read, publication.value))
    )
    assert (told.changed, told.cause) == (published.changed, '],"changed":[')
    assert msgspec.structs.replace(told, changed=(), cause="") == msgspec.json.decode(read, type=Profile)


def reader() -> Reader:
    """As a worker has one, for the world of `Line`."""
    return Reader(SHAPE.recent, 20, SHAPE.vector)


def in_bulk(world: World, slot: int, user_id: str) -> bytes:
    """The profile as a cut writes it."""
    slots = np.array([slot])
    telling = Telling([user_id.encode()], [b""], np.zeros(1, np.uint8), np.ones(1))
    return publish.write(world, slots, publish.assess(world, slots), publish.fold_in(world, slots), telling).values[0]


def test_profiles_read_one_after_the_other_are_those_that_a_cut_writes() -> None:
    line, one = Line(), reader()
    people = ["ann", "bob", "cid"]
    for i, user_id in enumerate(people):
        line.feed([click(f"{user_id} {item_id}", item_id, T0, user_id) for item_id in [*ITEMS][: 2 * i + 1]])
    for user_id in ["cid", *people, "ann"]:  # from many items to few: nothing of the one before is left in the room
        slot = line.slot(user_id)
        assert one.read(line.world, slot, user_id) == in_bulk(line.world, slot, user_id)


@pytest.mark.parametrize("items", [{}, {"pan": ["kitchen"]}])
def test_names_beside_the_catalogue_are_found_for_one_as_for_many(items: Catalogued) -> None:
    line, stranger, one = Line(), Line(items), reader()
    line.feed([click("a", "mug"), click("b", "pan", T0 + 1), click("c", "lamp", user_id="bob")])
    item, tag = {hash_id("mug"): "mug"}, {hash_id("gift"): "gift"}
    elsewhere = line.world._replace(space=stranger.space, names=Names(item.get, tag.get))
    for user_id in ("ann", "bob", "ann"):
        slot = line.slot(user_id)
        assert one.read(elsewhere, slot, user_id) == in_bulk(elsewhere, slot, user_id)
    assert [it.item_id for it in msgspec.json.decode(one.read(elsewhere, 0, "ann"), type=Profile).recent_items] == [
        *items,
        "mug",
    ]


def test_users_that_are_read_together_do_not_mix() -> None:
    line = Line()
    for i, user_id in enumerate(["ann", "bob", "cid"]):
        line.feed([click(f"{user_id} {item_id}", item_id, T0, user_id) for item_id in [*ITEMS][: 2 * i + 1]])
    slots = line.slots("cid", "ann", "bob")
    telling = Telling([b"cid", b"ann", b"bob"], [b"", b"", b""], np.zeros(3, np.uint8), np.ones(3))
    assessed, vectors = publish.assess(line.world, slots), publish.fold_in(line.world, slots)
    written = publish.write(line.world, slots, assessed, vectors, telling)
    together = [msgspec.json.decode(value, type=Profile) for value in written.values]
    alone = [msgspec.structs.replace(line.profile(user_id), changed=(), cause="") for user_id in ("cid", "ann", "bob")]
    assert together == alone


def test_reading_never_creates_state() -> None:
    line = Line()
    line.feed([click("a", "mug"), click("b", "tent", user_id="bob")])
    line.cut()
    line.feed([click("c", "pan", T0 + 5)])
    line.slot("nobody")
    before, catalogue = state_of(line.users), len(line.catalogue)
    for user_id in ("ann", "bob", "nobody"):
        line.profile(user_id)
    assert state_of(line.users) == before
    assert len(line.catalogue) == catalogue
    assert line.profile("nobody").interests == ()


@given(histories)
def test_profiles_are_json_of_finite_numbers(history: list[tuple[str, int, bool]]) -> None:
    line = Line()
    line.feed([click(str(i), item_id, ts)._replace(timestamp=T0) for i, (item_id, ts, _) in enumerate(history)])
    [profile] = profiles(line.cut())
    numbers = Counter(
        math.isfinite(number)
        for interest in profile.interests
        for number in (interest.weight, interest.share, interest.recent, interest.lift, interest.events)
    )
    assert not numbers[False]
