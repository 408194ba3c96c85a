"""The latest published profiles, as they went to Kafka: bounded in bytes, the oldest leave. One event loop, no locks.

Live streams resume from here, a user's history is read off here, and so is why a profile was published. Versions of a
user are consecutive: from the numbers alone it can be told whether one is missing.
"""

from collections import deque
from collections.abc import Iterator
from itertools import takewhile
from typing import Final, NamedTuple

MAX_BYTES: Final = 32 << 20  # 8,000 profiles of 4 KB
OVERHEAD: Final = 200  # bytes of an entry beside its profile and user id


class Change(NamedTuple):
    """One published profile, encoded once for all readers."""

    user_id: str
    version: int
    value: bytes
    seq: int = 0  # of all profiles that this worker published, in their order

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return len(self.value) + len(self.user_id) + OVERHEAD


class Recent:
    """What was published last, in order and by user and version."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self.newest_seq = 0
        self._order: deque[Change] = deque()
        self._by_version: dict[tuple[str, int], Change] = {}

    def note(self, user_id: str, version: int, value: bytes) -> Change:
        """A profile is committed."""
        self.newest_seq += 1
        change = Change(user_id, version, value, self.newest_seq)
        self._order.append(change)
        self._by_version[user_id, version] = change
        self._bytes += change.size
        while self._bytes > self._max_bytes:
            self._forget_oldest()
        return change

    def _forget_oldest(self) -> None:
        oldest = self._order.popleft()
        self._bytes -= oldest.size
        key = oldest.user_id, oldest.version
        if self._by_version[key] is oldest:  # not published once more since, after a reset
            del self._by_version[key]

    def find(self, user_id: str, version: int) -> Change | None:
        """One version; None when it is not here, or not any more."""
        return self._by_version.get((user_id, version))

    def until(self, user_id: str, version: int) -> list[Change]:
        """The versions up to this one without a hole, oldest first: all that were published since the first of them.

        Empty when this version is not here: another worker published it, or it is long ago.
        """
        found: list[Change] = []
        while (change := self.find(user_id, version - len(found))) is not None:
            found.append(change)
        return found[::-1]

    def after(self, seq: int) -> Iterator[Change]:
        """All that was published after a change, the newest first."""
        return takewhile(lambda change: change.seq > seq, reversed(self._order))
