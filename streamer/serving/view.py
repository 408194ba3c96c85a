"""What serving sees of the worker: a Protocol that the engine implements, and the structs that it answers with."""

from contextlib import AbstractContextManager
from typing import Literal, Protocol

import msgspec

from streamer.events import Item
from streamer.profile import Profile
from streamer.serving.feed import Subscription

PartitionState = Literal["restoring", "running", "stopping"]


class NotReady(Exception):  # noqa: N818 - an answer, not a fault
    """No right answer can be given now: `reason` is for people, `retry_after_s` for clients. Wait and ask again."""

    def __init__(self, reason: str, retry_after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.reason, self.retry_after_s = reason, retry_after_s


class NotOwner(Exception):  # noqa: N818 - an answer, not a fault
    """Another worker owns the user's partition: ask it at `owner_url`; None while nobody is known to own it."""

    def __init__(self, partition: int, owner_url: str | None) -> None:
        super().__init__(f"partition {partition} is owned by {owner_url or 'nobody yet'}")
        self.partition, self.owner_url = partition, owner_url


class TopicPosition(msgspec.Struct, frozen=True):
    """How far a topic of a partition is read: offsets of the next record to apply and of the end, `lag` in records."""

    topic: str
    position: int
    end: int
    lag: int


class PartitionStatus(msgspec.Struct, frozen=True):
    """One partition that this worker owns."""

    partition: int
    state: PartitionState
    topics: tuple[TopicPosition, ...] = ()


class Status(msgspec.Struct, frozen=True):
    """A worker at a glance. Totals count since `started_at` (Unix ms); `lag_seconds`: age of the oldest unapplied."""

    version: str
    started_at: int
    ready: bool
    reason: str
    events_total: int
    profiles_total: int
    rejected_total: int
    users_cached: int
    lag_records: int
    lag_seconds: float
    partitions: tuple[PartitionStatus, ...] = ()


class WorkerView(Protocol):
    """The worker as serving sees it. Every method is called on the event loop and must return at once."""

    def profile(self, user_id: str) -> Profile | None:
        """The user's profile, or None for an unknown user. Raises NotReady or NotOwner."""

    def item(self, item_id: str) -> Item | None:
        """An item of the catalogue, or None for one that is unknown. Any worker knows all items."""

    def readiness(self) -> tuple[bool, str]:
        """Whether this worker can answer for its partitions, and if not why: `restoring 3 of 12 partitions, 40 %`."""

    def liveness(self) -> tuple[bool, str]:
        """Whether this worker makes progress, and if not why: false asks for a restart."""

    def status(self) -> Status:
        """The worker at a glance."""

    def subscribe(self, user_id: str | None, per_second: int | None) -> AbstractContextManager[Subscription]:
        """Profiles as they are published (after their commit): of one user, or of all, at most `per_second` of them.

        `feed.Feed` does all of it. Raises NotOwner for a user of another worker.
        """
