"""Checkpoints' cuts: what goes out and why, what is held back and until when."""

import numpy as np
import pytest

from streamer.pipeline.cut import DUE, HEARTBEAT
from streamer.pipeline.item_model import MODEL_LAYOUT, ItemModel
from streamer.pipeline.layout import N_VECTOR, TAGS, tags_of
from streamer.pipeline.rows import held_until
from streamer.profile import Change
from tests.pipeline_world import DAY_MS, T0, THRESHOLDS, Line, click, profiles, purchase


def settled(line: Line, events: int = 100) -> Line:
    """Ann has a long history of mugs, and is published."""
    line.feed([click(f"old {i}", "mug", T0 + i) for i in range(events)])
    line.cut()
    return line


def what(changed: tuple[Change, ...]) -> list[str]:
    return [change.what for change in changed]


def test_a_first_profile_is_published_at_once() -> None:
    line = Line()
    line.feed([click("a", "mug")])
    result = line.cut(now_ms=T0 + 5)
    [profile] = profiles(result)
    assert what(profile.changed) == ["first_profile"]
    assert (profile.version, profile.published_at, profile.cause) == (1, T0 + 5, "a")
    assert len(result.held) == 0


def test_publications_say_what_metrics_and_headers_need() -> None:
    line = Line()
    line.feed([click("a", "mug", T0 - 7)])
    [publication] = line.cut().publications
    assert (publication.key, publication.version) == (b"ann", 1)
    assert (publication.first_change, publication.since_ms) == ("first_profile", T0 - 7)


def test_a_profile_has_waited_since_the_first_event_that_no_cut_had_looked_at() -> None:
    line = Line()
    line.feed([click("a", "mug", T0)])
    line.feed([click("b", "mug", T0 + 300_000)])
    assert line.cut().publications[0].since_ms == T0
    line.feed([click(f"{n}", "tent", T0 + 400_000 + n) for n in range(20)])
    assert line.cut().publications[0].since_ms == T0 + 400_000


def test_versions_count_up_by_one() -> None:
    line, versions = Line(), []
    for item_id in ("mug", "tent", "card", "lamp"):
        line.feed([click(f"{item_id} {i}", item_id) for i in range(20)])
        versions += [profile.version for profile in profiles(line.cut())]
    assert versions == [1, 2, 3, 4]


def test_a_new_interest_is_named_with_its_share() -> None:
    line = settled(Line(), events=50)
    line.feed(purchases=[purchase("p", "tent", T0 + 49)])
    [profile] = profiles(line.cut())
    share = next(interest.share for interest in profile.interests if interest.tag == "camping")
    assert share > THRESHOLDS.enter
    assert profile.changed[0] == Change("interest_added", "camping", 0.0, round(share, 4))
    assert profile.cause == "p"


def test_a_shift_is_told_from_the_published_share_to_the_present_one() -> None:
    line = Line()
    line.feed([click("a", "pan"), click("b", "tent")])
    [before] = profiles(line.cut())
    line.feed([click(str(i), "tent") for i in range(3)])
    [after] = profiles(line.cut())
    shares = {interest.tag: (interest.share,) for interest in before.interests}
    for interest in after.interests:
        shares[interest.tag] += (interest.share,)
    told = {change.tag: (change.before, change.after) for change in after.changed if change.what == "interest_shifted"}
    assert told == {tag: tuple(round(share, 4) for share in pair) for tag, pair in shares.items()}
    before_share, after_share = shares["camping"]
    assert after_share >= before_share + THRESHOLDS.shift


def test_the_largest_change_stands_first() -> None:
    line = settled(Line())
    line.feed([click(f"t{i}", "lamp", T0 + 200) for i in range(30)] + [click("c", "card", T0 + 200)])
    line.feed(purchases=[purchase(f"p{i}", "tent", T0 + 200) for i in range(10)])
    [profile] = profiles(line.cut())
    moves = [abs((c.after or 0) - (c.before or 0)) for c in profile.changed if c.what.startswith("interest")]
    assert len(moves) > 2
    assert moves == sorted(moves, reverse=True)


def test_an_interest_that_faded_is_dropped() -> None:
    line = Line()
    line.feed([click("a", "unlisted", tags=["rare"]), click("b", "pan")])
    line.cut()
    line.feed([click(str(i), "pan", T0 + 30 * DAY_MS + i * 3_600_000) for i in range(300)])
    [profile] = profiles(line.cut())
    [dropped] = [change for change in profile.changed if change.what == "interest_dropped"]
    assert (dropped.tag, dropped.after is not None and dropped.after < THRESHOLDS.leave) == ("rare", True)


def test_an_interest_that_had_to_make_room_is_dropped_by_name() -> None:
    line = Line()
    line.feed([click("a", "tent", T0)])
    line.cut()
    line.feed([click(str(i), f"item {i}", T0 + 1 + i, tags=[f"tag {i}"]) for i in range(TAGS)])
    [profile] = profiles(line.cut())
    assert Change("interest_dropped", tag="camping", after=0.0) in profile.changed
    line.feed([click("more", "unlisted", T0 + 99, tags=["tag 5"])])
    assert all(change.tag != "camping" for profile in profiles(line.cut()) for change in profile.changed)


def give_vector(line: Line, item_id: str, *head: float) -> None:
    vector = np.zeros(8, np.float32)
    vector[: len(head)] = head
    line.catalogue.apply_model(ItemModel(MODEL_LAYOUT, item_id, 1, 0.0, 0, vector.tobytes()))
    line.space.refresh()


