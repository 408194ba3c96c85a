"""Interests under test: how well a profile says which tags the user's next event has.

Held against the population's shares, and against plain counts over the user's life that are smoothed alike.
"""

from collections import Counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.model.interests import MAIN, shares
from streamer.pipeline.hashing import lookup_all
from streamer.pipeline.layout import tags_of
from streamer.pipeline.publish import World

FIRST: Final = 5
IMPOSSIBLE: Final = 1e-12  # what a likelihood of 0 counts as


class Tally:
    """Mean negative log likelihood of a tag, and how often it stood among the first five."""

    def __init__(self) -> None:
        self._tested = 0
        self._nll = self._hits = 0.0

    def add(self, likelihood: NDArray[np.float64], tags: NDArray[np.int64]) -> None:
        """`likelihood` f64[t] of all tags, and those that came."""
        self._tested += 1
        p = likelihood[tags]
        self._nll -= float(np.log(np.maximum(p, IMPOSSIBLE)).mean())
        fifth = np.partition(likelihood, -FIRST)[-FIRST] if len(likelihood) > FIRST else 0.0
        self._hits += float((p >= fifth).mean())

    def figures(self) -> dict[str, float]:
        """By name."""
        n = max(self._tested, 1)
        return {"nll": self._nll / n, "hr@5": self._hits / n}


class InterestTest:
    """Interests as profiles show them, and the two that they have to beat."""

    def __init__(self) -> None:
        self.interests, self.population, self.lifetime = Tally(), Tally(), Tally()
        self._counts: dict[str, Counter[int]] = {}

    def test(self, world: World, slot: int, user_id: str, item: int, now_ms: int) -> None:
        """Before a user's event on an item (both in slots) at a time."""
        prior = np.maximum(world.space.catalogue.tag_prior, world.space.catalogue.prior_floor)
        prior = prior / prior.sum() if len(prior) else prior
        tags = _tags(world, item)
        tags = tags[tags < len(prior)]  # others are newer than the population's shares
        if len(tags):
            self.population.add(prior, tags)
            self.interests.add(_as_shown(world, slot, now_ms, prior), tags)
            self.lifetime.add(_counted(self._counts.get(user_id, Counter()), prior, _smoothing(world)), tags)

    def learn(self, world: World, user_id: str, item: int) -> None:
        """The event happened."""
        self._counts.setdefault(user_id, Counter()).update(_tags(world, item).tolist())

    def figures(self) -> dict[str, object]:
        """By name."""
        return {
            **self.interests.figures(),
            "global": self.population.figures(),
            "lifetime": self.lifetime.figures(),
        }


def _smoothing(world: World) -> float:
    return world.policy.scales.smoothing


def _tags(world: World, item: int) -> NDArray[np.int64]:
    """Places of an item's tags in the population's."""
    catalogue = world.space.catalogue
    return _places(world, catalogue.tags[item, : catalogue.n_tags[item]])


def _places(world: World, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    table, places = world.space.catalogue.tag_table, np.empty(len(keys), np.int32)
    lookup_all(table.keys, table.values, np.ascontiguousarray(keys), places)
    return places.astype(np.int64)


def _as_shown(world: World, slot: int, now_ms: int, prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(t) of all tags as the profile has it; tags that it does not track share what is left by the population's."""
    tags = tags_of(world.users, slot)
    places = _places(world, tags["tag"])
    known = (places >= 0) & (places < len(prior))
    own, out = np.where(known, prior[np.where(known, places, 0)], 0.0), np.zeros(len(tags))
    smoothing = _smoothing(world)
    total = shares(tags, len(tags), now_ms, MAIN, world.policy.scales.half_life_ms, own, smoothing, out)
    likelihood = prior * (smoothing / (total + smoothing))
    likelihood[places[known]] = out[known]
    return np.asarray(likelihood)


def _counted(counts: Counter[int], prior: NDArray[np.float64], smoothing: float) -> NDArray[np.float64]:
    """P(t) of all tags by counts over the user's life."""
    likelihood = smoothing * prior
    for place, count in counts.items():
        if 0 <= place < len(prior):
            likelihood[place] += count
    return np.asarray(likelihood / likelihood.sum())
