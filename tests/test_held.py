"""Changes held back: everybody's time is kept, in whatever order the times come, and memory is bounded."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from streamer.engine.held import SPARE_ENTRIES, Held
from streamer.engine.store import HELD, Store, shared_cache

EVER = 10**9

users = st.lists(st.integers(0, 12).map(lambda n: b"u%d" % n), max_size=6)
times = st.integers(0, 20)


class AgainstNaive(RuleBasedStateMachine):
    """A dictionary of users and their times, searched from end to end, says the same."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.naive = Held(), dict[bytes, int]()
        self.notes: dict[bytes, tuple[int, list[bytes]]] = {}
        self.checkpoint = 0

    @rule(users=users, until=times)
    def hold(self, users: list[bytes], until: int) -> None:
        self.held.add(users, until)
        self.naive.update(dict.fromkeys(users, until))
        self._note(users, until)

    @rule(users=users)
    def publish(self, users: list[bytes]) -> None:
        self.held.discard(users)
        for user in users:
            self.naive.pop(user, None)
        self._note([], 0)

    def _note(self, users: list[bytes], until: int) -> None:
        self.checkpoint += 1
        for key, note in self.held.notes(users, until, self.checkpoint):
            if note is None:
                del self.notes[key]
            else:
                self.notes[key] = msgspec.msgpack.decode(note, type=tuple[int, list[bytes]])

    @rule(now=times, limit=st.integers(0, 9))
    def ask_who_is_due(self, now: int, limit: int) -> None:
        found = self.held.due(now, limit)
        waiting = sorted(until for until in self.naive.values() if until <= now)
        assert [self.naive[user] for user in found] == waiting[:limit]
        assert len(set(found)) == len(found)

    @invariant()
    def next_time_and_number_are_right(self) -> None:
        assert self.held.next_due() == min(self.naive.values(), default=float("inf"))
        assert len(self.held) == len(self.naive)

    @invariant()
    def notes_name_everybody_who_waits_and_none_outlives_its_users(self) -> None:
        named = {(user, until) for until, users in self.notes.values() for user in users}
        assert named >= set(self.naive.items())
        first = min(self.naive.values(), default=EVER)
        assert all(until >= first or number == self.checkpoint for number, until in self._numbered_notes())

    def _numbered_notes(self) -> Iterator[tuple[int, int]]:
        for key, (until, _) in self.notes.items():
            yield int.from_bytes(key[len(HELD) :], "big"), until


TestAgainstNaive = AgainstNaive.TestCase


def test_a_clock_that_is_set_back_delays_nobody() -> None:
    held = Held()
    held.add([b"before"], 1_000_000)
    held.add([b"after"], 2_000)
    assert held.next_due() == 2_000
    assert held.due(2_000, 10) == [b"after"]


def test_users_stay_due_until_they_are_published() -> None:
    held = Held()
    held.add([b"ada", b"bob"], 5)
    assert sorted(held.due(9, 10)) == sorted(held.due(9, 10)) == [b"ada", b"bob"]
    held.discard([b"ada"])
    assert held.due(9, 10) == [b"bob"]


def test_many_who_are_due_come_in_pieces_each_of_them_once() -> None:
    held, found = Held(), list[bytes]()
    everybody = [b"%d" % n for n in range(5000)]
    held.add(everybody, 5)
    while piece := held.due(5, 700):
        found += piece
        held.discard(piece)
    assert sorted(found) == sorted(everybody)


def test_memory_follows_those_who_wait_however_often_others_come_and_go() -> None:
    held = Held()
    held.add([b"%d" % n for n in range(500)], EVER)
    for n in range(300):
        busy = [b"busy %d" % i for i in range(100)]
        held.add(busy, EVER + n)
        held.discard(busy)
        assert held.entries <= 2 * (len(held) + len(busy)) + SPARE_ENTRIES


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "0", shared_cache(8))
    yield opened
    opened.close()


def test_a_restart_finds_everybody_and_the_notes_of_before(store: Store) -> None:
    held = Held()
    for checkpoint, (names, until) in enumerate([([b"ada", b"bob"], 50), ([b"eve"], 40)]):
        held.add(names, until)
        store.write([], 0, held.notes(names, until, checkpoint))
    again = Held()
    again.load(store)
    assert (again.due(40, 9), sorted(again.due(50, 9)), again.next_due()) == ([b"eve"], [b"ada", b"bob", b"eve"], 40)
    again.discard([b"ada", b"bob", b"eve"])
    store.write([], 0, again.notes([], 0, 2))
    assert list(store.scan(HELD)) == []


def test_of_several_times_that_notes_tell_of_a_user_the_first_counts(store: Store) -> None:
    """The user's row says which it is; looking too early costs a look, looking too late breaks a promise."""
    held = Held()
    held.add([b"bob"], 10)  # for whom the notes stay
    for checkpoint, until in enumerate([50, 40, 60]):
        held.discard([b"ada"])
        held.add([b"ada"], until)
        store.write([], 0, held.notes([b"ada"], until, checkpoint))
    again = Held()
    again.load(store)
    assert again.next_due() == 40
