"""Rows: what goes in comes out, also into columns of other widths."""

from base64 import b85decode

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import StateError
from streamer.model.interests import EVENTS, EVER, MAIN
from streamer.pipeline.fold import APPLIED, DUPLICATE
from streamer.pipeline.gate import VECTOR_EVERY, cosines
from streamer.pipeline.layout import HEAD, N_VECTOR, TAGS, Shape, Users, allocate, clear, tags_of
from streamer.pipeline.rows import (
    HELD,
    LAYOUT,
    TAGS_AN_EVENT,
    held_until,
    pack,
    pack_learned,
    published_at,
    unpack,
    unpack_learned,
)
from streamer.profile import Change
from tests.pipeline_world import DAY_MS, ITEMS, SHAPE, T0, Line, click, profiles, purchase, state_of

SLOT = np.array([3])

histories = st.lists(
    st.tuples(st.integers(0, 90), st.sampled_from([*ITEMS]), st.integers(-80 * DAY_MS, 0), st.booleans()), max_size=90
)


def lived(history: list[tuple[int, str, int, bool]], shape: Shape = SHAPE) -> Line:
    """A user with a history: (event id, item, ts from T0, whether there was a checkpoint after it)."""
    line = Line(shape=shape)
    line.slot("ann")
    for event_id, item_id, ts, checkpoint in history:
        if event_id % 3 == 0:
            line.feed(purchases=[purchase(str(event_id), item_id, T0 + ts, currency=["EUR", "USD"][event_id % 2])])
        else:
            line.feed([click(str(event_id), item_id, T0 + ts)])
        if checkpoint:
            line.cut()
    return line


def row_of(line: Line, cause: bytes = b"") -> bytes:
    [row] = pack(line.users, line.slots("ann"), [cause])
    return row


def used_columns(shape: Shape = SHAPE, slots: int = 4) -> Users:
    """Columns whose slots were all somebody else's before."""
    users = allocate(slots, shape)
    users.seens[:] = 0xABABABABABABABAB
    users.vector[:] = users.touched_at[:] = 77
    busy = Line(shape=shape)
    busy.feed([click(str(i), "unlisted", T0 + i, tags=[f"tag {i % TAGS}"]) for i in range(2 * TAGS)])
    unpack(users, np.arange(slots), [row_of(busy)] * slots)
    clear(users, np.arange(slots))
    return users


def moved_to(shape: Shape, line: Line) -> Line:
    """The same user in a worker with other settings, through its row."""
    other = Line(shape=shape)
    other.users = used_columns(shape, len(other.users.head))
    other.world = other.world._replace(users=other.users, learned=line.world.learned)
    other.slot("somebody else")
    unpack(other.users, other.slots("ann"), [row_of(line)])
    return other


@given(histories, st.binary(max_size=20))
def test_a_row_read_and_written_again_is_the_same(history: list[tuple[int, str, int, bool]], cause: bytes) -> None:
    row = row_of(lived(history), cause)
    users = used_columns()
    assert unpack(users, SLOT, [row]) == [cause]
    assert pack(users, SLOT, [cause]) == [row]


@given(histories)
def test_a_user_read_from_a_row_looks_the_same(history: list[tuple[int, str, int, bool]]) -> None:
    line = lived(history)
    other = moved_to(SHAPE, line)
    other.causes[other.slot("ann")] = line.causes[line.slot("ann")]
    assert other.profile() == line.profile()


def test_many_rows_at_once_go_to_their_own_slots() -> None:
    line = Line()
    for n, user_id in enumerate(["ann", "bob", "cid"]):
        line.slot(user_id)
        for i in range(n * 3):
            line.feed([click(f"{user_id}{i}", "mug", T0 + i, user_id)])
    rows = pack(line.users, line.slots("cid", "ann", "bob"), [b"c", b"", b"b"])
    users = used_columns()
    assert unpack(users, np.array([0, 2, 1]), rows) == [b"c", b"", b"b"]
    assert users.head["clicks"][:3].tolist() == [6, 3, 0]
    assert pack(users, np.array([0, 2, 1]), [b"c", b"", b"b"]) == rows


def test_packing_changes_nothing() -> None:
    line = lived([(1, "mug", 0, True), (2, "pan", 0, False)])
    before = state_of(line.users)
    row_of(line, b"cause")
    assert state_of(line.users) == before


def test_unpacking_leaves_the_other_slots_alone() -> None:
    users, others = used_columns(), np.arange(3)
    rows = [row_of(lived([(n, item_id, 0, True)])) for n, item_id in enumerate(["mug", "pan", "tent"])]
    unpack(users, others, rows)
    unpack(users, SLOT, [row_of(lived([(9, "mug", 0, True)]))])
    assert pack(users, others, [b""] * 3) == rows


def test_nothing_packed_is_nothing() -> None:
    users = used_columns()
    none = np.zeros(0, np.int64)
    assert pack(users, none, []) == []
    assert unpack(users, none, []) == []


def test_the_example_of_the_documentation_has_the_size_that_it_says() -> None:
    line = Line()
    line.feed([click("1", "mug"), click("2", "mug"), click("3", "mug")])
    assert HEAD.itemsize == 176
    assert len(row_of(line)) == 346


