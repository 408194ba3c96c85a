"""Published profiles on their way to live readers: who wants what, in bounded queues. One event loop, no locks.

A reader of one user gets all of that user's profiles. A reader of all users names a rate, and gets so many a second:
a checkpoint may publish twenty thousand profiles at once, more than any page can show; it is told how many it missed.
A reader whose queue is full is dropped: it never holds up the worker, nor grows its memory.
A reader that comes back names the last change that it got, and gets what it missed, or is told that this is gone.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import NamedTuple

from streamer.serving.recent import Change, Recent

QUEUE = 256  # changes: more than one user's in any checkpoint; with profiles of 4 KB at most 1 MB a reader
REPLAY = QUEUE // 2  # at most so many of the missed ones are sent again: the rest of the queue is for new ones


class Seen(NamedTuple):
    """The last change that a reader got before it broke off."""

    user_id: str
    version: int


class Subscription:
    """One reader's end: `next()` waits for a change; `ended` says why no more are queued: `slow` or `moved`."""

    def __init__(self, per_second: int | None, clock: Callable[[], float]) -> None:
        self._queue: asyncio.Queue[Change | None] = asyncio.Queue(QUEUE + 1)  # one for the end
        self._per_second, self._clock = per_second, clock
        self._allowed, self._refilled = float(per_second or 0), clock()
        self.skipped = 0  # changes left out to keep the rate
        self.has_gap = False  # of what it missed, some is gone
        self.ended: str | None = None

    async def next(self, timeout_s: float) -> Change | None:
        """The next change, or None when there was none for `timeout_s` seconds, or there will be no more."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                return await self._queue.get()
        return None

    @property
    def is_over(self) -> bool:
        """Whether it ended, and all that was queued before is taken."""
        return self.ended is not None and self._queue.empty()

    def offer(self, change: Change) -> None:
        """Queue a change, unless it is over the rate; a full queue drops the reader."""
        if not self._admit():
            self.skipped += 1
        else:
            self.put(change)

    def put(self, change: Change) -> None:
        """Queue a change whatever the rate; a full queue drops the reader."""
        if self.ended is not None:
            return
        if self._queue.qsize() >= QUEUE:
            self.end("slow")
        else:
            self._queue.put_nowait(change)

    def end(self, why: str) -> None:
        """No more after what is queued."""
        if self.ended is None:
            self.ended = why
            self._queue.put_nowait(None)

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

    def __init__(self, recent: Recent | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.recent = recent or Recent()
        self._clock = clock
        self._everyone: set[Subscription] = set()
        self._by_user: defaultdict[str, set[Subscription]] = defaultdict(set)

    @contextmanager
    def everyone(self, per_second: int, last: Seen | None = None) -> Iterator[Subscription]:
        """Changes of all users, at most so many a second, while the context is open; `last`: what it got before."""
        reader = Subscription(per_second, self._clock)
        if last is not None:
            self._catch_up(reader, last)
        self._everyone.add(reader)
        try:
            yield reader
        finally:
            self._everyone.discard(reader)

    @contextmanager
    def user(self, user_id: str, version: int = 0, last: Seen | None = None) -> Iterator[Subscription]:
        """All changes of one user, whose profile has this version, while the context is open; `last` as above."""
        reader = Subscription(None, self._clock)
        if last is not None:
            self._catch_up_user(reader, user_id, version, last)
        readers = self._by_user[user_id]
        readers.add(reader)
        try:
            yield reader
        finally:
            readers.discard(reader)
            if not readers:
                self._by_user.pop(user_id, None)

    def publish(self, user_id: str, version: int, value: bytes) -> None:
        """Keep one profile, as it went to Kafka, for a while, and hand it to all who want it. Never waits."""
        change = self.recent.note(user_id, version, value)
        for reader in self._everyone:
            reader.offer(change)
        for reader in self._by_user.get(user_id, ()):
            reader.put(change)

    def move_users(self) -> None:
        """This worker gives its users up: whoever follows one has to ask again where that is now."""
        for readers in self._by_user.values():
            for reader in readers:
                reader.end("moved")

    def _catch_up(self, reader: Subscription, last: Seen) -> None:
        seen = self.recent.find(*last)
        if seen is None:
            reader.has_gap = True
            return
        missed = list(islice(self.recent.after(seen.seq), REPLAY))
        reader.skipped = self.recent.newest_seq - seen.seq - len(missed)
        for change in reversed(missed):
            reader.put(change)

    def _catch_up_user(self, reader: Subscription, user_id: str, version: int, last: Seen) -> None:
        here = self.recent.until(user_id, version)
        missed = [change for change in here if change.version > last.version]
        whole = last.user_id == user_id and version - last.version == len(missed) <= REPLAY
        reader.has_gap = not whole
        for change in missed if whole else ():
            reader.put(change)
