"""Merge: the topics of one partition in the order in which Kafka got their records, while there is a backlog. No Kafka.

Each topic has a buffer. What is handed on ends at a cut: the oldest of the newest buffered timestamps of those topics
that have more to come. A topic that has more to come but nothing buffered holds the others back, until IDLE_MS are
over: then they go on without it.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from streamer.engine.buffers import Buffer
from streamer.pipeline.records import Records

IDLE_MS: Final = 1000  # as long as a fetch can take on a busy broker; Kafka Streams calls it max.task.idle.ms


class Taken(NamedTuple):
    """Records of one topic that can be handed on, the position that they follow, and their bytes."""

    after: int
    records: Records
    size: int


def merge(buffers: Mapping[str, Buffer], more: Iterable[str], limit: int, *, waited: bool) -> dict[str, Taken]:
    """What can be handed on now, by topic; `limit` records of each at most.

    `more` names the topics that have records beyond their buffer; `waited` is true once waiting for them took too long.
    """
    open_ended = set(more)
    if not waited and any(not buffers[topic] for topic in open_ended):
        return {}
    filled = {topic: buffer for topic, buffer in buffers.items() if buffer}
    limits = {topic: buffer.batch(limit) for topic, buffer in filled.items()}
    cut_ms = min(
        [
            *(b.last_ms for topic, b in filled.items() if topic in open_ended),
            *(b.ms(limits[topic] - 1) for topic, b in filled.items() if len(b) > limits[topic]),
        ],
        default=float("inf"),
    )
    takes = _take_all(filled, cut_ms, limits)
    if not takes and filled:
        # Timestamps run backwards within a topic: go on with the one whose end is oldest.
        topic = min(filled, key=lambda topic: filled[topic].last_ms)
        takes = _take_all({topic: filled[topic]}, float("inf"), limits)
    return takes


def _take_all(buffers: Mapping[str, Buffer], cut_ms: float, limits: Mapping[str, int]) -> dict[str, Taken]:
    takes = {}
    for topic, buffer in buffers.items():
        after = buffer.after
        records, size = buffer.take(cut_ms, limits[topic])
        if records is not None:
            takes[topic] = Taken(after, records, size)
    return takes
