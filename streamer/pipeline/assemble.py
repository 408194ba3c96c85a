"""Assemble: decoded events of one partition's topics become the columns that `fold` reads, in order of arrival."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.events import Kind
from streamer.pipeline.catalogue import TAGS_PER_ITEM, Catalogue, distinct
from streamer.pipeline.decode import Decoded
from streamer.pipeline.fold import Columns
from streamer.pipeline.records import Record, Records


class Part(NamedTuple):
    """The decoded take of one topic."""

    kind: Kind
    records: Records
    decoded: Decoded


class Events:
    """The good events of some parts, part after part, numbered through."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self._starts = np.cumsum([0, *(part.decoded.size for part in parts)]).tolist()
        self.item = self._column("item")  # hash of each one's item_id
        self.tags = {  # that events brought along
            start + i: tags
            for start, part in zip(self._starts, parts, strict=False)
            for i, tags in part.decoded.tags.items()
        }

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def keys(self) -> list[bytes]:
        """The user key of every event."""
        return [key for part in self.parts for key in _good(part)]

    def record(self, i: int) -> Record:
        """The record of event i."""
        part, start = self._part(i)
        return part.records[int(part.decoded.places[i - start])]

    def event_ids(self, some: NDArray[np.int64]) -> list[bytes]:
        """The event_ids of some events, in UTF-8."""
        found = [b""] * len(some)
        for part, first, behind in zip(self.parts, self._starts, self._starts[1:], strict=False):
            its = np.flatnonzero((some >= first) & (some < behind))
            for n, event_id in zip(its.tolist(), part.decoded.event_ids(some[its] - first), strict=True):
                found[n] = event_id
        return found

    def item_id(self, i: int) -> str:
        """The item_id of event i."""
        part, start = self._part(i)
        return part.decoded.item_id(i - start)

    def columns(self, slots: NDArray[np.int64], items: NDArray[np.int64], catalogue: Catalogue) -> Columns:
        """What `fold` reads; `slots` are those of the users, `items` those of the items in the catalogue."""
        tag_at, tags = self._tags(items, catalogue)
        sizes = [part.decoded.size for part in self.parts]
        for i in np.flatnonzero(items == catalogue.crowd).tolist():
            catalogue.pass_by(int(self.item[i]), self.item_id(i))
        return Columns(
            slot=slots,
            ts=self._column("ts"),
            kind=np.repeat(np.array([part.kind.code for part in self.parts], np.uint8), sizes),
            weight=np.repeat(np.array([part.kind.weight for part in self.parts], np.float32), sizes),
            event=self._column("event"),
            item=self.item,
            micros=self._column("micros"),
            currency=self._column("currency"),
            tag_at=tag_at,
            tags=tags,
            appended_at=np.concatenate([part.decoded.appended_at for part in self.parts]),
        )

    def order(self) -> NDArray[np.int64]:
        """The permutation into the order in which Kafka got the events; each topic keeps the order of its offsets."""
        if len(self.parts) == 1:
            return np.arange(len(self))
        in_order = [np.maximum.accumulate(part.decoded.appended_at) for part in self.parts]
        return np.argsort(np.concatenate(in_order), kind="stable")

    def _column(self, name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part.decoded.columns, name) for part in self.parts])

    def _part(self, i: int) -> tuple[Part, int]:
        """Whose event i is, and the number of the first one of this part."""
        n = bisect_right(self._starts, i) - 1
        return self.parts[n], self._starts[n]

    def _tags(self, items: NDArray[np.int64], catalogue: Catalogue) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Per event the tags of its item and its own, each once; item tags first."""
        own: list[int] = []
        sizes = np.zeros(len(self) + 1, np.int64)
        for i, tags in sorted(self.tags.items()):
            before = len(own)
            own += [catalogue.see_tag(tag) for tag in distinct(tags)]
            sizes[i + 1] = len(own) - before
        at, out = _gather(items, catalogue.tags, catalogue.n_tags, np.cumsum(sizes), np.array(own, np.uint64))
        return at, out


def _good(part: Part) -> list[bytes]:
    """The keys of the good events."""
    keys, places = part.records.keys, part.decoded.places
    return keys if len(places) == len(keys) else [keys[i] for i in places.tolist()]


@njit(cache=True)
def _gather(items, item_tags, n_item_tags, own_at, own):  # type: ignore[no-untyped-def]
    at = np.zeros(len(items) + 1, np.int64)
    out = np.empty(len(items) * TAGS_PER_ITEM + len(own), np.uint64)
    n = 0
    for i in range(len(items)):
        first = n
        for j in range(n_item_tags[items[i]]):
            out[n] = item_tags[items[i], j]
            n += 1
        for j in range(own_at[i], own_at[i + 1]):
            if not np.any(out[first:n] == own[j]):
                out[n] = own[j]
                n += 1
        at[i + 1] = n
    return at, out[:n]
