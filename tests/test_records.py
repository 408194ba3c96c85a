"""Records in columns: what Kafka packed is what is read, in one piece or in many, and nothing that is not there."""

from itertools import pairwise

import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import example, given
from hypothesis import strategies as st

from streamer.engine.record_batches import packed
from streamer.pipeline.records import (
    RECORD_BYTES,
    Columns,
    CorruptError,
    Packed,
    Record,
    Records,
    _Batches,
    _unpack,
    join,
    unpack,
)
from streamer.pipeline.words import SPARE

NOW = 1_760_000_000_000
LONGEST = b"\xfe" + b"\xff" * 8 + b"\x01"  # 2**63 - 1
maybe_bytes = st.none() | st.binary(max_size=200)
headers = st.lists(st.tuples(st.text(max_size=9), maybe_bytes), max_size=3).map(tuple)
record = st.builds(Record, maybe_bytes, maybe_bytes, st.integers(0, 1 << 45), st.just(0), headers)
batches = st.lists(st.lists(record, min_size=1, max_size=6), max_size=5)


def numbered(many: list[list[Record]]) -> list[list[Record]]:
    """Records with the offsets of one log."""
    offsets = iter(range(10_000))
    return [[each._replace(offset=next(offsets)) for each in some] for some in many]


def pack(records: list[Record], codec: int = 0) -> Packed:
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 20)
    for n, each in enumerate(records):
        assert builder.append(n, each.timestamp, each.key, each.value, list(each.headers)) is not None
    batch = packed(memoryview(builder.build()))
    base = records[0].offset
    return batch._replace(base_offset=base, offset=base + len(records) - 1)


@given(batches, st.sampled_from(range(5)))
def test_what_was_packed_is_unpacked(many: list[list[Record]], codec: int) -> None:
    many = numbered(many)
    records = unpack([pack(some, codec) for some in many])
    flat = [each for some in many for each in some]
    assert list(records) == flat
    assert len(records) == len(flat)
    assert records.keys == [each.key or b"" for each in flat]
    assert records.have_headers == any(each.headers for each in flat)
    if flat:
        assert records.next_offset == flat[-1].offset + 1
        assert records[-1] == flat[-1]


@given(batches, st.integers(0, 30))
def test_records_before_the_wanted_offset_are_passed_over(many: list[list[Record]], wanted: int) -> None:
    many = numbered(many)
    records = unpack([pack(some)._replace(wanted=wanted) for some in many])
    assert list(records) == [each for some in many for each in some if each.offset >= wanted]


@given(batches, st.lists(st.integers(0, 30), max_size=6))
def test_parts_joined_are_the_whole(many: list[list[Record]], cuts: list[int]) -> None:
    records = unpack([pack(some) for some in numbered(many)])
    ends = sorted({min(cut, len(records)) for cut in cuts} | {0, len(records)})
    parts = [records.part(first, behind) for first, behind in pairwise(ends)]
    assert sum(part.size for part in parts) == records.size
    if parts:
        assert list(join(parts)) == list(records)
        assert join(parts).size == records.size
        assert [list(part) for part in parts] == [list(join([part, part]).part(0, len(part))) for part in parts]


@given(batches, st.integers(0, 30), st.integers(0, 30))
def test_a_part_keeps_no_text_but_its_own_where_that_is_the_less(
    many: list[list[Record]], first: int, behind: int
) -> None:
    records = unpack([pack(some) for some in numbered(many)])
    part = records.part(min(first, len(records)), min(max(first, behind), len(records)))
    trimmed = part.trimmed()
    assert list(trimmed) == list(part)
    assert trimmed.size == part.size
    assert len(trimmed.text) <= 2 * (part.size - RECORD_BYTES * len(part)) + SPARE + 1


@given(st.lists(record, max_size=6))
def test_records_that_somebody_else_has_are_the_same_but_for_their_headers(some: list[Record]) -> None:
    records = Records.of(some)
    assert list(records) == [each._replace(headers=()) for each in some]
    assert records.keys == [each.key or b"" for each in some]
    assert not records.have_headers


