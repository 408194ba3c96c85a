"""Interests under test: how well a profile says which tags the user's next event has, whether or not the user had its
item before; `new_items` are those where not.

Held against the population's shares, and against plain counts over the user's life, mixed with the population's shares
by weights that are learned alike.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.model.history import BUCKETS, bucket
from streamer.model.tag_mix import EXPERTS, LONGEST, OWN, PRIOR, WINDOW, look_at
from streamer.pipeline.hashing import lookup_all
from streamer.pipeline.layout import tags_of
from streamer.pipeline.publish import World

FIRST: Final = 5
Chances = NDArray[np.float64]  # [tags] P(t)
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


class Lifetime:
    """Counts over each user's life and the population's shares, weighed by what they told before."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[int, float]] = {}
        self._credit = np.full((BUCKETS, 2), PRIOR / 2)  # [of the user, of the population]

    def chances(self, user_id: str, history: int, prior: NDArray[np.float64], tags: NDArray[np.int64]) -> Chances:
        """P(t) of all tags; and learn from the `tags` that came."""
        own = np.zeros(len(prior))
        for place, count in self._counts.get(user_id, {}).items():
            if place < len(own):
                own[place] = count
        credit = self._credit[bucket(history)]
        weighed = np.outer(credit / credit.sum(), np.ones(len(own))) * [own / max(own.sum(), 1), prior]
        credit += (weighed[:, tags] / np.maximum(weighed[:, tags].sum(axis=0), IMPOSSIBLE)).mean(axis=1)
        if credit.sum() > WINDOW:
            credit /= 2
        return np.asarray(weighed.sum(axis=0))

    def learn(self, user_id: str, tags: NDArray[np.int64]) -> None:
        """The event happened."""
        counts = self._counts.setdefault(user_id, {})
        for tag in tags.tolist():
            counts[tag] = counts.get(tag, 0.0) + 1 / len(tags)


class InterestTest:
    """Interests as profiles show them, and the two that they have to beat."""

    def __init__(self) -> None:
        self.all, self.new_items = Comparison(), Comparison()
        self._lifetime = Lifetime()

    def test(self, world: World, slot: int, user_id: str, item: int, now_ms: int, *, is_new: bool) -> None:
        """Before a user's event on an item (both in slots) at a time; `is_new` if the user never had the item."""
        population = world.space.catalogue.population
        prior = population.share
        tags = _tags(world, item)
        tags = tags[tags < len(prior)]  # others are newer than the population's shares
        if not len(tags):
            return
        head = world.users.head[slot]
        history = int(head["clicks"]) + int(head["purchases"])
        longest = prior[:, LONGEST]
        found = (
            _as_shown(world, slot, history, now_ms, prior),
            longest,
            self._lifetime.chances(user_id, history, longest, tags),
        )
        for comparison in (self.all, self.new_items) if is_new else (self.all,):
            comparison.add(found, tags)

    def learn(self, world: World, user_id: str, item: int) -> None:
        """The event happened."""
        self._lifetime.learn(user_id, _tags(world, item))

    def figures(self) -> dict[str, object]:
        """By name."""
        return {**self.all.figures(), "new_items": self.new_items.figures()}


class Comparison:
    """Interests, the population and lifetime counts over the same events."""

    def __init__(self) -> None:
        self.interests, self.population, self.lifetime = Tally(), Tally(), Tally()

    def add(self, found: tuple[Chances, Chances, Chances], tags: NDArray[np.int64]) -> None:
        """P(t) of all tags by each, and those that came."""
        for tally, chances in zip((self.interests, self.population, self.lifetime), found, strict=True):
            tally.add(chances, tags)

    def figures(self) -> dict[str, object]:
        """By name."""
        return {
            **self.interests.figures(),
            "global": self.population.figures(),
            "lifetime": self.lifetime.figures(),
        }


def _tags(world: World, item: int) -> NDArray[np.int64]:
    """Places of an item's tags in the population's."""
    catalogue = world.space.catalogue
    return _places(world, catalogue.tags[item, : catalogue.n_tags[item]])


def _places(world: World, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    table, places = world.space.catalogue.tag_table, np.empty(len(keys), np.int32)
    lookup_all(table.keys, table.values, np.ascontiguousarray(keys), places)
    return places.astype(np.int64)


def _as_shown(world: World, slot: int, history: int, now_ms: int, prior: NDArray[np.float64]) -> Chances:
    """P(t) of all tags as the profile has it; what the user does not have goes by the population's shares."""
    mind, head, tags = world.mind, world.users.head[slot], tags_of(world.users, slot)
    look_at(tags, now_ms, int(head["clock"]), history, mind.scales, mind.learned, mind.work)
    own, shared = mind.work.factor[:OWN], mind.work.factor[OWN:EXPERTS]
    chances: Chances = prior @ shared + own.sum() * mind.scales.smoothing * prior[:, LONGEST]
    places = _places(world, tags["tag"])
    known = (places >= 0) & (places < len(prior))
    chances[places[known]] += (mind.work.faded[: len(tags)] @ own)[known]
    return chances
