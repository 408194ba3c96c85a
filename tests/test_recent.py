"""What was published last, and how a reader that broke off goes on."""

import pytest

from streamer.serving.feed import QUEUE, REPLAY, Feed, Seen, Subscription
from streamer.serving.recent import OVERHEAD, Recent

ROOM = 1 << 20


async def waiting(reader: Subscription) -> list[tuple[str, int]]:
    """User and version of all that is queued."""
    found = []
    while (change := await reader.next(0.001)) is not None:
        found.append((change.user_id, change.version))
    return found


def published(*changes: tuple[str, int], room: int = ROOM) -> Feed:
    """A feed that has these behind it."""
    feed = Feed(Recent(room))
    for user_id, version in changes:
        feed.publish(user_id, version, b"{}")
    return feed


def test_memory_is_bounded_and_the_oldest_leave() -> None:
    recent = Recent(10 * (OVERHEAD + 5))
    for version in range(1, 31):
        recent.note("ann", version, b"{}")
        recent.note(f"u{version % 7}", version, b"{}")
    assert [change.version for change in recent.until("ann", 30)] == list(range(26, 31))
    assert recent.find("ann", 25) is None
    assert sum(1 for _ in recent.after(0)) == 10


def test_a_version_that_was_published_twice_outlives_the_first_of_both() -> None:
    recent = Recent(2 * (OVERHEAD + 5))
    recent.note("ann", 1, b"{}")
    again = recent.note("ann", 1, b"[]")  # its state was dropped
    recent.note("bob", 1, b"{}")
    assert recent.find("ann", 1) is again
    recent.note("bob", 2, b"{}")
    assert recent.find("ann", 1) is None


def test_versions_are_told_back_to_the_first_hole_only() -> None:
    recent = published(("ann", 3), ("ann", 4), ("ann", 7), ("bob", 1), ("ann", 8)).recent
    assert [change.version for change in recent.until("ann", 8)] == [7, 8]


def test_version_that_is_not_here_tells_nothing() -> None:
    assert published(("ann", 3)).recent.until("ann", 4) == []


async def test_reader_of_a_user_gets_just_what_it_missed() -> None:
    feed = published(("ann", 1), ("ann", 2), ("bob", 1), ("ann", 3))
    with feed.user("ann", 3, Seen("ann", 1)) as reader:
        feed.publish("ann", 4, b"{}")
        assert not reader.has_gap
        assert await waiting(reader) == [("ann", 2), ("ann", 3), ("ann", 4)]


@pytest.mark.parametrize(
    ("version", "last"),
    [
        (9, Seen("ann", 3)),  # another worker published in between
        (3, Seen("ann", 0)),  # the first is forgotten
        (3, Seen("ann", 5)),  # of another life
        (3, Seen("bob", 3)),
        (3, Seen("ann", -1)),  # never an id of ours
    ],
)
async def test_reader_is_told_when_what_it_missed_is_gone(version: int, last: Seen) -> None:
    with published(("ann", 2), ("ann", 3)).user("ann", version, last) as reader:
        assert reader.has_gap
        assert await waiting(reader) == []


def test_reader_who_missed_nothing_is_told_of_no_gap_though_nothing_is_remembered() -> None:
    with Feed().user("ann", 7, Seen("ann", 7)) as reader:
        assert not reader.has_gap


def test_more_than_a_queue_takes_is_a_gap() -> None:
    feed = published(*(("ann", version) for version in range(1, REPLAY + 3)))
    with feed.user("ann", REPLAY + 2, Seen("ann", 1)) as reader:
        assert reader.has_gap


async def test_reader_of_all_gets_the_newest_it_missed_and_how_many_more_there_were() -> None:
    feed = published(*((f"u{n}", 1) for n in range(REPLAY + 10)))
    with feed.everyone(1, Seen("u0", 1)) as reader:
        assert (reader.has_gap, reader.skipped) == (False, 9)
        assert await waiting(reader) == [(f"u{n}", 1) for n in range(10, REPLAY + 10)]
    with feed.everyone(1, Seen("stranger", 1)) as reader:
        assert reader.has_gap


async def test_reader_of_a_user_who_moves_away_is_told() -> None:
    feed = published()
    with feed.user("ann") as mine, feed.everyone(10) as everybody:
        feed.publish("ann", 1, b"{}")
        feed.move_users()
        feed.publish("ann", 2, b"{}")
        assert (mine.ended, everybody.ended) == ("moved", None)
        assert await waiting(mine) == [("ann", 1)]


async def test_reader_that_is_dropped_is_woken() -> None:
    feed = published()
    with feed.user("ann") as reader:
        for version in range(QUEUE + 2):
            feed.publish("ann", version, b"{}")
        assert len(await waiting(reader)) == QUEUE
        assert reader.ended == "slow"