def test_all_records_have_the_time_of_the_log_where_the_topic_wants_it_so() -> None:
    batch = pack([Record(b"k", b"v", NOW + n, n) for n in range(3)])._replace(fixed_ms=5)
    assert [each.timestamp for each in unpack([batch])] == [5, 5, 5]


def test_there_is_no_record_beyond_the_last() -> None:
    records = Records.of([Record(b"k", b"v", NOW, 0)])
    with pytest.raises(IndexError):
        records[1]


# ---- damage
@given(st.lists(record, min_size=1, max_size=4), st.integers(1, 300))
def test_a_body_that_is_cut_off_is_corrupt(some: list[Record], missing: int) -> None:
    batch = pack(some)
    with pytest.raises(CorruptError, match="not as long as it says"):
        unpack([batch._replace(body=batch.body[: max(len(batch.body) - missing, 0)])])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """The body of a batch with a byte that is another."""
    body = bytearray(pack(draw(st.lists(record, min_size=1, max_size=3))).body)
    body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body)


@st.composite
def made_up(draw: st.DrawFn) -> bytes:
    """One record of small numbers and of such as have no end, which may say that it is longer than it is."""
    inside = bytes(draw(st.lists(st.sampled_from((0, 1, 2, 4, 0x7E, 0x80, 0xFF)), max_size=12)))
    return bytes([2 * (len(inside) + draw(st.integers(0, 2)))]) + inside


def unpacked_among(around: int, body: bytes, size: int) -> tuple[int, list[object]]:
    """What the kernel makes of a body before and behind which there are other bytes: all that it wrote."""
    text = np.full(len(body) + 2 * SPARE, around, np.uint8)
    text[SPARE:-SPARE] = np.frombuffer(body, np.uint8)
    text.flags.writeable = False  # as it is in `unpack`
    about = _Batches(*np.array([0, len(body), size, 0, 0, -1, 0], np.int64)[:, None])
    columns = Columns._make(np.zeros(shape, np.int64) for shape in (size + 1, size, size, (size, 2), (size, 2), size))
    return _unpack(text[SPARE:-SPARE], about, columns), [column.tolist() for column in columns]


@given(damaged() | made_up(), st.integers(0, 4))
@example(b"\x1a\x00\x00\x00" + LONGEST, 1)  # where it ends is no number of 64 bits
def test_no_damage_has_anything_read_from_outside(body: bytes, size: int) -> None:
    assert unpacked_among(0, body, size) == unpacked_among(1, body, size)


@pytest.mark.parametrize(
    "body",
    [
        b"\xff" * 30,  # a length without an end
        b"\x00",  # of no bytes
        b"\x02\x00",  # of the attributes alone
        b"\x0c\x00\x00\x00\x7e\x01\x00",  # a key far longer than the record
        b"\x0c\x00\x00\x00\x01\x01\x01",  # -1 headers
        b"\x0c\x00\x00\x00\x01\x01\x7e",  # 63 headers, none there
        b"\x1c\x00\x00\x00\x01\x01" + b"\x80" * 8 + b"\x40",  # 2**61 headers
        b"\x1e\x00\x00\x00\x01\x01" + b"\x80" * 9 + b"\x01",  # 2**62 headers
    ],
    ids=repr,
)
def test_lengths_that_lie_are_corrupt(body: bytes) -> None:
    with pytest.raises(CorruptError, match="record 0 of a batch"):
        unpack([Packed(body, 1, 0, 0, NOW, -1)])


@pytest.mark.parametrize("size", [2, 2**31 - 1])
def test_a_batch_that_says_it_has_more_records_is_corrupt(size: int) -> None:
    with pytest.raises(CorruptError, match="record 1 of a batch"):
        unpack([pack([Record(b"k", b"v", NOW, 0)])._replace(size=size)])


def test_a_batch_of_no_records_has_none() -> None:
    assert len(unpack([Packed(b"", 0, 7, 7, NOW, -1)])) == 0
    assert len(unpack([])) == 0