def test_a_vector_that_moved_is_a_reason_with_its_cosine() -> None:
    """Two items with the same tags: interests stay, the vector turns."""
    line = Line(items={"mug": ["kitchen"], "cup": ["kitchen"]})
    give_vector(line, "mug", 1, 0)
    give_vector(line, "cup", 0, 1)
    line.feed([click(f"m{i}", "mug", T0 + i) for i in range(40)])
    line.cut()
    line.feed([click(f"c{i}", "cup", T0 + 50 + i) for i in range(3)])
    assert profiles(line.cut()) == []  # not looked at before four events
    line.feed([click("c3", "cup", T0 + 60)])
    [profile] = profiles(line.cut())
    [change] = profile.changed
    assert (change.what, change.tag, change.before) == ("vector_moved", None, 1.0)
    assert change.after is not None
    assert 0 < change.after < THRESHOLDS.cosine
    line.feed([click(f"d{i}", "cup", T0 + 70 + i) for i in range(2)])
    assert profiles(line.cut()) == []


def test_a_small_change_is_held_back_until_it_is_due() -> None:
    line = settled(Line())
    line.feed([click("small", "mug", T0 + 200)])
    result = line.cut(due_ms=T0 + 60_000)
    assert result.publications == []
    assert result.held.tolist() == line.slots("ann").tolist()
    assert held_until(result.rows[0]) == T0 + 60_000
    assert result.rows[0].endswith(b"small")


def test_further_small_changes_keep_the_time_at_which_the_first_is_due() -> None:
    line = settled(Line())
    line.feed([click("small", "mug", T0 + 200)])
    line.cut(due_ms=T0 + 60_000)
    line.feed([click("smaller", "mug", T0 + 201)])
    result = line.cut(due_ms=T0 + 90_000)
    assert (result.publications, result.held.tolist()) == ([], [])
    assert held_until(result.rows[0]) == T0 + 60_000
    assert result.rows[0].endswith(b"smaller")


def test_a_change_that_is_due_is_published_with_its_cause() -> None:
    line = settled(Line())
    line.feed([click("small", "mug", T0 + 200)])
    line.cut()
    result = line.cut_some("ann", why=DUE, now_ms=T0 + 60_000)
    [profile] = profiles(result)
    assert (what(profile.changed), profile.cause, profile.version) == (["activity"], "small", 2)
    assert profile.activity.clicks == 101
    assert result.publications[0].since_ms == 0
    assert held_until(result.rows[0]) == 0
    assert line.causes[0] == b""


def test_a_material_change_takes_what_was_held_back_along() -> None:
    line = settled(Line(), events=50)
    line.feed([click("small", "mug", T0 + 200)])
    line.cut()
    line.feed(purchases=[purchase("large", "tent", T0 + 201)])
    result = line.cut()
    [profile] = profiles(result)
    assert (profile.activity.clicks, profile.activity.purchases, profile.cause) == (51, 1, "large")
    assert held_until(result.rows[0]) == 0


def test_after_a_publication_the_next_small_change_waits_anew() -> None:
    line = settled(Line())
    line.feed([click("small", "mug", T0 + 200)])
    line.cut(due_ms=T0 + 60_000)
    line.cut_some("ann", why=DUE)
    line.feed([click("next", "mug", T0 + 300)])
    result = line.cut(due_ms=T0 + 120_000)
    assert (result.held.tolist(), held_until(result.rows[0])) == ([0], T0 + 120_000)


def test_a_heartbeat_says_that_it_is_one_and_has_no_cause() -> None:
    line = settled(Line())
    [profile] = profiles(line.cut_some("ann", why=HEARTBEAT))
    assert (what(profile.changed), profile.cause, profile.version) == (["heartbeat"], "", 2)


def test_a_heartbeat_that_finds_a_change_says_both() -> None:
    line = settled(Line(), events=50)
    line.feed(purchases=[purchase("p", "tent", T0 + 49)])
    [profile] = profiles(line.cut_some("ann", why=HEARTBEAT))
    assert what(profile.changed)[:2] == ["heartbeat", "interest_added"]


@pytest.mark.parametrize(("before", "after"), [(0.0, 1.0), (1.0, 0.0)])
def test_a_vector_of_nothing_known_is_no_move(before: float, after: float) -> None:
    line = Line(items={"mug": ["kitchen"]})
    give_vector(line, "mug", before)
    line.feed([click(f"m{i}", "mug", T0 + i) for i in range(40)])
    line.cut()
    give_vector(line, "mug", after)
    line.feed([click(f"n{i}", "mug", T0 + 50 + i) for i in range(5)])
    assert profiles(line.cut()) == []


def test_users_are_judged_each_by_themselves_and_rows_stand_in_their_order() -> None:
    line = settled(Line())
    line.feed([click("x", "mug", T0 + 300), click("y", "tent", user_id="bob"), click("z", "pan", user_id="cid")])
    result = line.cut_some("cid", "ann", "bob")
    assert [profile.user_id for profile in profiles(result)] == ["cid", "bob"]
    assert [row[1] & 1 for row in result.rows] == [0, 1, 0]
    assert result.held.tolist() == line.slots("ann").tolist()


def test_a_cut_of_nobody_is_empty() -> None:
    result = Line().cut()
    assert (result.rows, result.publications, len(result.held)) == ([], [], 0)


def test_what_was_published_stands_in_the_row() -> None:
    line = Line()
    line.feed([click("a", "mug")])
    [profile] = profiles(line.cut(now_ms=T0 + 5))
    head = line.users.head[0]
    assert (head["version"], head["published_at"], head["counts"][N_VECTOR], head["since_vector"]) == (1, T0 + 5, 8, 0)
    assert line.users.vector[0].any()
    shares = [interest.share for interest in profile.interests]
    assert tags_of(line.users, 0)["published"].tolist() == pytest.approx(shares, rel=1e-4)
