"""Changes held back: which users of a partition wait for their small change to be published, and until when.

In memory: user key → due time, in the order of being held, which is nearly the order of being due. On disk: one local
row a checkpoint that names the users it held back, deleted when all of them are published: a restart needs no walk
through the users. A restore from the changelog sees every row pass by and finds them there.
"""

from collections import deque
from collections.abc import Iterable

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

    def load(self, store: Store, restored: dict[bytes, int]) -> None:
        """Take over what the store's local rows name, and what passed by in the changelog's tail."""
        due = dict(restored)
        for key, note in store.scan(HELD):
            until, users = msgspec.msgpack.decode(note, type=tuple[int, list[bytes]])
            self._notes.append((key, until))
            for user in users:
                due.setdefault(user, until)
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
            rows.append((key, msgspec.msgpack.encode((until, users))))
        return rows


def note_row(key: bytes, row: bytes | None, held: dict[bytes, int]) -> None:
    """Keep `held` right while rows of a changelog pass by."""
    if not key.startswith(USER):
        return
    user = key[len(USER) :]
    due = held_until(row) if row is not None else 0
    if due:
        held[user] = due
    else:
        held.pop(user, None)
