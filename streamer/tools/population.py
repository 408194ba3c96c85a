"""Who lives in the simulation: names, interests that drift, hours they like, comings and goings. Pure, seeded."""

from collections.abc import Callable
from itertools import accumulate
from math import cos, exp, pi
from random import Random
from typing import Literal

import msgspec

from streamer.tools.catalogue import Shelf

DRIFT = 1 / 40  # of visits end with one interest exchanged: an active person drifts every few weeks
TURNOVER = 1 / 50  # of visits are a newcomer's first, and as many are somebody's last
INTEREST_ZIPF = 0.5  # some interests are common, some rare: `lift` has something to say
HOUR_FOCUS = 1.5  # a person is e^3 = 20 times likelier at the best hour than at the worst
DRAWS = 64  # tries to find somebody idle who likes the hour; one in eight fits, so giving up is rarer than 1 in 5000
CURRENCIES = {"EUR": 1.0, "GBP": 0.85, "USD": 1.1, "SEK": 11.4, "CHF": 0.95}  # for one euro
_GIVEN = (
    "ada alan barbara blaise carl charles claude clara dorothy donald edsger emmy ernst evelyn frances george grace "
    "hedy henri ida isaac joan john karen katherine leonhard lise marie mary max niels radia rosalind shafi sofia "
    "stephen tim tu vera xia"
)
_FAMILY = (
    "lovelace turing liskov pascal gauss babbage shannon wieck vaughan knuth dijkstra noether mach boyd allen boole "
    "hopper lamarr poincare rhodes newton clarke mccarthy jones johnson euler meitner curie somerville planck bohr "
    "perlman franklin goldwasser kovalevskaya hawking lee youyou rubin peisu"
)
GIVEN, FAMILY = _GIVEN.split(), _FAMILY.split()

Change = Literal["arrived", "drifted", "left"]


class Truth(msgspec.Struct, frozen=True):
    """From `ts` on, `interests` (tag → share of visits, together 1) are what the user cares for; empty after `left`."""

    user_id: str
    ts: int
    change: Change
    interests: dict[str, float]


class Person:
    """Somebody with interests. `interests` maps an index of a shelf to its share of visits."""

    __slots__ = ("activity", "best_hour", "currency", "interests", "place", "user_id", "visits")

    def __init__(self, rng: Random, user_id: str, interests: dict[int, float]) -> None:
        self.user_id = user_id
        self.interests = interests
        self.activity = rng.betavariate(1.2, 3)  # most come seldom, few come often
        self.best_hour = rng.gauss(19, 4) % 24
        self.currency = rng.choice(tuple(CURRENCIES))
        self.visits = 0  # going on at this moment
        self.place = 0  # in the list of those present

    def likes(self, hour: float) -> float:
        """How likely this person is to begin a visit at this hour (0..24, UTC), against others and other hours."""
        return self.activity * exp(HOUR_FOCUS * (cos(2 * pi * (hour - self.best_hour) / 24) - 1))


class Population:
    """All who are present. Every change of somebody's interests is told to `on_truth` when it happens."""

    def __init__(self, rng: Random, shelves: list[Shelf], on_truth: Callable[[Truth], None]) -> None:
        self._rng = rng
        self._shelves = shelves
        self._on_truth = on_truth
        self._common = list(accumulate((rank + 1) ** -INTEREST_ZIPF for rank in range(len(shelves))))
        self._order = rng.sample(range(len(shelves)), len(shelves))
        self._present: list[Person] = []
        self._arrived = 0

    def arrive(self, ts: int) -> Person:
        """Somebody new, with two to four interests."""
        rng, person_number = self._rng, self._arrived
        shelves: dict[int, float] = {}
        for _ in range(min(rng.randint(2, 4), len(self._shelves))):
            shelves[self._new_interest(shelves)] = rng.uniform(0.2, 1)
        total = sum(shelves.values())
        person = Person(rng, user_name(person_number), {shelf: weight / total for shelf, weight in shelves.items()})
        person.place = len(self._present)
        self._present.append(person)
        self._arrived += 1
        self._tell(person, ts, "arrived")
        return person

    def visitor(self, ts: int) -> Person:
        """Who begins a visit at `ts`: now and then a newcomer, else somebody idle who likes the hour."""
        rng = self._rng
        if rng.random() < TURNOVER or not self._present:
            return self.arrive(ts)
        hour = ts / 3_600_000 % 24
        for _ in range(DRAWS):
            person = self._present[int(rng.random() * len(self._present))]
            if not person.visits and rng.random() < person.likes(hour):
                break
        return person

    def after_visit(self, person: Person, ts: int) -> None:
        """Perhaps the person drifts, perhaps they never come back."""
        chance = self._rng.random()
        if chance < DRIFT:
            self._drift(person, ts)
        elif chance > 1 - TURNOVER and not person.visits:
            self._leave(person, ts)

    def _drift(self, person: Person, ts: int) -> None:
        old = self._rng.choice(tuple(person.interests))
        if len(person.interests) < len(self._shelves):
            new = self._new_interest(person.interests)
            person.interests[new] = person.interests.pop(old)
            self._tell(person, ts, "drifted")

    def _leave(self, person: Person, ts: int) -> None:
        last = self._present.pop()
        if last is not person:
            self._present[person.place] = last
            last.place = person.place
        person.interests = {}
        self._tell(person, ts, "left")

    def _new_interest(self, known: dict[int, float]) -> int:
        while True:
            (shelf,) = self._rng.choices(self._order, cum_weights=self._common)
            if shelf not in known:
                return shelf

    def _tell(self, person: Person, ts: int, change: Change) -> None:
        interests = {self._shelves[shelf].tag: round(share, 4) for shelf, share in person.interests.items()}
        self._on_truth(Truth(person.user_id, ts, change, interests))


def user_name(number: int) -> str:
    """A readable user id, another for each number.

    >>> [user_name(number) for number in (0, 1, 40)]
    ['ada-lovelace-0', 'alan-jones-1', 'ada-turing-40']
    """
    turn, first = divmod(number, len(GIVEN))
    return f"{GIVEN[first]}-{FAMILY[(first * 23 + turn) % len(FAMILY)]}-{number}"
