"""Rankings over a small shop: what they offer, what they leave out, and what they say about it."""

import numpy as np
import pytest

from streamer.events import Item
from streamer.model.experts import NAMES
from streamer.pipeline.hashing import hash_id
from streamer.pipeline.item_model import MODEL_LAYOUT, ItemModel
from streamer.pipeline.rank import Filters, Ranked, Ranker
from tests.pipeline_world import ITEMS, T0, Line, click

STEP_MS = 1000


def model(item_id: str, events: int = 1, **before: float) -> ItemModel:
    """A model of an item that came so often after others; `events` on it just now."""
    return ItemModel(
        MODEL_LAYOUT,
        item_id,
        events,
        float(events),
        T0,
        b"",
        lately=(float(events), float(events)),
        landmark=T0,
        before=np.array([hash_id(name) for name in before], np.uint64).tobytes(),
        weights=np.array([[w, w] for w in before.values()], np.float32).tobytes(),
    )


class Shop:
    """Five items that all had events; after the mug people take the pan, after the tent the lamp."""

    def __init__(self) -> None:
        self.line = Line()
        self.ranker = Ranker(self.line.space)
        for one in (
            model("mug", 9),
            model("pan", 3, mug=3.0),
            model("tent", 8),
            model("lamp", 3, tent=3.0),
            model("card", 2),
        ):
            self.line.catalogue.apply_model(one)
        self.theta = np.full(len(NAMES), 0.3)
        self.renew()
        self._events = 0

    def renew(self) -> None:
        """What came since the last call is in rankings from here on."""
        self.line.space.refresh()
        self.ranker.renew()

    def look(self, *items: str, user_id: str = "ann") -> None:
        """Clicks, one after another."""
        for item_id in items:
            self._events += 1
            self.line.feed([click(f"e{self._events}", item_id, T0 + self._events * STEP_MS, user_id)])

    def ranked(self, n: int = 5, filters: Filters = Filters(), user_id: str = "ann") -> list[Ranked]:  # noqa: B008
        user = self.ranker.user(self.line.users, self.line.slot(user_id))
        return self.ranker.rank(user, self.theta, n, T0 + self._events * STEP_MS, filters)

    def names(self, *args: object, **kwargs: object) -> list[str]:
        return [self.line.catalogue.ids[one.slot] for one in self.ranked(*args, **kwargs)]

    def slots(self, *items: str) -> np.ndarray:  # type: ignore[type-arg]
        return np.array([self.line.catalogue.slot_of[name] for name in items])


@pytest.mark.parametrize(("looked", "first"), [("mug", "pan"), ("tent", "lamp")])
def test_what_follows_the_users_items_comes_first(looked: str, first: str) -> None:
    shop = Shop()
    shop.look(looked)
    assert shop.names(filters=Filters(without=shop.slots(looked)))[0] == first


def test_a_user_of_whom_nothing_is_known_is_offered_what_is_popular() -> None:
    shop = Shop()
    assert shop.names() == ["mug", "tent", "pan", "lamp", "card"]


def test_scores_are_probabilities_best_first() -> None:
    shop = Shop()
    shop.look("mug")
    scores = [one.score for one in shop.ranked()]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1)


def test_each_recommendation_says_which_experts_and_which_items_led_to_it() -> None:
    shop = Shop()
    shop.look("card", "mug")
    [pan] = [one for one in shop.ranked() if shop.line.catalogue.ids[one.slot] == "pan"]
    assert pan.shares.keys() == set(NAMES)
    assert sum(pan.shares.values()) == pytest.approx(1)
    assert pan.shares["transitions"] > 0.05
    assert [shop.line.catalogue.ids[slot] for slot in pan.because] == ["mug"]


def test_filters_leave_out_what_the_user_has_and_other_tags() -> None:
    shop = Shop()
    shop.look("mug")
    assert "mug" not in shop.names(filters=Filters(without=shop.slots("mug")))
    assert set(shop.names(filters=Filters(tag=hash_id("camping")))) == {"tent", "lamp"}
    assert shop.names(filters=Filters(tag=hash_id("nobody knows"))) == []
    assert len(shop.names(2)) == 2


def test_of_one_category_there_are_at_most_so_many() -> None:
    shop = Shop()
    for item_id, category in (("mug", "home"), ("pan", "home"), ("card", "home")):
        shop.line.catalogue.describe(Item(item_id, item_id.title(), tuple(ITEMS[item_id]), category))
    shop.renew()
    assert shop.names(filters=Filters(a_category=1)) == ["mug", "tent"]  # lamp and tent: the same first tag
    assert len(shop.names(filters=Filters(a_category=2))) == 4


def test_an_item_that_nobody_took_is_found_by_its_likeness() -> None:
    shop = Shop()
    shop.line.catalogue.describe(Item("hammock", "Hammock", ("camping", "light")))
    shop.renew()
    shop.look("lamp")
    [hammock] = [one for one in shop.ranked(6) if shop.line.catalogue.ids[one.slot] == "hammock"]
    assert hammock.shares["titles"] > 0.2
    assert [shop.line.catalogue.ids[slot] for slot in hammock.because] == ["lamp"]


def test_an_item_that_the_catalogue_dropped_is_never_offered() -> None:
    shop = Shop()
    shop.look("mug")
    shop.line.catalogue.forget("pan")
    shop.renew()
    assert "pan" not in shop.names()


def test_items_newer_than_the_board_are_passed_over() -> None:
    shop = Shop()
    shop.line.catalogue.apply_model(model("new", 5, mug=9.0))
    shop.look("mug", "another that is new")
    assert set(shop.names()) == set(ITEMS)


def test_filters_that_leave_few_of_the_best_go_on_to_the_rest() -> None:
    shop = Shop()
    for i in range(100):
        shop.line.catalogue.apply_model(model(f"more {i}", 50 + i))
        shop.line.catalogue.describe(Item(f"more {i}", "", ("kitchen",)))
    shop.renew()
    assert shop.names(2, filters=Filters(a_category=1)) == ["more 99", "tent"]