@pytest.mark.parametrize("width", [8, 256])
def test_a_full_user_fits_whatever_the_settings_allow(width: int) -> None:
    shape = Shape(recent=255, seen=1024, vector=width)
    line = Line(shape=shape)
    line.feed([click(str(i), "mug", T0 + i) for i in range(1024)])
    line.cut()
    users = allocate(4, shape)
    unpack(users, SLOT, [row_of(line)])
    assert pack(users, SLOT, [b""]) == [row_of(line)]
    assert users.head["counts"][3].tolist() == [2, 255, 1024, 0, width]


def test_a_cause_may_be_as_long_as_an_event() -> None:
    cause = b"e" * 100_000
    users = used_columns()
    assert unpack(users, SLOT, [row_of(lived([]), cause)]) == [cause]


@pytest.mark.parametrize(("recent", "kept"), [(2, 2), (4, 4), (40, 4)])
def test_of_recent_items_the_newest_are_kept(recent: int, kept: int) -> None:
    line = lived([(i, item_id, i, False) for i, item_id in enumerate(["mug", "pan", "tent", "lamp"])])
    before = line.profile().recent_items
    assert moved_to(SHAPE._replace(recent=recent), line).profile().recent_items == before[:kept]


@given(
    st.lists(st.integers(0, 30), max_size=40),
    st.integers(1, 12),
    st.integers(1, 12),
    st.lists(st.integers(0, 30), max_size=40),
)
def test_a_ring_of_another_width_goes_on_with_the_newest_event_ids(
    before: list[int], width: int, new_width: int, after: list[int]
) -> None:
    line = Line(shape=SHAPE._replace(seen=width))
    line.slot("ann")
    for i in before:
        line.feed([click(str(i))])
    other = moved_to(SHAPE._replace(seen=new_width), line)
    remembered: list[int] = []
    for i in before:
        remembered += [] if i in remembered else [i]
        remembered = remembered[-width:]
    remembered = remembered[-new_width:]
    for i in after:
        assert (other.feed([click(str(i))]).outcome == DUPLICATE).tolist() == [i in remembered]
        remembered += [] if i in remembered else [i]
        remembered = remembered[-new_width:]


@pytest.mark.parametrize("dim", [4, 16])
def test_a_published_vector_of_another_width_is_dropped(dim: int) -> None:
    line = lived([(1, "mug", 0, True)])
    other = moved_to(SHAPE._replace(vector=dim), line)
    slots = other.slots("ann")
    assert other.users.head["counts"][slots, N_VECTOR] == 0
    assert cosines(other.users, slots, np.ones((1, dim), np.float32)).tolist() == [0.0]
    other.feed([click(str(i), "mug") for i in range(2, 2 + VECTOR_EVERY)])
    [profile] = profiles(other.cut())
    assert profile.vector_dim == dim
    assert profile.changed[-1] == Change("vector_moved", before=1.0, after=0.0)


def test_a_row_of_a_newer_worker_is_refused_before_any_is_read() -> None:
    line = lived([(1, "mug", 0, False)])
    newer = bytes([LAYOUT + 1]) + row_of(line)[1:]
    users = used_columns()
    before = state_of(users)
    with pytest.raises(
        StateError, match=rf"state layout {LAYOUT + 1} is newer than this worker's {LAYOUT}: upgrade the worker"
    ):
        unpack(users, np.array([0, 1]), [row_of(line), newer])
    assert state_of(users) == before


def test_a_row_tells_whether_a_change_is_held_back_and_until_when() -> None:
    line = lived([(1, "mug", 0, True)])
    line.feed([click("2", "mug")])
    [row] = line.cut(due_ms=T0 + 777).rows
    assert (row[1] & HELD, held_until(row)) == (HELD, T0 + 777)
    [row] = line.cut_some("ann", why=1).rows
    assert (row[1] & HELD, held_until(row)) == (0, 0)


def test_a_row_tells_when_its_user_was_published() -> None:
    line = lived([])
    assert published_at(row_of(line)) == 0
    line.feed([click("1")])
    [row] = line.cut(now_ms=T0 + 5).rows
    assert published_at(row) == T0 + 5


def test_a_cleared_slot_is_blank() -> None:
    line = lived([(1, "mug", 0, True)])
    clear(line.users, line.slots("ann"))
    blank = Line()
    blank.slot("ann")
    assert row_of(line) == row_of(blank)
    assert line.profile().interests == ()


def test_a_restored_user_goes_on_as_if_nothing_had_happened() -> None:
    line = lived([(i, "mug", -i, False) for i in range(70)])
    other = moved_to(SHAPE, line)
    more = [click("100", "tent", T0 - 50), click("69", "pan"), click("0", "pan")]
    outcomes = [line.feed([record]).outcome.tolist() for record in more]
    assert [other.feed([record]).outcome.tolist() for record in more] == outcomes
    assert outcomes == [[APPLIED], [DUPLICATE], [APPLIED]]
    assert other.profile() == line.profile()


