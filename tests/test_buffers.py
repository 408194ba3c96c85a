"""What is fetched and not applied yet stays within its memory, and a hot partition leaves room for the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.engine.buffers import (
    BATCH_BYTES,
    FIRST_PIECE,
    OBJECT_BYTES,
    PIECE_BYTES,
    SMALL_BYTES,
    Buffer,
    Memory,
    size_of,
)
from streamer.pipeline.records import RECORD_BYTES, Record, Records

EVER = float("inf")


def records(count: int, size: int, first: int = 0) -> Records:
    return Records.of(Record(b"ann", b"x" * size, 0, first + n) for n in range(count))


def feed(buffer: Buffer, available: int, size: int) -> int:
    """Fetch into a buffer for as long as it may be, in batches of one; returns how many of `available` it took."""
    taken = 0
    while buffer.is_hungry and taken < available:
        piece = records(min(buffer.piece, available - taken), size, first=taken)
        buffer.add(piece, len(piece))
        taken += len(piece)
    return taken


def test_records_take_their_text_and_their_columns() -> None:
    assert records(2, 100).size == 2 * (RECORD_BYTES + 103)


def test_a_record_that_is_kept_takes_its_contents_its_headers_and_what_python_needs() -> None:
    assert size_of(Record(b"ann", b"x" * 100, 0, 0)) == OBJECT_BYTES + 103
    headers = (("trace", b"12345"), ("none", None))
    assert size_of(Record(None, None, 0, 0, headers)) == 3 * OBJECT_BYTES + 10 + 4


@pytest.mark.parametrize("size", [0, 150, 60_000, 1 << 20])
@pytest.mark.parametrize("partitions", [1, 3, 12])
def test_memory_is_bounded_whatever_the_size_of_records_and_the_number_of_partitions(
    size: int, partitions: int
) -> None:
    memory = Memory(16 << 20)
    buffers = [Buffer(0, memory) for _ in range(partitions)]
    for buffer in buffers:
        feed(buffer, 100_000, size)
    first_pieces = partitions * FIRST_PIECE * (size + RECORD_BYTES + 3)  # their size is not known yet
    assert memory.taken == sum(buffer.size for buffer in buffers)
    assert memory.taken <= memory.limit + partitions * PIECE_BYTES + first_pieces


def test_a_hot_partition_takes_half_and_many_hot_ones_leave_room_for_one_more() -> None:
    memory = Memory(32 << 20)
    hot = [Buffer(0, memory) for _ in range(4)]
    feed(hot[0], 10**6, 150)
    assert memory.limit // 2 <= hot[0].size < memory.limit // 2 + 2 * PIECE_BYTES
    for buffer in hot[1:]:
        feed(buffer, 10**6, 150)
    cold = Buffer(0, memory)
    assert feed(cold, 1000, 150) == 1000


def test_an_empty_buffer_is_fetched_even_when_nothing_is_free() -> None:
    memory = Memory(1 << 20)
    greedy, merged_with_it = Buffer(0, memory), Buffer(0, memory)
    greedy.add(records(64, 1 << 20), 64)
    assert memory.free < 0
    assert not greedy.is_hungry
    assert merged_with_it.is_hungry


def test_large_records_are_read_in_small_pieces_and_make_small_batches() -> None:
    buffer = Buffer(0, Memory(1 << 30))
    for _ in range(3):
        buffer.add(records(64, 60_000), 64)
    assert buffer.piece * 60_000 <= PIECE_BYTES
    assert buffer.batch(5000) * 60_000 <= BATCH_BYTES
    taken, _ = buffer.take(EVER, buffer.batch(5000))
    assert taken is not None
    assert len(taken) > 1


def test_small_records_are_read_in_pieces_that_grow() -> None:
    buffer = Buffer(0, Memory(1 << 30))
    pieces = []
    for _ in range(6):
        pieces.append(buffer.piece)
        buffer.add(records(buffer.piece, 150), buffer.piece)
    assert pieces == [FIRST_PIECE * 2**n for n in range(6)]
    assert buffer.batch(5000) == 5000


def test_a_record_larger_than_everything_still_passes() -> None:
    memory = Memory(1 << 20)
    buffer = Buffer(0, memory)
    assert feed(buffer, 1, 40 << 20) == 1
    taken, size = buffer.take(EVER, buffer.batch(5000))
    memory.taken -= size
    assert taken is not None
    assert (len(taken), memory.taken, buffer.is_hungry) == (1, 0, True)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 10**5), st.integers(0, 9)), max_size=30))
def test_every_byte_that_was_taken_is_given_back(steps: list[tuple[int, int, int]]) -> None:
    memory = Memory(1 << 20)
    buffer, handed_on = Buffer(0, memory), 0
    for count, size, take in steps:
        buffer.add(records(count, size), count)
        handed_on += buffer.take(EVER, take)[1]
        assert memory.taken == buffer.size + handed_on
    memory.taken -= handed_on
    buffer.drop()
    assert (memory.taken, buffer.size, len(buffer)) == (0, 0, 0)


def test_many_small_pieces_become_few_and_what_is_left_of_a_large_one_keeps_no_more_than_itself() -> None:
    buffer = Buffer(0, Memory(1 << 30))
    for n in range(5000):
        buffer.add(records(1, 100, first=n), 1)
    assert len(buffer) == 5000
    assert len(buffer._pieces) <= 1 + buffer.size // SMALL_BYTES
    large = Buffer(0, Memory(1 << 30))
    large.add(records(1000, 1000), 1)
    large.take(EVER, 999)
    assert len(large._pieces[0].text) < 2000


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=6), max_size=6),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 7))),
)
def test_pieces_are_taken_as_one_log_would_be(pieces: list[list[int]], takes: list[tuple[int, int]]) -> None:
    buffer, log = Buffer(0, Memory(1 << 20)), [ms for piece in pieces for ms in piece]
    offsets = iter(range(len(log)))
    for piece in pieces:
        buffer.add(Records.of(Record(b"%d" % ms, b"v%d" % ms, ms, next(offsets)) for ms in piece), 1)
    left = [Record(b"%d" % ms, b"v%d" % ms, ms, n) for n, ms in enumerate(log)]
    for cut_ms, limit in takes:
        assert [buffer.ms(i) for i in range(len(buffer))] == [record.timestamp for record in left]
        young = [n for n, record in enumerate(left[:limit]) if record.timestamp > cut_ms]
        expected = left[: young[0] if young else limit]
        taken, _ = buffer.take(cut_ms, limit)
        assert list(taken or []) == expected
        assert buffer.after == (expected[-1].offset + 1 if expected else buffer.after)
        left = left[len(expected) :]
