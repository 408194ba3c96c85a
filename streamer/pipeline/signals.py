"""Signals: what events teach about items, on its way from a user's partition to each item's owner.

One record carries all signals of one checkpoint from one partition to another: the value is MessagePack of `Signals`,
whose numbers are little-endian arrays. About 115 bytes a signal: time, weight, and the user's last twelve items, newest
first.
"""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.errors import StateError
from streamer.pipeline.layout import PREDECESSORS

LAYOUT: Final = 1


class Signals(msgspec.Struct, frozen=True, array_like=True):
    """Signals in columns; `item` indexes `items`. `tags` are those that events brought along, by index of the item."""

    layout: int
    items: list[str]
    item: bytes  # u32[n]
    ts: bytes  # i64[n] ms
    weight: bytes  # f32[n]
    predecessors: bytes  # u64[n, PREDECESSORS]
    tags: dict[int, list[str]] = {}


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Signals).decode


class Outbox:
    """Signals gathered since the last checkpoint, by the partition of the item's owner."""

    def __init__(self) -> None:
        self._boxes: dict[int, list[tuple[str, int, float, bytes, tuple[str, ...]]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._boxes.values()))

    def add(
        self,
        owners: list[int],
        items: list[str],
        ts: NDArray[np.int64],
        weight: NDArray[np.float32],
        predecessors: NDArray[np.uint64],
        own_tags: list[tuple[str, ...]],
    ) -> None:
        """Note one signal an event; `owners` are the partitions of the items."""
        width = predecessors.shape[1] * 8
        raw = np.ascontiguousarray(predecessors).tobytes()
        rows = zip(items, ts.tolist(), weight.tolist(), range(0, len(raw), width), own_tags, strict=True)
        for owner, (item, when, w, at, tags) in zip(owners, rows, strict=True):
            self._boxes.setdefault(owner, []).append((item, when, w, raw[at : at + width], tags))

    def take(self) -> list[tuple[int, bytes]]:
        """One encoded record for each owner's partition; the box is empty afterwards."""
        boxes, self._boxes = self._boxes, {}
        return [(owner, _pack(box)) for owner, box in sorted(boxes.items())]


def _pack(box: list[tuple[str, int, float, bytes, tuple[str, ...]]]) -> bytes:
    index: dict[str, int] = {}
    item = np.array([index.setdefault(name, len(index)) for name, *_ in box], np.uint32)
    tags = {index[name]: list(own) for name, _, _, _, own in box if own}
    return _encode(
        Signals(
            layout=LAYOUT,
            items=list(index),
            item=item.tobytes(),
            ts=np.array([ts for _, ts, *_ in box], np.int64).tobytes(),
            weight=np.array([weight for _, _, weight, *_ in box], np.float32).tobytes(),
            predecessors=b"".join([row for *_, row, _ in box]),
            tags=tags,
        )
    )


class Learned(msgspec.Struct, frozen=True):
    """Decoded signals: arrays again. `items[item[i]]` is the item of signal i."""

    items: list[str]
    item: NDArray[np.uint32]
    ts: NDArray[np.int64]
    weight: NDArray[np.float32]
    predecessors: NDArray[np.uint64]
    tags: dict[int, list[str]]


def decode(value: bytes) -> Learned:
    """Raises StateError for signals of a newer worker."""
    signals = _decode(value)
    if signals.layout > LAYOUT:
        raise StateError(f"signals of layout {signals.layout}, this worker knows {LAYOUT}: upgrade all workers")
    return Learned(
        signals.items,
        np.frombuffer(signals.item, np.uint32),
        np.frombuffer(signals.ts, np.int64),
        np.frombuffer(signals.weight, np.float32),
        np.frombuffer(signals.predecessors, np.uint64).reshape(-1, PREDECESSORS),
        signals.tags,
    )
