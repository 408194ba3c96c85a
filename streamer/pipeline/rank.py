"""Rank: which items a user takes next, best first, each with what speaks for it. Ranking changes nothing."""

from collections import Counter
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.model import experts, mix
from streamer.model.board import FLOOR
from streamer.model.experts import NAMES, User
from streamer.model.ragged import UNLIMITED
from streamer.pipeline.layout import Users, recent_of
from streamer.pipeline.space import ItemSpace, make_board

BECAUSE: Final = 3  # items named behind a recommendation: enough for a sentence
LOOK_AHEAD: Final = 4  # candidates sorted for each that is wanted; all are when filters leave too few of these


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
    """Ranks by all experts, as of the last `renew`. Made before models are read: see `follow_transitions`."""

    def __init__(self, space: ItemSpace, most_bytes: int = UNLIMITED) -> None:
        self.space = space
        space.catalogue.models.follow_transitions(most_bytes)
        self.board = make_board(space.sources())
        self._work = experts.scratch(0, 0)

    def renew(self) -> None:
        """Take in what changed since the last call."""
        catalogue = self.space.catalogue
        catalogue.models.link_all(catalogue.table)
        self.board = make_board(self.space.sources())

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
        board, models = self.board, self.space.catalogue.models
        items, tags = len(board.fade), len(board.tag_events)
        user = user._replace(items=self._known(user.items))
        if len(self._work.marks) != items or len(self._work.tags) != tags:
            self._work = experts.scratch(items, tags)
        return Scored(*experts.evidence(board, models.links, user, now_ms, self._work))

    def rank(
        self,
        user: User,
        theta: NDArray[np.float64],
        n: int,
        now_ms: int,
        filters: Filters = Filters(),  # noqa: B008 - never changed
    ) -> list[Ranked]:
        """The n items that a user takes next, best first, by the weights `theta` of experts (`mix.weights_for`).

        Of equals the first in the catalogue. Scores are probabilities among all items that had events.
        """
        scored = self.score(user, now_ms)
        outside = max(self.board.seen - int(self.board.taken[scored.slots].sum()), 0)
        chance = mix.chances(scored.evidence, theta, experts.SILENCE, outside)
        chosen = self._choose(scored.slots, chance[:-1], n, filters)
        return list(
            map(
                Ranked,
                scored.slots[chosen].tolist(),
                chance[chosen].tolist(),
                _shares(scored.evidence[chosen], theta),
                self._because(user, scored.slots[chosen], now_ms),
            )
        )

    def nearest(self, slot: int, n: int) -> list[tuple[int, float]]:
        """The n items nearest to that in a slot, with their cosines, best first; none while it has no vector."""
        unit = self.board.unit
        if slot >= len(unit) or not unit[slot].any():
            return []
        cosines = unit @ unit[slot]
        others = np.delete(np.arange(len(unit)), slot)
        order = _best(cosines, np.arange(len(unit)), others, LOOK_AHEAD * n)
        return [(other, float(cosines[other])) for other in order if self._offered(other) and unit[other].any()][:n]

    def _choose(self, slots: NDArray[np.int64], chance: NDArray[np.float64], n: int, filters: Filters) -> list[int]:
        """Places of the n best candidates that the filters let through."""
        allowed = np.flatnonzero(self._allowed(slots, filters))
        head = min(len(allowed), LOOK_AHEAD * n)
        order = _best(chance, slots, allowed, head)
        chosen = self._pick(slots, order, n, filters.a_category)
        if len(chosen) < n and head < len(allowed):
            chosen = self._pick(slots, _best(chance, slots, allowed, len(allowed)), n, filters.a_category)
        return chosen

    def _pick(self, slots: NDArray[np.int64], order: list[int], n: int, a_category: int | None) -> list[int]:
        """The first n of `order` that may be offered."""
        chosen: list[int] = []
        count: Counter[str | int | None] = Counter()
        for c in order:
            slot = int(slots[c])
            category = None if a_category is None else self._category(slot)
            if self._offered(slot) and (a_category is None or count[category] < a_category):
                count[category] += 1
                chosen.append(c)
            if len(chosen) == n:
                break
        return chosen

    def _allowed(self, slots: NDArray[np.int64], filters: Filters) -> NDArray[np.bool_]:
        allowed = ~np.isin(slots, filters.without, kind="table")
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
        reasons = experts.reasons(self.board, links, user._replace(items=items), now_ms, slots)
        best = np.argsort(-reasons, axis=1, kind="stable")[:, : LOOK_AHEAD * BECAUSE]  # some are the same item
        own = [
            [slot for slot, reason in zip(*row, strict=True) if reason > 0]
            for row in zip(items[best].tolist(), np.take_along_axis(reasons, best, axis=1).tolist(), strict=True)
        ]
        return [tuple(dict.fromkeys(some))[:BECAUSE] for some in own]

    def _known(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots that the board has; -1 for those that are newer."""
        return np.where(items < len(self.board.fade), items, -1)


def _best(score: NDArray[np.floating[Any]], slots: NDArray[np.int64], allowed: NDArray[np.int64], n: int) -> list[int]:
    """The n best of the `allowed` places, best first; of equals the first in the catalogue."""
    if 0 < n < len(allowed):
        cut = np.partition(score[allowed], len(allowed) - n)[len(allowed) - n]
        allowed = allowed[score[allowed] >= cut]
    order = allowed[np.lexsort((slots[allowed], -score[allowed]))]
    return list(order[:n].tolist())


def _shares(evidence: NDArray[np.float32], theta: NDArray[np.float64]) -> list[dict[str, float]]:
    """Of each row of evidence what is above that of an expert who says nothing, by its weight; each row sums to 1."""
    parts = np.maximum(evidence - np.log(FLOOR), 0) * theta
    parts /= np.maximum(parts.sum(axis=1, keepdims=True), 1e-300)
    return [dict(zip(NAMES, row, strict=True)) for row in parts.tolist()]
