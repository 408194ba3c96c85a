"""What serving sees of the worker: a Protocol that the engine implements, and the structs that it answers with."""

from contextlib import AbstractContextManager
from typing import Literal, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.events import Item
from streamer.pipeline.recommend import Wanted
from streamer.profile import Change
from streamer.recommendation import Quality, Recommendations, SimilarItems
from streamer.serving.feed import Seen, Subscription

PartitionState = Literal["restoring", "running"]


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


class SwitchedOff(Exception):  # noqa: N818 - an answer, not a fault
    """This worker does not do what is asked for, by its settings; says which one turns it on."""


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


class FoundUser(msgspec.Struct, frozen=True):
    """A user whom this worker knows; `as_of` is the newest ts (ms) applied."""

    user_id: str
    as_of: int


class FoundUsers(msgspec.Struct, frozen=True):
    """Users whose ids begin with `prefix`, in order of id; without a prefix those in memory, the newest first.

    Only this worker's own users. `more`: there are others.
    """

    prefix: str
    users: tuple[FoundUser, ...]
    more: bool


class TagShare(msgspec.Struct, frozen=True):
    """What part of a user's interests a tag is, and was over the recent past; as in the profile."""

    tag: str
    share: float
    recent: float


class PastVersion(msgspec.Struct, frozen=True):
    """What a published version of a profile said; `interests` strongest first."""

    version: int
    as_of: int
    published_at: int
    interests: tuple[TagShare, ...]
    changed: tuple[Change, ...]


class History(msgspec.Struct, frozen=True):
    """The published versions of a profile that this worker remembers, oldest first.

    It forgets: nothing that was published after `since` (Unix ms) is missing; what was published before may be.
    """

    user_id: str
    since: int
    versions: tuple[PastVersion, ...]


class MapTag(msgspec.Struct, frozen=True):
    """A tag on the map: its part of all interests there, how many of the users have it, and where it lies (-1 to 1)."""

    tag: str
    share: float
    users: int
    x: float
    y: float


class MapPoint(msgspec.Struct, frozen=True):
    """A user on the map, at the mean of the user's tags by share; `top` is the strongest of them."""

    user_id: str
    x: float
    y: float
    top: str


class InterestMap(msgspec.Struct, frozen=True):
    """Which interests go together: tags that the same people have lie close to each other.

    Made from `points`, a sample of the `users` whom this worker has in memory, at `made_at` (Unix ms).
    """

    users: int
    made_at: int
    tags: tuple[MapTag, ...]
    points: tuple[MapPoint, ...]


class ProfileJson(NamedTuple):
    """A profile as it goes over the wire, and what its ETag is made from."""

    version: int
    as_of: int
    events: int  # that it counts
    value: bytes


class Survey(NamedTuple):
    """What some users are interested in, as a table: each entry is a user's share of one tag."""

    users_in_memory: int
    user_ids: list[str]
    tags: list[str]
    user: NDArray[np.int64]  # [entries] place in `user_ids`, rising
    tag: NDArray[np.int64]  # [entries] place in `tags`
    share: NDArray[np.float64]  # [entries]


class WorkerView(Protocol):
    """The worker as serving sees it. Every method is called on the event loop, and returns or awaits at once."""

    def profile(self, user_id: str) -> ProfileJson | None:
        """The user's profile, or None for an unknown user. Raises NotReady or NotOwner."""

    async def users(self, prefix: str, n: int) -> FoundUsers:
        """This worker's users by how their ids begin, at most n. Raises NotReady."""

    def history(self, user_id: str, n: int) -> History | None:
        """The newest n versions that are remembered; None for an unknown user. Raises NotReady or NotOwner."""

    def item(self, item_id: str) -> Item | None:
        """An item of the catalogue, or None for one that is unknown. Any worker knows all items."""

    async def survey(self, users: int, tags: int) -> Survey:
        """The strongest tags, at most so many, of so many of the users in memory, spread evenly. Raises NotReady."""

    def recommendations(self, user_id: str, wanted: Wanted) -> Recommendations | None:
        """What the user may take next, best first; None for an unknown user. Raises NotReady, NotOwner, SwitchedOff."""

    def similar(self, item_id: str, n: int) -> SimilarItems | None:
        """The items most alike; None for an unknown item. Any worker knows all items. Raises SwitchedOff."""

    def quality(self) -> Quality:
        """How well this worker predicts what its users take, measured on a sample of events. Raises SwitchedOff."""

    def readiness(self) -> tuple[bool, str]:
        """Whether this worker can answer for its partitions, and if not why: `restoring 3 of 12 partitions, 40 %`."""

    def liveness(self) -> tuple[bool, str]:
        """Whether this worker makes progress, and if not why: false asks for a restart."""

    def status(self) -> Status:
        """The worker at a glance."""

    def follow(self, user_id: str, last: Seen | None) -> AbstractContextManager[Subscription]:
        """A user's profiles as they are published (after their commit), and what was missed since `last`.

        `feed.Feed` does it. Raises NotReady, or NotOwner for a user of another worker.
        """

    def follow_all(self, per_second: int, last: Seen | None) -> AbstractContextManager[Subscription]:
        """The same of all users of this worker, at most so many a second."""
