"""People with known interests that drift: a seeded stream of catalogue, clicks and purchases. Pure.

How they behave: visits begin as a Poisson stream; whoever begins one is drawn by how active they are and by how much
they like the hour. A visit is about one of the person's interests and has a geometric number of clicks: mostly on that
interest's shelf, by Zipf popularity, now and then on another. What was looked at for long may be bought. After a visit
an interest may be exchanged for another (drift), or the person may never come back; newcomers take their place.
When few people have to make many events, time between clicks shrinks; the `dwell_ms` that they report does not.
"""

from bisect import bisect
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import dropwhile
from math import log
from random import Random

from streamer.events import Click, Item, Purchase, UserEvent
from streamer.tools.catalogue import Shelf, make_catalogue
from streamer.tools.population import CURRENCIES, Person, Population, Truth

VISIT_CLICKS = 6.0  # mean of a visit
DWELL_MS, DWELL_SPREAD = 12_000, 0.8  # log-normal: half of all looks last under 12 s, one in twenty over 45 s
CLICK_GAP_MS = 20_000  # mean time from click to click, a few seconds above the mean dwell of 16.5 s
BUY = 0.05  # of looks of 12 s end in a purchase, of longer ones up to LONGEST_LOOK times as many
LONGEST_LOOK = 4.0
EVENTS_PER_CLICK = 1.065  # a click and its purchases: 1 + BUY · E[min(dwell / 12 s, 4)] = 1 + 0.05 · 1.3
BUSY_SHARE = 0.3  # of all people on a visit at once, at the most
STRAY = 0.12  # of clicks are about something else
CHEAP = 30.0  # euros; below, people take several
PREROLL_CLICKS = 30  # mean gaps of clicks by which visits begin before the first event: five visits, a steady state


class Visit:
    """One person on the way through one interest."""

    __slots__ = ("person", "session_id", "shelf")

    def __init__(self, person: Person, shelf: Shelf, session_id: str) -> None:
        self.person = person
        self.shelf = shelf
        self.session_id = session_id


class Simulation:
    """A town of `users` people and a shop of `items` items; `events` lets time pass, again and again if need be.

    Ids of events and visits carry seed and start, so that a second run adds events instead of repeating them.
    """

    def __init__(
        self, seed: int, users: int, items: int, start_ms: int, on_truth: Callable[[Truth], None] = lambda _: None
    ) -> None:
        self._rng = Random(seed)  # noqa: S311 - a simulation has to be repeatable, not secret
        self._shelves = make_catalogue(self._rng, items)
        self._population = Population(self._rng, self._shelves, on_truth)
        for _ in range(users):
            self._population.arrive(start_ms)
        self._users = users
        self._run = f"{seed}-{start_ms}"
        self._now_ms = start_ms
        self._ids = 0
        self._squeeze = 1.0  # how much shorter time between clicks is than in life
        self._pending: list[tuple[int, int, Visit, Item | None]] = []  # heap: when, order, who, what is bought if any

    def catalogue(self) -> Iterator[Item]:
        """Every item, once."""
        for shelf in self._shelves:
            yield from shelf.items

    def events(self, rate: float, until_ms: int | None = None) -> Iterator[UserEvent]:
        """Events in the order of `ts`, `rate` a second on average, up to `until_ms` (never ends without it)."""
        visits_per_ms = rate / 1000 / (VISIT_CLICKS * EVENTS_PER_CLICK)
        self._squeeze = min(1.0, gap_ms(self._users, rate) / CLICK_GAP_MS)
        next_visit = self._now_ms + self._rng.expovariate(visits_per_ms)
        while True:
            ts = min(next_visit, self._pending[0][0]) if self._pending else next_visit
            if until_ms is not None and ts >= until_ms:
                self._now_ms = until_ms
                return
            if ts == next_visit:
                self._begin(int(ts))
                next_visit += self._rng.expovariate(visits_per_ms)
            else:
                yield self._step()

    def _begin(self, ts: int) -> None:
        person = self._population.visitor(ts)
        person.visits += 1
        (shelf,) = self._rng.choices(tuple(person.interests), tuple(person.interests.values()))
        self._push(ts, Visit(person, self._shelves[shelf], f"v-{self._run}-{self._next_id()}"))

    def _step(self) -> UserEvent:
        ts, _, visit, bought = heappop(self._pending)
        return self._click(ts, visit) if bought is None else self._purchase(ts, visit, bought)

    def _click(self, ts: int, visit: Visit) -> Click:
        rng = self._rng
        item = self._look_for(visit)
        dwell_ms = rng.lognormvariate(log(DWELL_MS), DWELL_SPREAD)
        if rng.random() < BUY * min(LONGEST_LOOK, dwell_ms / DWELL_MS):
            self._push(ts + int(dwell_ms * self._squeeze), visit, item)
        if rng.random() < 1 / VISIT_CLICKS:
            visit.person.visits -= 1
            self._population.after_visit(visit.person, ts)
        else:
            pause_ms = rng.expovariate(1 / (CLICK_GAP_MS / 6))
            self._push(ts + 1 + int((dwell_ms + pause_ms) * self._squeeze), visit)
        return Click(
            event_id=f"c-{self._run}-{self._next_id()}",
            user_id=visit.person.user_id,
            item_id=item.item_id,
            ts=ts,
            session_id=visit.session_id,
            dwell_ms=int(dwell_ms),
        )

    def _purchase(self, ts: int, visit: Visit, item: Item) -> Purchase:
        number = self._next_id()
        price, currency = item.price or 0.0, visit.person.currency
        return Purchase(
            event_id=f"p-{self._run}-{number}",
            user_id=visit.person.user_id,
            item_id=item.item_id,
            ts=ts,
            price=round(price * CURRENCIES[currency], 2),
            currency=currency,
            quantity=1 + int(self._rng.expovariate(1.5)) if price < CHEAP else 1,
            session_id=visit.session_id,
            order_id=f"o-{self._run}-{number}",
        )

    def _look_for(self, visit: Visit) -> Item:
        shelf = self._rng.choice(self._shelves) if self._rng.random() < STRAY else visit.shelf
        return shelf.items[bisect(shelf.popularity, self._rng.random() * shelf.popularity[-1])]

    def _push(self, ts: int, visit: Visit, bought: Item | None = None) -> None:
        heappush(self._pending, (ts, self._next_id(), visit, bought))

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids


def gap_ms(users: int, rate: float) -> float:
    """Mean time from click to click so that at most BUSY_SHARE of the people are on a visit at once."""
    return min(CLICK_GAP_MS, BUSY_SHARE * users / rate * 1000)


def generate(
    seed: int,
    users: int,
    items: int,
    rate: float,
    start_ms: int,
    *,
    until_ms: int | None = None,
    on_truth: Callable[[Truth], None] = lambda _: None,
) -> Iterator[UserEvent | Item]:
    """The catalogue, then events in the order of `ts` from `start_ms` on: the same arguments give the same stream.

    The town is awake before the first event, so that the rate holds from the start.
    """
    preroll_ms = int(PREROLL_CLICKS * gap_ms(users, rate))
    simulation = Simulation(seed, users, items, start_ms - preroll_ms, on_truth)
    yield from simulation.catalogue()
    yield from dropwhile(lambda event: event.ts < start_ms, simulation.events(rate, until_ms))
