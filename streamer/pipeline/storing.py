"""When the rows of items are stored.

Each signal touches an item, and an item's row has a few KB: stored at every checkpoint they would be most of what is
written. So they wait. Every ROWS_EVERY_MS a round begins, which stores the rows that changed until then, ROWS_PER_S of
them a second, and a partition's position in the signals is that of the oldest one that a stored row lacks.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.pipeline.turns import PAUSE_MS, Turns

ROWS_EVERY_MS: Final = 10_000
ROWS_PER_S: Final = 200


class Storing:
    """Columns by row, 0 where nothing waits."""

    def __init__(self) -> None:
        self.lacking = np.zeros(0, np.int64)  # offset of the first record of signals that the stored row lacks, plus 1
        self.lacking_signal = np.zeros(0, np.int64)  # how many signals there were before it
        self.urgent = np.zeros(0, np.bool_)  # changed by something else: to be stored by the next checkpoint
        self.next_at = 0  # ms: the next turn, of this round or the next
        self._round_at = 0  # ms: when this round began
        self._round_to = 0  # stored by this round: rows whose `lacking` is below
        self._turns = Turns(ROWS_PER_S)

    @property
    def waiting(self) -> NDArray[np.int64]:
        """Rows that changed since they were stored."""
        return np.flatnonzero(self.urgent | (self.lacking > 0))

    def change(self, rows: NDArray[np.int64], offset: NDArray[np.int64], signals: NDArray[np.int64]) -> None:
        """Rows learned records, given for each its offset and how many signals there were before it, the first first.

        A row that is named twice lacks what it is named for first.
        """
        waits_not = np.flatnonzero(self.lacking[rows] == 0)[::-1]
        first = rows[waits_not]
        self.lacking[first], self.lacking_signal[first] = offset[waits_not] + 1, signals[waits_not]

    def due(self, now_ms: int) -> bool:
        """Whether it is the turn of rows to be stored now."""
        return now_ms >= self.next_at and len(self.waiting) > 0

    def take(self, now_ms: int, next_offset: int, *, everything: bool) -> NDArray[np.int64]:
        """Rows to be stored now; they count as stored. All signals before `next_offset` are learned."""
        rows = self.waiting if everything else np.union1d(np.flatnonzero(self.urgent), self._turn(now_ms, next_offset))
        self.lacking[rows], self.urgent[rows] = 0, False
        return rows

    def _turn(self, now_ms: int, next_offset: int) -> NDArray[np.int64]:
        if not self.due(now_ms):
            return np.zeros(0, np.int64)
        rows = self._in_round()
        if not len(rows):
            self._round_at, self._round_to = now_ms, next_offset + 1
            rows = self._in_round()
        turn = self._turns.take(self.lacking[rows], now_ms)
        self.next_at = now_ms + PAUSE_MS if len(turn) < len(rows) else self._round_at + ROWS_EVERY_MS
        return rows[turn]

    def _in_round(self) -> NDArray[np.int64]:
        return np.flatnonzero((self.lacking > 0) & (self.lacking < self._round_to))

    def stored_to(self, next_offset: int, signals: int) -> tuple[int, int]:
        """The offset and the number of the first signal that a stored row lacks; what is given where none does."""
        waiting = np.flatnonzero(self.lacking)
        if not len(waiting):
            return next_offset, signals
        first = waiting[self.lacking[waiting].argmin()]
        return int(self.lacking[first]) - 1, int(self.lacking_signal[first])
