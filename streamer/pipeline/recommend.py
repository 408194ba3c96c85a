"""Recommend: rankings and likenesses in names, as they are given out. Changes nothing."""

from typing import Final, NamedTuple

import numpy as np

from streamer.events import KIND_NAMES
from streamer.model import mix
from streamer.pipeline.catalogue import Catalogue
from streamer.pipeline.hashing import hash_id
from streamer.pipeline.layout import recent_of
from streamer.pipeline.publish import World
from streamer.pipeline.rank import Filters, Ranker
from streamer.profile import ItemEvent
from streamer.recommendation import Recommendation, Recommendations, SimilarItem, SimilarItems

KIND_BITS: Final = 8  # of a recent item's `time`


class Wanted(NamedTuple):
    """What is asked for."""

    n: int
    tag: str | None = None  # only items with this tag
    exclude_seen: bool = True  # none of the user's recent items
    max_per_category: int | None = None


def recommend(
    ranker: Ranker, learned: mix.Mix, world: World, slot: int, user_id: str, wanted: Wanted
) -> Recommendations:
    """The best for a user as of their latest event, by what a mix has learned."""
    user = ranker.user(world.users, slot)
    head = world.users.head[slot]
    history, as_of = int(head["clicks"]) + int(head["purchases"]), int(head["as_of"])
    filters = Filters(
        without=user.items if wanted.exclude_seen else Filters().without,
        tag=None if wanted.tag is None else hash_id(wanted.tag),
        a_category=wanted.max_per_category,
    )
    theta = mix.weights_for(learned, history)
    ranked = ranker.rank(user, theta, wanted.n, as_of, filters)
    latest = _latest(ranker, world, slot)
    catalogue = world.space.catalogue
    items = tuple(
        Recommendation(
            catalogue.ids[one.slot],
            _title(catalogue, one.slot),
            one.score,
            one.shares,
            tuple(latest[own] for own in one.because),
        )
        for one in ranked
    )
    return Recommendations(user_id, as_of, world.space.model, items)


def _latest(ranker: Ranker, world: World, slot: int) -> dict[int, ItemEvent]:
    """The latest event of a user on each of their recent items, by the item's slot."""
    recent = recent_of(world.users, slot)
    catalogue = world.space.catalogue
    slots = world.space.slots(np.ascontiguousarray(recent["item"])).tolist()
    return {
        own: ItemEvent(catalogue.ids[own], time >> KIND_BITS, KIND_NAMES[time & 0xFF])
        for own, time in zip(reversed(slots), reversed(recent["time"].tolist()), strict=True)
        if own >= 0
    }


def similar(ranker: Ranker, item_id: str, n: int) -> SimilarItems | None:
    """The items whose vectors are nearest to that of an item, which may have none; None for an unknown item."""
    catalogue = ranker.space.catalogue
    slot = catalogue.slot_of.get(item_id)
    if slot is None:
        return None
    nearest = ranker.nearest(slot, n)
    items = tuple(SimilarItem(catalogue.ids[other], _title(catalogue, other), cosine) for other, cosine in nearest)
    return SimilarItems(item_id, ranker.space.model, items)


def _title(catalogue: Catalogue, slot: int) -> str:
    item = catalogue.facts[slot]
    return "" if item is None else item.title
