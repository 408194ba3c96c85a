"""Users in memory: a bounded number of slots over the partitions' stores, shared by all partitions.

The least recently used leave, and only users whose changes are in the store may. A changed user is DIRTY until a
checkpoint's cut copies the row, and IN_FLIGHT until the store has it; it can be both. When a batch needs more slots
than can be freed, `CacheFullError` asks for a checkpoint first.
"""

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer import metrics
from streamer.pipeline.layout import Shape, Users, allocate, clear
from streamer.pipeline.rows import unpack

EVICT_PART: Final = 16  # at least 1/16 of the slots is freed at once: one pass over the columns serves many batches

DIRTY: Final = 1
IN_FLIGHT: Final = 2

Load = Callable[[list[bytes]], list[bytes | None]]


class CacheFullError(Exception):
    """Too many users with unsaved changes: checkpoint, then try again."""


class UserCache:
    """Slots, who sits in them, and what of them is not saved yet."""

    def __init__(self, capacity: int, shape: Shape) -> None:
        self.capacity = capacity
        self.users: Users = allocate(capacity, shape)
        self.key_of: list[bytes] = [b""] * capacity
        self.cause: list[bytes] = [b""] * capacity  # event id, UTF-8, behind a change that is not published yet
        self.unsaved = np.zeros(capacity, np.uint8)  # DIRTY | IN_FLIGHT
        self.partition_of = np.full(capacity, -1, np.int32)
        self.index: dict[int, dict[bytes, int]] = {}
        self.tick = 0  # +1 at every batch and every cut: what was used in this one stays in memory
        self._free = list(range(capacity - 1, -1, -1))

    def __len__(self) -> int:
        return self.capacity - len(self._free)

    def slots(self, partition: int, keys: Sequence[bytes], load: Load) -> NDArray[np.int64]:
        """The slot of each key, loading users that are not in memory; a user that has no row gets a blank slot.

        Raises CacheFullError before anything changed when there is no room.
        """
        index = self.index.setdefault(partition, {})
        slots = np.fromiter(map(index.get, keys, repeat(-1)), np.int64, len(keys))
        unknown = np.flatnonzero(slots < 0).tolist()
        missing = list(dict.fromkeys(keys[i] for i in unknown))
        if missing:
            self._make_room(len(missing), slots[slots >= 0])
            self._load(partition, missing, load(missing))
            slots[unknown] = [index[keys[i]] for i in unknown]
        metrics.CACHE_HITS.inc(len(set(keys)) - len(missing))
        self.users.used[slots] = self.tick  # a second call for the same batch must not evict them
        return slots

    def find(self, partition: int, key: bytes) -> int | None:
        """The slot of a user in memory."""
        return self.index.get(partition, {}).get(key)

    def drop(self, partition: int) -> None:
        """Forget a partition that is not ours any more."""
        index = self.index.pop(partition, {})
        slots = np.fromiter(index.values(), np.int64, len(index))
        self._release(slots)

    def _load(self, partition: int, keys: list[bytes], rows: list[bytes | None]) -> None:
        slots = np.array([self._free.pop() for _ in keys], np.int64)
        stored = [i for i, row in enumerate(rows) if row is not None]
        causes = unpack(self.users, slots[stored], [rows[i] for i in stored])  # type: ignore[misc]
        for i, cause in zip(stored, causes, strict=True):
            self.cause[slots[i]] = cause
        index = self.index[partition]
        for key, slot in zip(keys, slots.tolist(), strict=True):
            index[key] = slot
            self.key_of[slot] = key
        self.partition_of[slots] = partition
        self.users.used[slots] = self.tick
        metrics.CACHE_MISSES.inc(len(keys))
        metrics.CACHE_USERS.set(len(self))

    def _make_room(self, wanted: int, own: NDArray[np.int64]) -> None:
        """Evict until `wanted` slots are free. Users of the batch itself, in the slots `own`, stay."""
        short = wanted - len(self._free)
        if short <= 0:
            return
        self.users.used[own] = self.tick
        old = np.flatnonzero((self.partition_of >= 0) & (self.unsaved == 0) & (self.users.used < self.tick))
        if len(old) < short:
            raise CacheFullError(f"{wanted} users to load, {len(self._free)} slots free, {len(old)} can be freed")
        count = min(len(old), max(short, self.capacity // EVICT_PART))
        oldest = old[np.argpartition(self.users.used[old], count - 1)[:count]]
        for slot in oldest.tolist():
            del self.index[int(self.partition_of[slot])][self.key_of[slot]]
        self._release(oldest)
        metrics.CACHE_EVICTIONS.inc(count)

    def _release(self, slots: NDArray[np.int64]) -> None:
        clear(self.users, slots)
        self.partition_of[slots] = -1
        self.unsaved[slots] = 0
        for slot in slots.tolist():
            self.key_of[slot] = b""
            self.cause[slot] = b""
            self._free.append(slot)
        metrics.CACHE_USERS.set(len(self))
