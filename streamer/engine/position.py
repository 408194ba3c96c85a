"""Where a partition stands, what brings it forward, and what it gives out: the words between ingest and checkpoint."""

from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.engine.store import Row
from streamer.engine.transactions import Headers
from streamer.events import KINDS
from streamer.pipeline.cut import Publication
from streamer.pipeline.decode import Rejected
from streamer.pipeline.records import Records

LAYOUT: Final = 1

# Topics as in the contracts.
SIGNALS, CATALOGUE = "item-signals", "items"
USER_EVENTS: Final = tuple(kind.topic for kind in KINDS)


class Take(NamedTuple):
    """Records of one topic partition, in order, that follow on `after`."""

    topic: str  # as in the contracts, without prefix
    records: Records
    after: int

    @property
    def next_offset(self) -> int:
        """Where the next take has to go on."""
        return self.records.next_offset


class Position(msgspec.Struct, array_like=True):
    """Where a partition stands; stored in the changelog in the same transaction as the rows."""

    layout: int
    partitions: int
    next: dict[str, int]  # by topic: offset of the next record to apply
    newest_ts: dict[str, int]  # by topic: newest ts accepted, ms
    signals: int = 0  # ever learned from, up to the position in them
    checkpoint: int = 0
    topic_ids: dict[str, str] = {}  # by topic: Kafka's own id of the one that the offsets are of
    signals_reset_at: int = 0  # checkpoint that set the position in the signals back, if any


class Effects(NamedTuple):
    """All that one checkpoint writes."""

    rows: list[Row]
    local: list[Row]
    publications: list[Publication]
    signals: list[tuple[int, bytes]]
    models: list[tuple[bytes, bytes | None]]
    rejected: list[tuple[str, Any, Rejected]]
    position: Position
    slots: NDArray[np.int64]
    traces: dict[bytes, Headers]  # by user: headers of the profile, from those of the event behind it
