"""Changes held back: which users of a partition wait for their small change to be published, and until when.

In memory: user key → due time, and the users by due time, of which a checkpoint brings one: a heap of times with a list
of users each. A user who is published stays in the list until its time comes; when that is most of the entries, all
lists are made anew: at most two entries a waiting user. Times come in any order: a clock can be set back, and who lags
gives less time than who does not.

On disk: one local row a checkpoint that names the users it held back, deleted when all of them are published: a restart
needs no walk through the users. A restore from the changelog sees every row pass by and finds them there.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

import msgspec

from streamer.engine.store import HELD, USER, Row, Store
from streamer.pipeline.rows import held_until

SPARE_ENTRIES: Final = 1000  # so that few users do not have their lists made anew all the time


class Held:
    """The users who wait. Times in ms."""

    def __init__(self) -> None:
        self._due: dict[bytes, int] = {}
        self._users: dict[int, list[bytes]] = {}  # by due time; who has another time in `_due` by now does not count
        self._times: list[int] = []  # heap of the keys of `_users`
        self._entries = 0
        self._notes: list[tuple[int, bytes]] = []  # heap of local rows that name users, by when those are due

    def __len__(self) -> int:
        return len(self._due)

    @property
    def entries(self) -> int:
        """How many users the lists name, those among them who do not wait any more."""
        return self._entries

    def load(self, store: Store) -> None:
        """Take over what the store's local rows name.

        Of several times of a user the first: it gives way to the one of the user's row once it comes.
        """
        due: dict[bytes, int] = {}
        for key, note in store.scan(HELD):
            until, users = msgspec.msgpack.decode(note, type=tuple[int, list[bytes]])
            self._notes.append((until, key))
            for user in users:
                due[user] = min(due.get(user, until), until)
        heapq.heapify(self._notes)
        self._due = due
        self._make_lists()

    def next_due(self) -> float:
        """When the first change is due; infinity where none waits."""
        return next(self._in_order(), float("inf"))

    def due(self, now: int, limit: int) -> list[bytes]:
        """Users whose time has come, the longest due first, at most `limit`. They wait until they are discarded."""
        found: list[bytes] = []
        passed: list[int] = []
        for time in self._in_order():
            if time > now or len(found) == limit:
                break
            found += islice(self._waiting(time), limit - len(found))
            passed.append(heapq.heappop(self._times))
        for time in passed:
            heapq.heappush(self._times, time)
        return found

    def add(self, users: Iterable[bytes], until: int) -> None:
        """Users wait from here on."""
        more = list(users)
        if not more:
            return
        if until not in self._users:
            self._users[until] = []
            heapq.heappush(self._times, until)
        self._users[until] += more
        self._due.update(dict.fromkeys(more, until))
        self._entries += len(more)
        if self._entries > 2 * len(self._due) + SPARE_ENTRIES:
            self._make_lists()

    def discard(self, users: Iterable[bytes]) -> None:
        """Users are published."""
        for user in users:
            self._due.pop(user, None)

    def notes(self, users: list[bytes], until: int, checkpoint: int) -> list[Row]:
        """Local rows of a checkpoint that held `users` back; takes out notes whose users are all published."""
        rows: list[Row] = []
        while self._notes and self._notes[0][0] < self.next_due():
            rows.append((heapq.heappop(self._notes)[1], None))
        if users:
            key = HELD + checkpoint.to_bytes(8, "big")
            heapq.heappush(self._notes, (until, key))
            rows.append((key, _note(until, users)))
        return rows

    def _in_order(self) -> Iterator[int]:
        """The first time for which somebody waits, again and again as times are taken off; drops what is over."""
        while self._times:
            time = self._times[0]
            users = self._users[time]
            while users and self._due.get(users[-1]) != time:
                users.pop()
                self._entries -= 1
            if users:
                yield time
            else:
                del self._users[heapq.heappop(self._times)]

    def _waiting(self, time: int) -> Iterator[bytes]:
        """Who waits until then; from the end, where `_in_order` takes off who does not wait any more."""
        seen = set()  # who was held back twice until the same time
        for user in reversed(self._users[time]):
            if self._due.get(user) == time and user not in seen:
                seen.add(user)
                yield user

    def _make_lists(self) -> None:
        self._users = {}
        for user, until in self._due.items():
            self._users.setdefault(until, []).append(user)
        self._times = sorted(self._users)
        self._entries = len(self._due)


class Passing:
    """Who waits according to rows of a changelog that pass by.

    The local rows that it returns are written together with those: a restore that is cut short goes on where it was.
    """

    def __init__(self) -> None:
        self._due: dict[bytes, int] = {}
        self._notes: list[bytes] = []

    def see(self, rows: Mapping[bytes, bytes | None], next_offset: int) -> list[Row]:
        """Local rows that name those of `rows` who wait."""
        users = {key[len(USER) :]: row for key, row in rows.items() if key.startswith(USER)}
        found = {user: until for user, row in users.items() if row is not None and (until := held_until(row))}
        for user in users:
            self._due.pop(user, None)
        self._due |= found
        notes = _notes_by_due(found, SEEN, next_offset)
        self._notes += [key for key, _ in notes]
        return notes

    def settle(self, next_offset: int) -> list[Row]:
        """Local rows in place of all before: they name only those who wait in the end."""
        return [*((key, None) for key in self._notes), *_notes_by_due(self._due, WAITS, next_offset)]


SEEN, WAITS = HELD + b"s", HELD + b"w"  # a checkpoint's number never begins so: it is under 2**56


def _notes_by_due(due: Mapping[bytes, int], kind: bytes, offset: int) -> list[Row]:
    users: dict[int, list[bytes]] = {}
    for user, until in due.items():
        users.setdefault(until, []).append(user)
    place = kind + offset.to_bytes(8, "big")
    return [(place + until.to_bytes(8, "big"), _note(until, users[until])) for until in users]


def _note(until: int, users: list[bytes]) -> bytes:
    return msgspec.msgpack.encode((until, users))
