"""Buffers: what is fetched and not applied yet, bounded in bytes and shared fairly. No Kafka.

A topic partition is fetched further while it has less than what is free, as switches share their memory among ports
(Choudhury and Hahne, Dynamic Queue Length Thresholds, 1998). One with a huge backlog takes half of the memory when it
is alone; n of them take 1/(n+1) each, and as much stays free for those that have a record now and then.
What has nothing buffered is always fetched: topics that are merged wait for each other.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

RECORD_BYTES: Final = 350  # of memory for a record beside its key, value and headers; measured on CPython 3.11
BATCH_BYTES: Final = 4 << 20  # of a batch: decoding it takes 10 ms, so that the event loop stays responsive
PIECE_BYTES: Final = 1 << 20  # read at once: by so much a topic partition may have more than it should
FIRST_PIECE: Final = 64  # records of unknown size: 4 MB of the largest events


def size_of(records: Sequence[Any]) -> int:
    """Bytes of memory that records take."""
    contents: int = sum([record.serialized_key_size + record.serialized_value_size for record in records])  # -1: null
    return contents + RECORD_BYTES * len(records) + sum([_headers(r.headers) for r in records if r.headers])


def _headers(headers: Sequence[tuple[str, bytes | None]]) -> int:
    return sum(RECORD_BYTES + len(name) + len(value or b"") for name, value in headers)


class Memory:
    """Counts bytes against a limit."""

    def __init__(self, limit: int) -> None:
        self.limit, self.taken = limit, 0

    @property
    def free(self) -> int:
        """Bytes that nobody took; below zero after a piece that was larger than expected."""
        return self.limit - self.taken


class Buffer:
    """Records of one topic partition that are fetched and not handed on. `after` is the position that they follow.

    The broker's word on it: `next` is the offset of the next record to fetch, `end` where the topic partition ended
    when it was opened.
    """

    def __init__(self, after: int, memory: Memory, end: int = 0) -> None:
        self.after, self.next, self.end = after, after, end
        self.records: deque[Any] = deque()
        self.size = 0  # bytes
        self.piece = FIRST_PIECE  # records to read at once
        self._memory = memory

    @property
    def is_hungry(self) -> bool:
        """Whether to fetch further."""
        return not self.records or self.size < self._memory.free

    def add(self, records: Sequence[Any], size: int) -> None:
        """Take in what was fetched, `size` bytes."""
        self.records.extend(records)
        self.size += size
        self._memory.taken += size
        self.piece = max(min(PIECE_BYTES * len(records) // size, 2 * self.piece), 1)

    def batch(self, limit: int) -> int:
        """How many records make a batch: at most `limit`, fewer when they are large."""
        return max(min(limit, BATCH_BYTES * len(self.records) // max(self.size, 1)), 1)

    def take(self, cut_ms: float, limit: int) -> tuple[list[Any], int]:
        """Records up to the first one younger than `cut_ms`, at most `limit`; and their part of the bytes.

        The bytes stay taken: whoever has applied the records gives them back.
        """
        records, before = self.records, len(self.records)
        taken: list[Any] = []
        while records and len(taken) < limit and records[0].timestamp <= cut_ms:
            taken.append(records.popleft())
        if not taken:
            return [], 0
        self.after = taken[-1].offset + 1
        size = self.size * len(taken) // before  # all of it when nothing is left
        self.size -= size
        return taken, size

    def drop(self) -> None:
        """Forget the records."""
        self._memory.taken -= self.size
        self.size = 0
        self.records.clear()
