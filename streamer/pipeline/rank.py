"""Rank: which items a user takes next, best first, each with what speaks for it. Reading: nothing changes but the mix,
and that only when it learns.
"""

from collections import Counter
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.model import experts, mix
from streamer.model.board import FLOOR
from streamer.model.experts import NAMES, User
from streamer.pipeline.layout import Users, recent_of
from streamer.pipeline.space import ItemSpace

BECAUSE: Final = 3  # items named behind a recommendation: enough for a sentence
LOOK_AHEAD: Final = 4  # candidates sorted for each that is wanted; all are when filters leave too few of these
EVERY: Final = 8  # of this many events the mix learns from one
SAMPLED: Final = 8  # and from so many a checkpoint: to score one takes 0.2 ms


class Scored(NamedTuple):
    """Candidates and what speaks for them."""

    slots: NDArray[np.int64]  # [c] in the catalogue
    evidence: NDArray[np.float32]  # [c, experts]


class Filters(NamedTuple):
    """What may be in a ranking."""

    without: NDArray[np.int64] = np.zeros(0, np.int64)  # catalogue slots, of what the user has
    tag: int | None = None  # only items with this tag (its hash)
    a_category: int | None = None  # at most so many items of one category


class Ranked(NamedTuple):
    """One recommendation."""

    slot: int
    score: float  # its probability among all candidates
    shares: dict[str, float]  # what part of what speaks for it comes from each expert; sums to 1
    because: tuple[int, ...]  # the user's own items (slots) that it follows or resembles, the strongest first


