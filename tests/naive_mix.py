"""The mix of scales behind shares in plain Python, from `tests.oracle`: no numpy, nothing of `streamer`.

It learns from every event, as the worker does from its first 2,000.
"""

from collections import defaultdict

from tests.oracle import Happened, UserTruth

SCALES = ("recent", "weight", "short", "long", "ever")
POPULATION = 4
START, PRIOR, WINDOW = 20.0, 30.0, 4000.0
SMOOTHING = 0.3
TAUGHT_AN_ITEM = 3  # events of a kind on one item within an hour


class NaiveMix:
    """`prior` has the population's shares of each tag, at 1, 7 and 30 days and in the catalogue."""

    def __init__(self, prior: dict[str, tuple[float, ...]]) -> None:
        self.prior = prior
        self.shared = [START * 0.5 / len(SCALES)] * len(SCALES) + [START * 0.5 / POPULATION] * POPULATION
        self.own: dict[int, list[float]] = defaultdict(lambda: [0.0] * len(self.shared))

    def before(self, user: UserTruth, event: Happened) -> None:
        """Learn from an event that is about to be counted."""
        if not user.events or not event.tags or event.repeats >= TAUGHT_AN_ITEM or event.ts < user.last_seen:
            return
        credit = [0.0] * len(self.shared)
        for tag in event.tags:
            parts = self._parts(user, tag, event.ts)
            for m, part in enumerate(parts):
                credit[m] += part / sum(parts) / len(event.tags)
        self.shared = self._counted(self.shared, credit)
        bucket = _bucket(user)
        self.own[bucket] = self._counted(self.own[bucket], credit)

    def share(self, user: UserTruth, tag: str) -> float:
        """P of a tag at the user's newest event."""
        return sum(self._parts(user, tag, user.last_seen))

    def recent(self, user: UserTruth, tag: str) -> float:
        """The same with the shortest time for all scales of the user."""
        weights, alone = self._weights(user), self._alone(user, tag, "recent", user.last_seen)
        of_all = sum(w * p for w, p in zip(weights[len(SCALES) :], self.prior[tag], strict=True))
        return sum(weights[: len(SCALES)]) * alone + of_all

    def _counted(self, sums: list[float], credit: list[float]) -> list[float]:
        new = [a + b for a, b in zip(sums, credit, strict=True)]
        return [each / 2 for each in new] if sum(new) > WINDOW else new

    def _parts(self, user: UserTruth, tag: str, now: int) -> list[float]:
        alone = [self._alone(user, tag, scale, now) for scale in SCALES] + list(self.prior[tag])
        return [weight * p for weight, p in zip(self._weights(user), alone, strict=True)]

    def _weights(self, user: UserTruth) -> list[float]:
        own = self.own[_bucket(user)]
        return [
            (mine + PRIOR * all_ / sum(self.shared)) / (sum(own) + PRIOR)
            for mine, all_ in zip(own, self.shared, strict=True)
        ]

    def _alone(self, user: UserTruth, tag: str, scale: str, now: int) -> float:
        half_life = {"recent": user.rules.recent_half_life_ms, "weight": user.rules.half_life_ms}.get(scale)
        left = 1.0 if half_life is None else 0.5 ** ((now - user.last_seen) / half_life)
        weights = {name: getattr(truth, scale) * left for name, truth in user.interests.items()}
        return (weights.get(tag, 0.0) + SMOOTHING * self.prior[tag][2]) / (sum(weights.values()) + SMOOTHING)


def _bucket(user: UserTruth) -> int:
    """1, 2–3, 4–7, … events."""
    return min((user.clicks + user.purchases).bit_length() - 1, 11)
