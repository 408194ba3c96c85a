"""Blocks of the arena: users grow, leave and come back, and never see each other's lists."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamer.pipeline.layout import LEVELS, TAGS, UNIT, Shape, allocate, clear, recent_items
from streamer.pipeline.rows import pack
from tests.pipeline_world import SHAPE, SLOTS, T0, Line, Record, click, purchase

USERS = ["ann", "bob", "cid"]
steps = st.lists(
    st.tuples(st.sampled_from(USERS), st.sampled_from(["click", "buy", "leave"]), st.integers(1, 30)), max_size=30
)


def bytes_of(line: Line) -> int:
    """Bytes of the arena that were ever taken."""
    return int(line.users.end[0]) * UNIT


def events(user_id: str, what: str, first: int, count: int) -> list[Record]:
    make = click if what == "click" else purchase
    numbers = range(first, first + count)
    more = {} if what == "click" else {"currency": ["EUR", "USD", "GBP", "JPY"][first % 4]}
    return [make(f"{user_id}{n}", f"item {n % 50}", T0 + n, user_id, tags=[f"tag {n}"], **more) for n in numbers]


def feed(line: Line, user_id: str, what: str, first: int, count: int) -> None:
    line.feed(**{"clicks" if what == "click" else "purchases": events(user_id, what, first, count)})


@given(steps)
def test_what_a_user_has_does_not_depend_on_who_else_is_there(todo: list[tuple[str, str, int]]) -> None:
    together, alone = Line(), {user_id: Line() for user_id in USERS}
    for n, (user_id, what, count) in enumerate(todo):
        for line in (together, alone[user_id]):
            if what == "leave":
                clear(line.users, line.slots(user_id))
            else:
                feed(line, user_id, what, 30 * n, count)
    for user_id, line in alone.items():
        assert pack(together.users, together.slots(user_id), [b""]) == pack(line.users, line.slots(user_id), [b""])


def test_a_newcomer_takes_less_than_a_kilobyte_and_a_full_user_fourteen() -> None:
    line = Line()
    line.feed([click("a", "mug")])
    assert bytes_of(line) == 672
    assert int(line.users.size[LEVELS - 1]) * UNIT == 13536


def test_a_block_that_is_given_back_is_used_again() -> None:
    line = Line()
    for n in range(20):
        feed(line, "ann", "click", 100 * n, TAGS)
        clear(line.users, line.slots("ann"))
        if n == 0:
            after_one = bytes_of(line)
    assert bytes_of(line) == after_one


def test_every_user_may_have_everything_at_once() -> None:
    line = Line()
    for n in range(SLOTS):
        feed(line, f"user {n}", "click", 0, TAGS + SHAPE.seen)
    full = int(line.users.size[LEVELS - 1]) * UNIT
    assert line.users.level.tolist() == [LEVELS - 1] * SLOTS
    assert SLOTS * full <= bytes_of(line) <= line.users.tags.nbytes


def test_lists_of_odd_widths_keep_apart() -> None:
    for recent, seen in [(1, 1), (2, 3), (7, 5), (40, 63)]:
        line = Line(shape=Shape(recent, seen, 8))
        feed(line, "ann", "click", 0, 100)
        feed(line, "ann", "buy", 100, 1)
        items, at = recent_items(line.users, line.slots("ann"))
        assert len(items) == min(recent, 101) == at[1]
        assert line.profile().activity.spend == {"EUR": 10.0}
        assert len(line.profile().interests) == 20


def test_recent_items_of_many_users_stand_end_to_end() -> None:
    line = Line()
    for n, user_id in enumerate(USERS):
        line.slot(user_id)
        if n:
            feed(line, user_id, "click", 0, n)
    items, at = recent_items(line.users, line.slots("cid", "ann", "bob"))
    assert at.tolist() == [0, 2, 2, 3]
    assert items[2] == items[1]  # both began with item 0


def test_an_arena_is_address_space_only() -> None:
    users = allocate(1_000_000, SHAPE)
    assert users.tags.nbytes > 10 << 30
    assert not np.any(users.seens[:1000])
