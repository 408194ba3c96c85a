"""Assemble: decoded events of one partition's topics become the columns that `fold` reads, in order of arrival."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.events import Kind
from streamer.pipeline.catalogue import TAGS_PER_ITEM, Catalogue, distinct
from streamer.pipeline.decode import Decoded, Record
from streamer.pipeline.fold import Columns
from streamer.pipeline.hashing import hash_ids


class Part(NamedTuple):
    """The decoded take of one topic."""

    kind: Kind
    records: Sequence[Record]
    decoded: Decoded


def keys_of(parts: Sequence[Part]) -> list[bytes]:
    """The user key of every good event, part after part."""
    return [record.key or b"" for part in parts for record in _good(part)]


def records_of(parts: Sequence[Part]) -> list[Any]:
    """The record of every good event, part after part."""
    return [record for part in parts for record in _good(part)]


def _good(part: Part) -> Sequence[Record]:
    """The records of the good events."""
    places = part.decoded.places
    return part.records if len(places) == len(part.records) else [part.records[i] for i in places.tolist()]


def events_of(parts: Sequence[Part]) -> list[Any]:
    """Every good event, part after part."""
    return [event for part in parts for event in part.decoded.events]


def columns(
    parts: Sequence[Part], events: list[Any], slots: NDArray[np.int64], items: NDArray[np.int64], catalogue: Catalogue
) -> Columns:
    """One array a field. `slots` of the users and `items` (catalogue slots) are in the order of `keys_of`."""
    tag_at, tags = _tags(events, items, catalogue)
    sizes = [len(part.decoded.events) for part in parts]
    return Columns(
        slot=slots,
        ts=np.concatenate([part.decoded.ts for part in parts]),
        kind=np.repeat(np.array([part.kind.code for part in parts], np.uint8), sizes),
        weight=np.repeat(np.array([part.kind.weight for part in parts], np.float32), sizes),
        event=hash_ids([event.event_id for event in events]),
        item=_item_hashes(events, items, catalogue),
        micros=np.concatenate([_micros(part) for part in parts]),
        currency=np.concatenate([_currencies(part) for part in parts]),
        tag_at=tag_at,
        tags=tags,
        appended_at=np.concatenate([part.decoded.appended_at for part in parts]),
    )


def arrival_order(parts: Sequence[Part], appended_at: NDArray[np.int64]) -> NDArray[np.int64]:
    """The permutation into the order in which Kafka got the events; each topic keeps the order of its offsets."""
    if len(parts) == 1:
        return np.arange(len(appended_at))
    key, at = appended_at.copy(), 0
    for part in parts:
        end = at + len(part.decoded.events)
        np.maximum.accumulate(key[at:end], out=key[at:end])
        at = end
    return np.argsort(key, kind="stable")


def currency_code(currency: str) -> int:
    """Three letters as one number: `GBP` → 0x504247."""
    return int.from_bytes(currency.encode(), "little")


def _micros(part: Part) -> NDArray[np.float64]:
    events = part.decoded.events
    if part.kind.name != "purchase":
        return np.zeros(len(events))
    return np.rint(np.array([event.price * event.quantity for event in events], np.float64) * 1e6)


def _currencies(part: Part) -> NDArray[np.uint32]:
    events = part.decoded.events
    if part.kind.name != "purchase":
        return np.zeros(len(events), np.uint32)
    return np.array([currency_code(event.currency) for event in events], np.uint32)


def _item_hashes(events: list[Any], items: NDArray[np.int64], catalogue: Catalogue) -> NDArray[np.uint64]:
    hashes = catalogue.hashes[items]
    for i in np.flatnonzero(items == catalogue.crowd).tolist():
        hashes[i] = catalogue.pass_by(events[i].item_id)
    return hashes


def _tags(
    events: list[Any], items: NDArray[np.int64], catalogue: Catalogue
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Per event the tags of its item and its own, each once; item tags first."""
    own: list[int] = []
    own_at = np.zeros(len(events) + 1, np.int64)
    for i, event in enumerate(events):
        if event.tags:
            own += [catalogue.see_tag(tag) for tag in distinct(event.tags)]
        own_at[i + 1] = len(own)
    at, tags = _gather(items, catalogue.tags, catalogue.n_tags, own_at, np.array(own, np.uint64))
    return at, tags


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
