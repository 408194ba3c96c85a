"""Buffers: what is fetched and not applied yet, bounded in bytes and shared fairly. No Kafka.

A topic partition is fetched further while it has less than what is free, as switches share their memory among ports
(Choudhury and Hahne, Dynamic Queue Length Thresholds, 1998). One with a huge backlog takes half of the memory when it
is alone; n of them take 1/(n+1) each, and as much stays free for those that have a record now and then.
What has nothing buffered is always fetched: topics that are merged wait for each other.
"""

from collections import deque
from typing import Final

from streamer.pipeline.records import Record, Records, join

OBJECT_BYTES: Final = 350  # of memory for a record, or a header, beside its contents; measured on CPython 3.11
BATCH_BYTES: Final = (
    4 << 20
)  # of a batch: 20,000 plain events, decoded in 3 ms, so that the event loop stays responsive
PIECE_BYTES: Final = 1 << 20  # read at once: by so much a topic partition may have more than it should
SMALL_BYTES: Final = 64 << 10  # of a piece: it is joined with the next, as by itself each takes 2 KB and 20 µs
FIRST_PIECE: Final = 4  # producers' batches of unknown size: 4 MB of the largest


def size_of(record: Record) -> int:
    """Bytes of memory that one record takes."""
    headers = sum(OBJECT_BYTES + len(name) + len(value or b"") for name, value in record.headers)
    return OBJECT_BYTES + len(record.key or b"") + len(record.value or b"") + headers


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
        self.size = 0  # bytes
        self.piece = FIRST_PIECE  # producers' batches to read at once
        self._memory = memory
        self._pieces: deque[Records] = deque()  # none of them is empty
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def is_hungry(self) -> bool:
        """Whether to fetch further."""
        return not self._count or self.size < self._memory.free

    @property
    def first_ms(self) -> int:
        """The timestamp of the first record; there has to be one."""
        return int(self._pieces[0].columns.timestamp[0])

    @property
    def last_ms(self) -> int:
        """The timestamp of the last record; there has to be one."""
        return int(self._pieces[-1].columns.timestamp[-1])

    def ms(self, i: int) -> int:
        """The timestamp of record i."""
        for piece in self._pieces:
            if i < len(piece):
                return int(piece.columns.timestamp[i])
            i -= len(piece)
        raise IndexError(i)

    def add(self, records: Records, batches: int) -> None:
        """Take in what was fetched in so many of the producers' batches."""
        if not len(records):
            return
        if self._pieces and self._pieces[-1].size < SMALL_BYTES:
            self._pieces[-1] = join([self._pieces[-1], records])
        else:
            self._pieces.append(records.trimmed())
        self._count += len(records)
        self.size += records.size
        self._memory.taken += records.size
        self.piece = max(min(PIECE_BYTES * batches // records.size, 2 * self.piece), 1)

    def batch(self, limit: int) -> int:
        """How many records make a batch: at most `limit`, fewer when they are large."""
        return max(min(limit, BATCH_BYTES * self._count // max(self.size, 1)), 1)

    def take(self, cut_ms: float, limit: int) -> tuple[Records | None, int]:
        """Records up to the first one younger than `cut_ms`, at most `limit`; and their part of the bytes.

        The bytes stay taken: whoever has applied the records gives them back.
        """
        taken, before = list[Records](), self._count
        while self._pieces and limit > 0:
            piece = self._pieces[0]
            young = piece.columns.timestamp[:limit] > cut_ms
            n = int(young.argmax()) if young.any() else len(young)
            if n == len(piece):
                taken.append(self._pieces.popleft())
            elif n:
                taken.append(piece.part(0, n))
                self._pieces[0] = piece.part(n, len(piece)).trimmed()
            self._count -= n
            limit -= n
            if n < len(piece):
                break
        if not taken:
            return None, 0
        self.after = taken[-1].next_offset
        size = self.size * (before - self._count) // before  # all of it when nothing is left
        self.size -= size
        return join(taken), size

    def drop(self) -> None:
        """Forget the records."""
        self._memory.taken -= self.size
        self.size = self._count = 0
        self._pieces.clear()