class Ranker:
    """Ranks by all experts, and learns how much each counts. Made before models are read: see `follow_transitions`."""

    def __init__(self, space: ItemSpace) -> None:
        self.space = space
        space.catalogue.models.follow_transitions()
        self.mix = mix.new_mix(len(NAMES))
        self._work = experts.scratch(0, 0)
        self._passed = 0

    def user(self, users: Users, slot: int) -> User:
        """What a ranking reads of a user's row."""
        recent = recent_of(users, slot)
        items = recent["item"].copy()
        return User(
            self.space.slots(items).astype(np.int64),
            recent["time"] >> 8,
            self.space.fold_in(items, np.array([0, len(items)]))[0],
        )

    def score(self, user: User, now_ms: int) -> Scored:
        """Candidates for a user as of a time, with the evidence for each."""
        board, models = self.space.board, self.space.catalogue.models
        items, tags = len(board.fade), len(board.tag_events)
        user = user._replace(items=self._known(user.items))
        if len(self._work.marks) != items or len(self._work.tags) != tags:
            self._work = experts.scratch(items, tags)
        return Scored(*experts.evidence(board, models.links, user, now_ms, self._work))

    def due(self) -> bool:
        """Whether the mix learns from the next event; counts it. See `renew`."""
        self._passed += 1
        return self._passed % EVERY == 0 and self._passed <= EVERY * SAMPLED

    def renew(self) -> None:
        """A checkpoint: the sample begins anew. So what it costs is bounded in time, however many events there are."""
        self._passed = 0

    def learn(self, scored: Scored, history: int, taken: int) -> float | None:
        """Learn that a user with so many events took the item in slot `taken`; log of its probability before that.

        None where it is no candidate: nothing is learned then.
        """
        found = np.flatnonzero(scored.slots == taken)
        if not len(found):
            return None
        return float(mix.learn(self.mix, history, scored.evidence, int(found[0])))

    def rank(self, user: User, history: int, n: int, now_ms: int, filters: Filters = Filters()) -> list[Ranked]:  # noqa: B008 - never changed
        """The n items that a user with so many events takes next, best first; of equals the first in the catalogue."""
        scored = self.score(user, now_ms)
        theta = mix.weights_for(self.mix, history)
        utility = mix.utilities(scored.evidence, theta)
        chance = np.exp(utility - utility.max(initial=-np.inf))
        chance /= chance.sum()
        chosen = self._choose(scored.slots, utility, n, filters)
        reasons = self._because(user, scored.slots[chosen], now_ms)
        return [
            Ranked(int(scored.slots[c]), float(chance[c]), _shares(scored.evidence[c], theta), because)
            for c, because in zip(chosen, reasons, strict=True)
        ]

    def nearest(self, slot: int, n: int) -> list[tuple[int, float]]:
        """The n items nearest to that in a slot, with their cosines, best first; none while it has no vector."""
        unit = self.space.board.unit
        if slot >= len(unit) or not unit[slot].any():
            return []
        cosines = unit @ unit[slot]
        cosines[slot] = 0  # left out, as those without a vector are
        order = _best(cosines, np.arange(len(unit)), np.flatnonzero(cosines), LOOK_AHEAD * n)
        return [(other, float(cosines[other])) for other in order if self._offered(other)][:n]

    def _choose(self, slots: NDArray[np.int64], utility: NDArray[np.float64], n: int, filters: Filters) -> list[int]:
        """Places of the n best candidates that the filters let through."""
        allowed = np.flatnonzero(self._allowed(slots, filters))
        head = min(len(allowed), LOOK_AHEAD * n)
        order = _best(utility, slots, allowed, head)
        chosen = self._pick(slots, order, n, filters.a_category)
        if len(chosen) < n and head < len(allowed):
            chosen = self._pick(slots, _best(utility, slots, allowed, len(allowed)), n, filters.a_category)
        return chosen

    def _pick(self, slots: NDArray[np.int64], order: list[int], n: int, a_category: int | None) -> list[int]:
        """The first n of `order` that may be offered."""
        chosen: list[int] = []
        count: Counter[str | int] = Counter()
        for c in order:
            slot = int(slots[c])
            category = self._category(slot)
            if self._offered(slot) and (a_category is None or count[category] < a_category):
                count[category] += 1
                chosen.append(c)
            if len(chosen) == n:
                break
        return chosen

    def _allowed(self, slots: NDArray[np.int64], filters: Filters) -> NDArray[np.bool_]:
        allowed = np.ones(len(slots), np.bool_) if not len(filters.without) else ~np.isin(slots, filters.without)
        return allowed if filters.tag is None else allowed & self._has_tag(slots, filters.tag)

    def _has_tag(self, slots: NDArray[np.int64], tag: int) -> NDArray[np.bool_]:
        catalogue = self.space.catalogue
        used = np.arange(catalogue.tags.shape[1]) < catalogue.n_tags[slots, None]
        return np.asarray(((catalogue.tags[slots] == np.uint64(tag)) & used).any(axis=1))

    def _offered(self, slot: int) -> bool:
        """The catalogue lists the item; where it lists none at all, events are enough."""
        catalogue = self.space.catalogue
        return catalogue.facts[slot] is not None or not catalogue.listed

    def _category(self, slot: int) -> str | int:
        """What diversity goes by: the item's category, or its first tag; an item without either is its own."""
        item = self.space.catalogue.facts[slot]
        if item is not None and item.category:
            return item.category
        return int(self.space.catalogue.tags[slot, 0]) if self.space.catalogue.n_tags[slot] else -slot - 1

    def _because(self, user: User, slots: NDArray[np.int64], now_ms: int) -> list[tuple[int, ...]]:
        """The user's own items behind each of the slots, the strongest first."""
        items = self._known(user.items)
        links = self.space.catalogue.models.links
        reasons = experts.reasons(self.space.board, links, user._replace(items=items), now_ms, slots)
        best = np.argsort(-reasons, axis=1, kind="stable")
        own = [
            [int(items[h]) for h in order if row[h] > 0]
            for row, order in zip(reasons.tolist(), best.tolist(), strict=True)
        ]
        return [tuple(dict.fromkeys(some))[:BECAUSE] for some in own]

    def _known(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots that the board has; -1 for those that are newer."""
        return np.where(items < len(self.space.board.fade), items, -1)


def _best(
    utility: NDArray[np.floating[Any]], slots: NDArray[np.int64], allowed: NDArray[np.int64], n: int
) -> list[int]:
    """The n best of the `allowed` places, best first; of equals the first in the catalogue."""
    if 0 < n < len(allowed):
        cut = np.partition(utility[allowed], len(allowed) - n)[len(allowed) - n]
        allowed = allowed[utility[allowed] >= cut]
    order = allowed[np.lexsort((slots[allowed], -utility[allowed]))]
    return list(order[:n].tolist())


def _shares(evidence: NDArray[np.float32], theta: NDArray[np.float64]) -> dict[str, float]:
    """Evidence above that of an expert who says nothing, by its weight."""
    part = np.maximum(evidence - np.log(FLOOR), 0) * theta
    total = float(part.sum())
    return {name: float(p) / total if total else 0.0 for name, p in zip(NAMES, part, strict=True)}
