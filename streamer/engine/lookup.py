"""Users looked for without their whole id, and a survey of what they like. Only reads.

Both touch many rows: they let others have their turn in between, and give up when partitions move meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamer.engine.engine import Engine
from streamer.engine.partition import Partition
from streamer.engine.store import USER
from streamer.pipeline import publish, rows
from streamer.pipeline.layout import are_known
from streamer.serving.view import FoundUser, FoundUsers, NotReady, Survey

SLOTS: Final = 65_536  # of the cache looked at in one turn: 0.2 ms
USERS: Final = 64  # surveyed in one turn: 0.5 ms
T = TypeVar("T")


class Entries(NamedTuple):
    """A user's share of a tag, entry by entry."""

    user: NDArray[np.int64]  # place of the user
    tag: NDArray[np.uint64]
    share: NDArray[np.float64]


async def find_users(engine: Engine, prefix: str, n: int) -> FoundUsers:
    """Stored users whose ids begin with `prefix`, in order of id; without one those in memory, the newest first.

    Raises NotReady.
    """
    found = await (_by_prefix(engine, prefix, n + 1) if prefix else _newest(engine, n + 1))
    return FoundUsers(prefix, tuple(found[:n]), more=len(found) > n)


async def _by_prefix(engine: Engine, prefix: str, n: int) -> list[FoundUser]:
    found: list[FoundUser] = []
    async for number in _turns(engine, sorted(engine.partitions)):
        found += islice(_stored(engine, engine.partitions[number], prefix.encode()), n)
    return sorted(found, key=lambda user: user.user_id)[:n]


def _stored(engine: Engine, partition: Partition, prefix: bytes) -> Iterator[FoundUser]:
    cache = engine.shared.cache
    for key, row in partition.store.scan(USER + prefix) if partition.store else ():
        user = key[len(USER) :]
        slot = cache.find(partition.number, user)
        if slot is None and not rows.is_blank(row):
            yield FoundUser(user.decode(), rows.as_of(row))
        elif slot is not None and are_known(cache.users, slot):
            yield FoundUser(user.decode(), int(cache.users.head["as_of"][slot]))


async def _newest(engine: Engine, n: int) -> list[FoundUser]:
    """Those used last, as far as batches tell; among them by their newest event."""
    cache = engine.shared.cache
    best = np.zeros(0, np.int64)
    async for start in _turns(engine, range(0, cache.capacity, SLOTS)):
        taken = np.flatnonzero(cache.partition_of[start : start + SLOTS] >= 0) + start
        best = _top(np.concatenate([best, taken]), cache.users.used, n)
    best = best[(cache.partition_of[best] >= 0) & are_known(cache.users, best)]
    found = [FoundUser(cache.key_of[slot].decode(), int(cache.users.head["as_of"][slot])) for slot in best.tolist()]
    return sorted(found, key=lambda user: (-user.as_of, user.user_id))


def _top(slots: NDArray[np.int64], used: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    return slots if len(slots) <= n else slots[np.argpartition(used[slots], -n)[-n:]]


async def survey(engine: Engine, users: int, tags: int) -> Survey:
    """The strongest tags, at most so many, of so many of the users in memory, spread evenly over them.

    Raises NotReady.
    """
    cache = engine.shared.cache
    slots = np.flatnonzero(cache.partition_of >= 0)
    slots = slots[:: max(-(-len(slots) // users), 1)]
    ids: list[str] = []
    parts: list[Entries] = []
    async for start in _turns(engine, range(0, len(slots), USERS)):
        chosen = slots[start : start + USERS]
        chosen = chosen[(cache.partition_of[chosen] >= 0) & are_known(cache.users, chosen)]
        found = _interests(engine, chosen)
        parts.append(found._replace(user=found.user + len(ids)))
        ids += [cache.key_of[slot].decode() for slot in chosen.tolist()]
    return _strongest(engine, ids, parts, tags)


def _interests(engine: Engine, slots: NDArray[np.int64]) -> Entries:
    """All that these users are interested in."""
    parts = [Entries(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0))]
    for number, partition in engine.partitions.items():
        mine = np.flatnonzero(engine.shared.cache.partition_of[slots] == number)
        assessed = publish.assess(partition.world, slots[mine])
        top = publish.interests(partition.world, slots[mine], assessed)
        share = top.numbers[:, :, 1]
        user, rank = np.nonzero(share >= engine.shared.policy.thresholds.enter)
        parts.append(Entries(mine[user], top.tag[user, rank], share[user, rank]))
    return Entries(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _strongest(engine: Engine, ids: list[str], parts: list[Entries], most: int) -> Survey:
    """The entries of the tags with most of all shares."""
    nothing = Entries(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0))
    user, tag, share = (np.concatenate(column) for column in zip(nothing, *parts, strict=True))
    hashes, place = np.unique(tag, return_inverse=True)
    order = np.argsort(-np.bincount(place, share, len(hashes)), kind="stable")[:most]
    rank = np.full(len(hashes), -1)
    rank[order] = np.arange(len(order))
    kept = rank[place] >= 0
    names = [_tag_name(engine, value) for value in hashes[order].tolist()]
    return Survey(len(engine.shared.cache), ids, names, user[kept], rank[place][kept], share[kept])


def _tag_name(engine: Engine, tag: int) -> str:
    """From the catalogue, or from a partition whose users brought the tag with their events."""
    known = engine.shared.catalogue.tag_names.get(tag)
    own = (partition.world.names.tag(tag) for partition in engine.partitions.values())
    return known or next((name for name in own if name is not None), "?")


async def _turns(engine: Engine, parts: Iterable[T]) -> AsyncIterator[T]:
    """The parts of a longer piece of work, with room for others in between. Raises NotReady when partitions move."""
    epoch = engine.epoch
    for part in parts:
        if not engine.ready or engine.epoch != epoch:
            raise NotReady(engine.reason)
        yield part
        await asyncio.sleep(0)
