"""64-bit hashes of ids, and a hash table over them that numba kernels read. No state of its own."""

import numpy as np
import xxhash
from numpy.typing import NDArray

from streamer.model.compiled import leaf

_xxh3 = xxhash.xxh3_64_intdigest


def hash_id(text: str) -> int:
    """xxh3 of the UTF-8 text; never 0, which stands for «none» in stored rows."""
    return _xxh3(text.encode()) or 1


class HashTable:
    """u64 → i32, open addressing with linear probing, at most half full. Keys are never 0; 0 marks a free place.

    The hash itself is the address: xxh3 needs no second scrambling. Deleting leaves the key with value -1.
    """

    def __init__(self, capacity: int = 1024) -> None:
        size = 1 << max(capacity * 2 - 1, 1).bit_length()
        self.keys: NDArray[np.uint64] = np.zeros(size, np.uint64)
        self.values: NDArray[np.int32] = np.full(size, -1, np.int32)
        self.filled = 0

    def put(self, key: int, value: int) -> None:
        """Set the value of a key."""
        if self.filled * 2 >= len(self.keys):
            self._grow()
        self.filled += _put(self.keys, self.values, np.uint64(key), value)

    def get(self, key: int) -> int:
        """The value of a key, or -1."""
        return int(lookup(self.keys, self.values, np.uint64(key)))

    def _grow(self) -> None:
        keys, values = self.keys, self.values
        self.keys = np.zeros(len(keys) * 2, np.uint64)
        self.values = np.full(len(keys) * 2, -1, np.int32)
        self.filled = 0
        for i in np.flatnonzero(values >= 0):
            self.filled += _put(self.keys, self.values, keys[i], values[i])


@leaf
def lookup(keys, values, key):  # type: ignore[no-untyped-def]
    """The value of a u64 key in a HashTable's arrays, or -1."""
    mask = np.uint64(len(keys) - 1)
    i = key & mask
    while keys[i] != 0:
        if keys[i] == key:
            return values[i]
        i = (i + np.uint64(1)) & mask
    return np.int32(-1)


@leaf
def lookup_all(keys, values, wanted, out):  # type: ignore[no-untyped-def]
    """`lookup` of every key of `wanted` u64[n] into `out` i32[n] or i64[n]; returns how many are missing, 0 aside."""
    missing = 0
    for i in range(len(wanted)):
        out[i] = lookup(keys, values, wanted[i])
        missing += out[i] < 0 and wanted[i] != 0
    return missing


@leaf
def _put(keys, values, key, value):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(keys) - 1)
    i = key & mask
    while keys[i] != 0 and keys[i] != key:
        i = (i + np.uint64(1)) & mask
    fresh = keys[i] == 0
    keys[i] = key
    values[i] = value
    return int(fresh)
