"""The hash table against a dict."""

import numpy as np
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from streamer.pipeline.hashing import HashTable, hash_id, lookup_all

# Few low bits: many keys want the same place.
keys = st.one_of(st.integers(1, 2**64 - 1), st.integers(1, 40).map(lambda n: n << 40), st.integers(1, 9))


@given(st.text())
def test_ids_are_hashed_by_xxh3_of_their_utf8(text: str) -> None:
    assert hash_id(text) == xxhash.xxh3_64_intdigest(text.encode())


def test_no_id_is_hashed_to_0() -> None:
    assert hash_id("") != 0


@given(st.lists(st.tuples(keys, st.integers(-1, 1000)), max_size=60), st.lists(keys, max_size=10))
def test_a_table_knows_what_a_dict_knows(puts: list[tuple[int, int]], others: list[int]) -> None:
    table, known = HashTable(capacity=1), dict[int, int]()
    for key, value in puts:
        table.put(key, value)
        known[key] = value
    asked = [*known, *others]
    assert [table.get(key) for key in asked] == [known.get(key, -1) for key in asked]
    found = np.zeros(len(asked), np.int32)
    lookup_all(table.keys, table.values, np.array(asked, np.uint64), found)
    assert found.tolist() == [known.get(key, -1) for key in asked]


def test_a_table_grows_and_stays_at_most_half_full() -> None:
    table = HashTable(capacity=2)
    for i in range(10_000):
        table.put(hash_id(str(i)), i)
    assert table.filled == 10_000
    assert len(table.keys) >= 2 * table.filled
    assert all(table.get(hash_id(str(i))) == i for i in range(10_000))


def test_deleted_keys_leave_when_the_table_grows() -> None:
    table = HashTable(capacity=4)
    for key in range(1, 5):
        table.put(key, -1)
    for key in range(11, 40):
        table.put(key, key)
    assert table.filled == 29
    assert [table.get(key) for key in (1, 4, 11, 39)] == [-1, -1, 11, 39]


def test_0_is_no_key() -> None:
    assert HashTable().get(0) == -1
