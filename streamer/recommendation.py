"""What is offered to a user, what resembles an item, and how good that is. Fields only get added, with a default."""

import msgspec

from streamer.profile import ItemEvent


class Recommendation(msgspec.Struct, frozen=True, gc=False):
    """One item. `score` is its probability among all items that could come next.

    `experts` tells by name which part of what speaks for it comes from whom (sums to 1); `because` names the user's own
    items that it follows or resembles, the strongest first.
    """

    item_id: str
    title: str
    score: float
    experts: dict[str, float]
    because: tuple[ItemEvent, ...] = ()


class Recommendations(msgspec.Struct, frozen=True, gc=False):
    """What a user may take next, best first. `as_of` is the newest ts (ms) applied to the user, as in the profile."""

    user_id: str
    as_of: int
    model: str
    items: tuple[Recommendation, ...]


class SimilarItem(msgspec.Struct, frozen=True, gc=False):
    """One item. `score` is the cosine of its vector and that of the item asked for, -1 to 1."""

    item_id: str
    title: str
    score: float


class SimilarItems(msgspec.Struct, frozen=True, gc=False):
    """The items whose vectors are nearest, best first."""

    item_id: str
    model: str
    items: tuple[SimilarItem, ...]


class Scores(msgspec.Struct, frozen=True, gc=False):
    """Means over `events` that were scored before they were learned from; all 0 where there were none.

    `hit_rate` is how often the item stood among the first 20, `expected` how often it should have by the probabilities
    given (calibrated where the two agree); `log_loss` is in nats. `popularity_…`: the same by popularity alone.
    """

    events: int = 0
    hit_rate: float = 0.0
    expected: float = 0.0
    log_loss: float = 0.0
    popularity_hit_rate: float = 0.0
    popularity_log_loss: float = 0.0


class QualityPoint(msgspec.Struct, frozen=True, gc=False):
    """The scores of one minute, which began at `at` (ms)."""

    at: int
    cold: Scores
    warm: Scores


class Quality(msgspec.Struct, frozen=True, gc=False):
    """How well this worker predicts what users take: since it started, and by minute (those with events), oldest first.

    A user with fewer than `cold_below` events is cold. `weights`: what each expert counts in the mix, by its name,
    the mean of the worker's partitions; empty where it owns none.
    """

    model: str
    cold_below: int
    cold: Scores
    warm: Scores
    weights: dict[str, float]
    points: tuple[QualityPoint, ...]
