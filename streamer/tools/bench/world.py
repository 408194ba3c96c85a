"""The backlog that all peers work through: the same users, items and events in every run. Pure.

Everybody has three favourite shelves and mostly looks there; of items and of users, a few are far busier than the rest.
"""

import functools
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.upstream import partition_of

SEED: Final = 1
CHUNK: Final = 10_000  # events drawn at once: numpy's own cost vanishes, memory stays small
START_MS: Final = 1_767_225_600_000  # 2026-01-01
SPAN_MS: Final = 30 * 86_400_000  # of event time, one main half-life of interests, whatever the number of events
BUY: Final = 0.05  # of events are purchases
ASTRAY: Final = 0.15  # of events are about something else than a favourite
FAVOURITES: Final = 3
SHELF_ITEMS: Final = 50
BRANDS, STYLES = 200, 40
SPREAD: Final = 1.2  # log-normal: the busiest tenth of the users makes almost half of all events

Line = tuple[str, bytes, bytes]  # contract topic, key, value


class World(NamedTuple):
    """How large the backlog is.

    `tour`: the first events are one of every user and one about every item, so that all of them are met. `rounds`: the
    first events are about every item in every one of so many partitions, one after the other. `active`: events are of
    so many users only, picked evenly from all of them and equally busy. `at` numbers the first event and
    `step_ms` is the event time between two, so that one world goes on where another ended; 0: SPAN_MS over all events.
    """

    users: int
    items: int
    events: int
    tour: bool = False
    rounds: int = 0
    active: int = 0
    at: int = 0
    step_ms: int = 0

    @property
    def shelves(self) -> int:
        """Items of a shelf share its tag."""
        return -(-self.items // SHELF_ITEMS)


def items(world: World) -> Iterator[Line]:
    """The catalogue: four tags an item."""
    for i in range(world.items):
        tags = b'"shelf %d","brand %d","style %d","%s"' % (
            i % world.shelves,
            i * 31 % BRANDS,
            i * 17 % STYLES,
            b"new" if i % 5 == 0 else b"classic",
        )
        yield "items", b"item-%d" % i, b'{"item_id":"item-%d","title":"Item %d","tags":[%s]}' % (i, i, tags)


def events(world: World) -> Iterator[Line]:
    """Clicks and purchases in the order of their time."""
    for columns in _draws(world):
        for i, user, item, ts, buys, extra in zip(*(column.tolist() for column in columns), strict=True):
            key = b"user-%d" % user
            head = b'{"event_id":"e%d","user_id":"%b","item_id":"item-%d","ts":%d,' % (i, key, item, ts)
            if buys:
                yield "purchases", key, head + b'"quantity":1,"price":%d.99,"currency":"EUR"}' % (extra % 100)
            else:
                yield "clicks", key, head + b'"session_id":"s%d","dwell_ms":%d}' % (i // 5, extra)


def counts(world: World) -> NDArray[np.int64]:
    """How many events each user has, i64[users]: what every peer has to arrive at."""
    total = np.zeros(world.users, np.int64)
    for draw in _draws(world):
        total += np.bincount(draw.user, minlength=world.users)
    return total


class _Draw(NamedTuple):
    """Events in columns."""

    number: NDArray[np.int64]
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    ts: NDArray[np.int64]
    buys: NDArray[np.bool_]
    extra: NDArray[np.int64]


def _draws(world: World) -> Iterator[_Draw]:
    rng = np.random.default_rng([SEED, world.at])
    busy = _shares(np.ones(world.active) if world.active else rng.lognormal(sigma=SPREAD, size=world.users))
    popular = _shares(1 / np.arange(1, SHELF_ITEMS + 1))
    for first in range(0, world.events, CHUNK):
        yield _draw(world, rng, np.arange(first, min(first + CHUNK, world.events)), busy, popular)


def _shares(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.cumsum(weights)
    total /= total[-1]
    return total


def _draw(
    world: World,
    rng: np.random.Generator,
    numbers: NDArray[np.int64],
    busy: NDArray[np.float64],
    popular: NDArray[np.float64],
) -> _Draw:
    n = len(numbers)
    users = np.searchsorted(busy, rng.random(n)) * (world.users // len(busy))
    if world.tour:
        users = np.where(numbers < world.users, numbers, users)
    favourites = (users * 7 + rng.integers(0, FAVOURITES, n) * 13) % world.shelves
    shelves = np.where(rng.random(n) < ASTRAY, rng.integers(0, world.shelves, n), favourites)
    step_ms = world.step_ms or max(SPAN_MS // world.events, 1)
    items = (np.searchsorted(popular, rng.random(n)) * world.shelves + shelves) % world.items
    if world.tour:
        items = np.where(numbers < world.items, numbers, items)
    if world.rounds:
        around = numbers < world.rounds * world.items
        users = np.where(around, _users_around(world, numbers), users)
        items = np.where(around, numbers % world.items, items)
    return _Draw(
        number=world.at + numbers,
        user=users,
        item=items,
        ts=START_MS + (world.at + numbers) * step_ms,
        buys=rng.random(n) < BUY,
        extra=rng.integers(1, 60_000, n),
    )


def _users_around(world: World, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Users of the partition whose round it is."""
    by_partition, first = _by_partition(world.users, world.rounds)
    partition = numbers // world.items % world.rounds
    places: NDArray[np.int64] = first[partition] + numbers % np.diff(first)[partition]
    return by_partition[places]


@functools.cache
def _by_partition(users: int, partitions: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Users in the order of their partitions, and where each partition begins, with the end."""
    partition = np.array([partition_of(b"user-%d" % user, partitions) for user in range(users)])
    return np.argsort(partition, kind="stable"), np.searchsorted(np.sort(partition), np.arange(partitions + 1))