# A row of layout 1: a click on a mug, a checkpoint, then a tent, a pan that was bought a day before, a lamp bought.
LAYOUT_1 = (
    "0RRC2000620006200093000SS<<E-&0000CzsidN0001J<<E-&00000000000000000000000000000000000000000000000000"
    "00000000000000000000000000000000000000000000000000000000000000000000000000000000000C400000000C41ONm8"
    "0ssgA000C4003|5WiUG{%z|o7Oe4Q49lY8}Z+_Uo2E-XE%8mLHuq6NhAV6N7dq9*E{XYNzfIt8MfIk2LfIk2LfIk2LfIk2LfIt8M"
    "fIt8M06+i$fIt8MKtKQhKtKQhfIk2LKtKR!<<E-&0001J<<E-&000SS<<E-&000SS<<E-&001*HvpzF3vpxU-00000002!|0bxx1"
    "aP0C9=4S%ksL;>5c)g^-CuNqpgT9T+3S|NbXywm~0RRC7Xywm~0RRC2Xywm~0RRF348O{Y0RUL>n2!P_&1Dp$T`w}HmHY5?lztxE"
    "By$Z)ykdx?WVKaOL;yuqQUCw|007VuV?h7_007VuV?mPx0R3$Zkbh%gb#rAcF#"
)


# The same in layout 2.
LAYOUT_2 = (
    "0ssL3000620006200093000SS<<E-&0000CzsidN0001J<<E-&00000000000000000000000000000000000000000000000000"
    "00000000000000000000000000000000000000000000000000000000000000000000000000000000000C400000000C41ONm8"
    "0ssgA000C4003|5WiUG{%z^-D<<E-&00000AV6N7dq9*E{Xa7^vp#A~Oe4Q49lQW&<<E-&00000fIk2LfIk2LfIl-cvp(8MZ+_Uo"
    "2E++y<<E-&00000fIt8MfIt8M06+i$000>(%8mLHuq6p-<<E-&00000KtKQhKtKQhfIk2L002!|0bxx1aO?sJXywm~0RZw2=4S%k"
    "sL%lgXywm~0RYdtc)g^-CuIQuXywm~0RWb|gT9T+3S|NS48O{Y0RUL>n2!P_&1Dp$T`w}HmHY5?lztxEBy$Z)ykdx?WVHYQ007Vu"
    "V?k9@L;wH)00000007VuV?jk#QUCw|005H%0R3$Zkbh%gb#rAcF#"
)


@pytest.mark.parametrize(("row", "layout"), [(LAYOUT_1, 1), (LAYOUT_2, 2)])
def test_a_row_of_an_older_layout_is_read_as_it_was_meant(row: str, layout: int) -> None:
    line = lived([(1, "mug", 0, True), (2, "tent", 5, False), (3, "pan", -DAY_MS, False), (6, "lamp", 9, False)])
    old = b85decode(row)
    assert old[0] == layout
    users = used_columns()
    assert unpack(users, SLOT, [old]) == [b"cause-1"]
    for name in ("clock", "hour", "in_hour"):  # as good as not known before layout 3
        line.users.head[name][0] = 0
    mine, expected = tags_of(users, 3), tags_of(line.users, 0)
    for name in ("tag", "ts"):
        assert (mine[name] == expected[name]).all()
    assert (mine["weight"][:, MAIN : EVENTS + 1] == expected["weight"][:, MAIN : EVENTS + 1]).all()
    assert mine["weight"][:, EVER].tolist() == pytest.approx((mine["weight"][:, MAIN] / TAGS_AN_EVENT).tolist())
    assert (mine["published"] > 0).tolist() == (expected["published"] > 0).tolist()
    expected[:] = mine
    assert pack(users, SLOT, [b"cause-1"]) == [row_of(line, b"cause-1")]


def test_rows_of_all_layouts_are_read_together() -> None:
    oldest, old, new = b85decode(LAYOUT_1), b85decode(LAYOUT_2), row_of(lived([(1, "mug", 0, True)]))
    users = used_columns()
    assert unpack(users, np.array([2, 0, 1, 3]), [new, oldest, new, old]) == [b"", b"cause-1", b"", b"cause-1"]
    assert pack(users, np.array([2, 1]), [b"", b""]) == [new, new]
    assert pack(users, np.array([0]), [b""]) == pack(users, np.array([3]), [b""])


# What a partition learned


def test_what_was_learned_goes_on_bit_for_bit_from_its_row() -> None:
    line = lived([(i, "mug", i, False) for i in range(9)])
    learned = line.world.learned
    again = unpack_learned(pack_learned(learned))
    assert [(a == b).all() for a, b in zip(again, learned, strict=True)] == [True] * len(learned)
    line.feed([click("more", "tent", T0 + 99)])
    assert again.events[0] == learned.events[0] - 1  # it is a copy


def test_a_partition_without_a_row_has_learned_nothing() -> None:
    assert unpack_learned(None).events[0] == 0


def test_what_a_newer_worker_learned_is_refused() -> None:
    row = pack_learned(unpack_learned(None))
    with pytest.raises(StateError, match="upgrade the worker"):
        unpack_learned(bytes([row[0] + 1]) + row[1:])
