"""Heartbeat: publish users who were silent for `heartbeat_ms`. Off by default; a walk through the store in pieces.

A walk through all users takes a quarter of the period, so a user is published at most a quarter of a period late.
"""

from typing import Final

from streamer.engine.store import USER, Store
from streamer.pipeline.rows import published_at

WALKS: Final = 4  # in a period
AT_ONCE: Final = 500  # users a piece: 20 ms of work


class Heartbeat:
    """Where the walk through one partition's users stands."""

    def __init__(self, period_ms: int) -> None:
        self._period_ms = period_ms
        self._after = USER  # the walk goes on behind this key
        self._walked, self._started_at = 0, 0

    def silent(self, store: Store, now_ms: int) -> list[bytes]:
        """User keys in the next piece of the walk whose profile is older than the period, as of their stored row."""
        if not self._period_ms:
            return []
        found: list[bytes] = []
        piece = min(self._behind(store, now_ms), AT_ONCE)
        rows = store.scan(USER, self._after) if piece else iter(())
        for key, row in rows:
            if piece == 0:
                return found
            piece -= 1
            self._walked += 1
            self._after = key + b"\0"
            if 0 < published_at(row) <= now_ms - self._period_ms:
                found.append(key[len(USER) :])
        if piece:
            self._begin(now_ms)
        return found

    def _behind(self, store: Store, now_ms: int) -> int:
        """How many users the walk should have passed by now, and did not."""
        if not self._started_at:
            self._begin(now_ms)
        part = (now_ms - self._started_at) * WALKS / self._period_ms
        return int(part * store.property("rocksdb.estimate-num-keys")) + 1 - self._walked

    def _begin(self, now_ms: int) -> None:
        self._after, self._walked, self._started_at = USER, 0, now_ms
