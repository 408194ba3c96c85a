"""Merge: the topics of one partition in the order in which Kafka got their records, while there is a backlog. No Kafka.

Each topic has a buffer. What is handed on ends at a cut: the oldest of the newest buffered timestamps of those topics
that have more to come. A topic that has more to come but nothing buffered holds the others back, until IDLE_MS are
over: then they go on without it.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

IDLE_MS: Final = 1000  # as long as a fetch can take on a busy broker; Kafka Streams calls it max.task.idle.ms


class Buffer:
    """Fetched records of one topic partition that are not handed on yet. `after` is the position that they follow."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.records: deque[Any] = deque()

    def take(self, cut_ms: float, limit: int) -> list[Any]:
        """Records up to the first one younger than `cut_ms`, at most `limit`."""
        taken: list[Any] = []
        records = self.records
        while records and len(taken) < limit and records[0].timestamp <= cut_ms:
            taken.append(records.popleft())
        if taken:
            self.after = taken[-1].offset + 1
        return taken


def merge(
    buffers: Mapping[str, Buffer], more: Iterable[str], limit: int, *, waited: bool
) -> dict[str, tuple[int, list[Any]]]:
    """What can be handed on now: by topic, the position it follows and its records, `limit` of each at most.

    `more` names the topics that have records beyond their buffer; `waited` is true once waiting for them took too long.
    """
    open_ended = set(more)
    if not waited and any(not buffers[topic].records for topic in open_ended):
        return {}
    cut_ms = min(
        (b.records[-1].timestamp for t, b in buffers.items() if t in open_ended and b.records), default=float("inf")
    )
    longest = [b.records[limit - 1].timestamp for b in buffers.values() if len(b.records) > limit]
    cut_ms = min([cut_ms, *longest])
    takes = _take_all(buffers, cut_ms, limit)
    if not takes and any(b.records for b in buffers.values()):
        # Timestamps run backwards within a topic: go on with the one whose end is oldest.
        topic = min((t for t, b in buffers.items() if b.records), key=lambda t: buffers[t].records[-1].timestamp)
        takes = _take_all({topic: buffers[topic]}, float("inf"), limit)
    return takes


def _take_all(buffers: Mapping[str, Buffer], cut_ms: float, limit: int) -> dict[str, tuple[int, list[Any]]]:
    takes = {}
    for topic, buffer in buffers.items():
        after = buffer.after
        if records := buffer.take(cut_ms, limit):
            takes[topic] = (after, records)
    return takes
