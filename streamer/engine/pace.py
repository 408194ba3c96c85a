"""Pace: when a partition's next checkpoint starts. Short while we keep up, long while we catch up.

A row costs more to write than an event to apply, so a row is to be written once for many events. How long events may
wait for that depends on what they wait for already:

    caught up          5 ms, and 0.1 ms more for each row of the last checkpoint; a lone event is out at once
    B seconds behind   B / 2, at most `checkpoint_backlog_ms`: who waits for B seconds waits for half of it more

B is how long what waits at the broker will take at the speed of the moment.
"""

import time
from typing import Final

from streamer.settings import Settings

SOONEST_MS, MS_A_ROW = 5.0, 0.1
PART: Final = 0.5  # of the time that we are behind
DUE_PART: Final = 0.25  # of `publish_within_ms`, at most: held-back changes are due to the second


class Pace:
    """Of one partition. Records are those of user events."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._longest_ms = min(settings.checkpoint_backlog_ms, DUE_PART * settings.publish_within_ms)
        self._since, self._applied, self._waiting = time.monotonic(), 0, 0

    def applied(self, records: int, waiting: int) -> None:
        """So many were applied, and as many wait behind them."""
        self._applied += records
        self._waiting = waiting

    def restart(self) -> None:
        """A checkpoint begins."""
        self._since, self._applied = time.monotonic(), 0

    def shortest_ms(self, rows: int) -> float:
        """From the end of a checkpoint of so many rows to the next."""
        return min(SOONEST_MS + MS_A_ROW * rows, float(self._settings.checkpoint_ms))

    def longest_ms(self) -> float:
        """From the start of the last checkpoint to the next, as things stand now."""
        return min(PART * self._behind_ms(), self._longest_ms)

    def may_wait(self) -> bool:
        """Whether the next checkpoint is too early now."""
        return (time.monotonic() - self._since) * 1000 < self.longest_ms()

    def _behind_ms(self) -> float:
        if not self._applied:
            return 0.0
        return (time.monotonic() - self._since) * 1000 * self._waiting / self._applied
