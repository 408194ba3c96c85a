"""Rankings and likenesses as they are given out: in names, with titles, and with the user's own events behind them."""

import numpy as np
import pytest

from streamer.pipeline.mixer import new_mix
from streamer.pipeline.recommend import Wanted, recommend, similar
from streamer.recommendation import Recommendations
from tests.pipeline_world import T0, purchase
from tests.test_rank import STEP_MS, Shop


def recommended(shop: Shop, wanted: Wanted) -> Recommendations:
    world = shop.line.world
    return recommend(shop.ranker, new_mix(), world, shop.line.slot("ann"), "ann", wanted)


def test_each_item_has_its_title_and_the_latest_events_behind_it() -> None:
    shop = Shop()
    shop.look("mug", "card", "mug")
    shop.line.feed(purchases=[purchase("p1", "tent", T0 + 9 * STEP_MS)])
    found = recommended(shop, Wanted(2))
    assert (found.user_id, found.as_of) == ("ann", T0 + 9 * STEP_MS)
    assert {one.item_id: one.title for one in found.items} == {"pan": "Pan", "lamp": "Lamp"}
    because = {one.item_id: one.because[0] for one in found.items}
    assert (because["pan"].item_id, because["pan"].ts, because["pan"].kind) == ("mug", T0 + 3 * STEP_MS, "click")
    assert (because["lamp"].item_id, because["lamp"].kind) == ("tent", "purchase")


def test_what_the_user_saw_is_left_out_unless_it_is_asked_for() -> None:
    shop = Shop()
    shop.look("mug")
    assert "mug" not in [one.item_id for one in recommended(shop, Wanted(5)).items]
    assert "mug" in [one.item_id for one in recommended(shop, Wanted(5, exclude_seen=False)).items]
    assert [one.item_id for one in recommended(shop, Wanted(5, tag="kitchen")).items] == ["pan"]


def test_scores_are_probabilities_that_sum_to_one_at_most() -> None:
    shop = Shop()
    shop.look("mug")
    scores = [one.score for one in recommended(shop, Wanted(3)).items]
    assert all(0 < score < 1 for score in scores)
    assert sum(scores) <= 1


def test_similar_items_are_the_nearest_vectors() -> None:
    shop = Shop()
    vectors = shop.line.catalogue.vectors
    vectors[: len(shop.line.catalogue)] = 0
    for item_id, x, y in (("mug", 1, 0), ("pan", 3, 1), ("tent", -1, 0), ("lamp", 0, 2)):
        vectors[shop.line.catalogue.slot_of[item_id], :2] = x, y
    shop.renew()
    found = similar(shop.ranker, "mug", 3)
    assert found is not None
    assert [one.item_id for one in found.items] == ["pan", "lamp", "tent"]
    assert [one.score for one in found.items] == pytest.approx([3 / np.sqrt(10), 0, -1], abs=1e-6)
    assert found.items[0].title == "Pan"


def test_an_unknown_item_resembles_nothing_and_one_without_a_vector_nobody() -> None:
    shop = Shop()
    assert similar(shop.ranker, "nobody knows", 3) is None
    shop.line.catalogue.see("newer than the board")
    found = similar(shop.ranker, "newer than the board", 3)
    assert found is not None
    assert found.items == ()
