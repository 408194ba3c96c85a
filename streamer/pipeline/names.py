"""Dictionary rows: what the hashes in a partition's rows stand for.

Users' rows name items and tags by hash. The first time that a partition refers to one since it was opened, its name
goes into the partition's store as a row of its own, in the same checkpoint: so the rows can be read with nothing else
at hand.

    key: b"d" + hash, 8 bytes little-endian → item id     key: b"t" + hash → tag
"""

import numpy as np
from numpy.typing import NDArray

from streamer.pipeline.catalogue import Catalogue

ITEM_PREFIX, TAG_PREFIX = b"d", b"t"


def item_key(item_hash: int) -> bytes:
    """The key of an item's dictionary row."""
    return ITEM_PREFIX + item_hash.to_bytes(8, "little")


def tag_key(tag_hash: int) -> bytes:
    """The key of a tag's dictionary row."""
    return TAG_PREFIX + tag_hash.to_bytes(8, "little")


class Named:
    """Which names a partition has written since it was opened. Writing one again after a restart does no harm."""

    def __init__(self) -> None:
        self._items = np.zeros(0, np.bool_)
        self._tags: set[int] = set()
        self.new: dict[bytes, bytes] = {}
        self._on_its_way: dict[bytes, bytes] = {}

    def refer(self, items: NDArray[np.int64], tags: NDArray[np.uint64], own_tags: bool, catalogue: Catalogue) -> None:  # noqa: FBT001
        """Note the items (catalogue slots) of a batch, and its tags where events brought `own_tags`.

        Names that only pass are taken from the catalogue, and written every time: nothing remembers them.
        """
        if len(self._items) < len(catalogue):
            self._items = np.concatenate([self._items, np.zeros(len(catalogue.hashes) - len(self._items), np.bool_)])
        fresh = np.unique(items[~self._items[items] & (items != catalogue.crowd)])
        self._items[fresh] = True
        for item_hash, slot in zip(catalogue.hashes[fresh].tolist(), fresh.tolist(), strict=True):
            self.new[item_key(item_hash)] = catalogue.ids[slot].encode()
        self._add_tags(catalogue.tags_of(fresh), catalogue)
        if own_tags:
            self._add_tags(tags, catalogue)
        self.new |= {item_key(key): name.encode() for key, name in catalogue.passing_items.items()}
        self.new |= {tag_key(key): name.encode() for key, name in catalogue.passing_tags.items()}
        catalogue.passing_items.clear()
        catalogue.passing_tags.clear()

    def retag(self, slot: int) -> None:
        """The tags of an item changed: its next event names them again."""
        if slot < len(self._items):
            self._items[slot] = False

    def take(self) -> dict[bytes, bytes]:
        """The rows that are not stored yet; they count as stored from here on."""
        self._on_its_way, self.new = self.new, {}
        return self._on_its_way

    def unstored(self, key: bytes) -> bytes | None:
        """A dictionary row that the store may not have yet."""
        return self.new.get(key) or self._on_its_way.get(key)

    def _add_tags(self, tags: NDArray[np.uint64], catalogue: Catalogue) -> None:
        for tag in set(np.unique(tags).tolist()) - self._tags - catalogue.passing_tags.keys():
            self._tags.add(tag)
            self.new[tag_key(tag)] = catalogue.tag_names[tag].encode()
