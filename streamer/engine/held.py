"""Changes held back: which users of a partition wait for their small change to be published, and until when.

In memory: user key → due time, in the order of being held, which is nearly the order of being due. On disk: one local
row a checkpoint that names the users it held back, deleted when all of them are published: a restart needs no walk
through the users. A restore from the changelog sees every row pass by and finds them there.
"""

from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from streamer.engine.store import HELD, USER, Row, Store
from streamer.pipeline.layout import held_until


class Held:
    """The users who wait. Times in ms."""

    def __init__(self) -> None:
        self._due: dict[bytes, int] = {}
        self._notes: deque[tuple[bytes, int]] = deque()  # local rows that name users, and when those are due

    def __len__(self) -> int:
        return len(self._due)

    def load(self, store: Store) -> None:
        """Take over what the store's local rows name."""
        due: dict[bytes, int] = {}
        for key, note in store.scan(HELD):
            until, users = msgspec.msgpack.decode(note, type=tuple[int, list[bytes]])
            self._notes.append((key, until))
            for user in users:
                due[user] = max(due.get(user, 0), until)
        self._notes = deque(sorted(self._notes, key=lambda entry: entry[1]))
        self._due = dict(sorted(due.items(), key=lambda entry: entry[1]))

    def next_due(self) -> float:
        """When the first change is due; infinity where none waits."""
        return next(iter(self._due.values()), float("inf"))

    def due(self, now: int, limit: int) -> list[bytes]:
        """Users whose time has come, at most `limit`."""
        found: list[bytes] = []
        for key, until in self._due.items():
            if until > now or len(found) == limit:
                break
            found.append(key)
        return found

    def add(self, users: Iterable[bytes], until: int) -> None:
        """Users wait from here on."""
        for user in users:
            self._due.pop(user, None)  # to the end
            self._due[user] = until

    def discard(self, users: Iterable[bytes]) -> None:
        """Users are published."""
        for user in users:
            self._due.pop(user, None)

    def notes(self, users: list[bytes], until: int, checkpoint: int) -> list[Row]:
        """Local rows of a checkpoint that held `users` back; takes out notes whose users are all published."""
        rows: list[Row] = []
        while self._notes and self._notes[0][1] < self.next_due():
            rows.append((self._notes.popleft()[0], None))
        if users:
            key = HELD + checkpoint.to_bytes(8, "big")
            self._notes.append((key, until))
            rows.append((key, _note(until, users)))
        return rows


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
