"""Published profiles on their way to live readers: who wants what, in bounded queues. One event loop, no locks.

A reader of one user gets all of that user's profiles. A reader of all users names a rate, and gets so many a second:
a checkpoint may publish twenty thousand profiles at once, more than any page can show; it is told how many it missed.
A reader whose queue is full is dropped: it never holds up the worker, nor grows its memory.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

QUEUE = 256  # changes: more than one user's in any checkpoint; with profiles of 4 KB at most 1 MB a reader


class Change(NamedTuple):
    """One published profile, encoded once for all readers."""

    user_id: str
    version: int
    value: bytes


class Subscription:
    """One reader's end: `next()` waits for a change; `dropped` tells that the reader was too slow and gets no more."""

    def __init__(self, per_second: int | None, clock: Callable[[], float]) -> None:
        self._queue: asyncio.Queue[Change] = asyncio.Queue(QUEUE)
        self._per_second, self._clock = per_second, clock
        self._allowed, self._refilled = float(per_second or 0), clock()
        self.skipped = 0  # changes left out to keep the rate
        self.dropped = False

    async def next(self, timeout_s: float) -> Change | None:
        """The next change, or None when there was none for `timeout_s` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                return await self._queue.get()
        return None

    def offer(self, change: Change) -> None:
        """Queue a change, unless it is over the rate; a full queue drops the reader."""
        if self.dropped:
            return
        if not self._admit():
            self.skipped += 1
        elif self._queue.full():
            self.dropped = True
        else:
            self._queue.put_nowait(change)

    def _admit(self) -> bool:
        """A token bucket that holds the tokens of one second."""
        if self._per_second is None:
            return True
        now = self._clock()
        refill = (now - self._refilled) * self._per_second
        self._allowed, self._refilled = min(self._per_second, self._allowed + refill), now
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True


class Feed:
    """All live readers of a worker. The engine calls `publish` after a commit."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._everyone: set[Subscription] = set()
        self._by_user: defaultdict[str, set[Subscription]] = defaultdict(set)

    @contextmanager
    def subscribe(self, user_id: str | None, per_second: int | None) -> Iterator[Subscription]:
        """Changes of one user, or of all (None), at most `per_second` of them, while the context is open."""
        reader = Subscription(per_second, self._clock)
        readers = self._everyone if user_id is None else self._by_user[user_id]
        readers.add(reader)
        try:
            yield reader
        finally:
            readers.discard(reader)
            if user_id is not None and not readers:
                self._by_user.pop(user_id, None)

    def publish(self, user_id: str, version: int, value: bytes) -> None:
        """Hand one profile, as it went to Kafka, to all who want it. Never waits."""
        readers = self._everyone | self._by_user.get(user_id, set())
        if not readers:
            return
        change = Change(user_id, version, value)
        for reader in readers:
            reader.offer(change)
