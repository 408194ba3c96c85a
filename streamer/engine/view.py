"""What serving sees of the worker: profiles from the columns or the store, readiness, progress. Only reads."""

import time
from contextlib import AbstractContextManager
from typing import Final

import msgspec
import numpy as np

from streamer import __version__, metrics
from streamer.engine.cache import IN_FLIGHT
from streamer.engine.engine import Engine
from streamer.engine.ingest import Ingest
from streamer.engine.lookup import find_users, survey
from streamer.engine.partition import Partition
from streamer.engine.ranking import Ranking
from streamer.engine.store import USER
from streamer.engine.watchdog import Watchdog
from streamer.events import Item
from streamer.pipeline.layout import Shape, Users, allocate, are_known, clear
from streamer.pipeline.profile_json import tell_as
from streamer.pipeline.reader import Reader
from streamer.pipeline.recommend import Wanted
from streamer.pipeline.rows import is_blank, unpack
from streamer.recommendation import Quality, Recommendations, SimilarItems
from streamer.serving.feed import Feed, Seen, Subscription
from streamer.serving.view import (
    FoundUsers,
    History,
    NotOwner,
    NotReady,
    PartitionStatus,
    PastVersion,
    ProfileJson,
    Status,
    Survey,
    SwitchedOff,
    TopicPosition,
)
from streamer.settings import Settings
from streamer.upstream import partition_of

_FIRST: Final = np.zeros(1, np.int64)
_decode_past = msgspec.json.Decoder(PastVersion).decode


class View:
    """Implements `serving.view.WorkerView`."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        ingest: Ingest,
        feed: Feed,
        watchdog: Watchdog,
    ) -> None:
        self._settings, self._engine, self._ingest, self._feed = settings, engine, ingest, feed
        self._watchdog = watchdog
        # Two slots: a column of one has another memory layout for numba, which would compile everything once more.
        self._scratch = allocate(2, Shape(settings.recent_items, settings.seen_ids, settings.vector_dim))
        self._reader = Reader(settings.recent_items, settings.interests, settings.vector_dim)
        self._started_at = time.time_ns() // 1_000_000

    def profile(self, user_id: str) -> ProfileJson | None:
        """The user as of the last batch, or None; `changed` and `cause` are of the published version.

        Raises NotReady or NotOwner.
        """
        found = self._find(user_id)
        return None if found is None else self._read(*found, user_id)

    def recommendations(self, user_id: str, wanted: Wanted) -> Recommendations | None:
        """What the user may take next, as of the last batch; None for an unknown user.

        Raises NotReady, NotOwner, or SwitchedOff.
        """
        ranking, found = self._ranking, self._find(user_id)
        if found is None:
            return None
        partition, users, slot = found
        world = partition.world._replace(users=users)
        return ranking.recommend(partition.number, world, slot, user_id, wanted)

    def similar(self, item_id: str, n: int) -> SimilarItems | None:
        """The items most alike; None for an unknown item. Raises SwitchedOff."""
        return self._ranking.similar(item_id, n)

    def quality(self) -> Quality:
        """How well this worker predicts. Raises SwitchedOff."""
        return self._ranking.quality()

    @property
    def _ranking(self) -> Ranking:
        ranking = self._engine.shared.ranking
        if ranking is None:
            raise SwitchedOff("this worker does not rank: set STREAMER_RANKING_MB on every worker")
        if not ranking.ready:
            raise NotReady("reading what all events taught about items")
        return ranking

    def _find(self, user_id: str) -> tuple[Partition, Users, int] | None:
        """The user's columns and slot, in memory or read from the store; None for an unknown user."""
        partition = self._partition(user_id)
        key = user_id.encode()
        cache = self._engine.shared.cache
        slot = cache.find(partition.number, key)
        if slot is not None:
            return (partition, cache.users, slot) if are_known(cache.users, slot) else None
        row = partition.store.get(USER + key) if partition.store else None
        if row is None or is_blank(row):
            return None
        clear(self._scratch, _FIRST)
        unpack(self._scratch, _FIRST, [row])
        return partition, self._scratch, 0

    def _read(self, partition: Partition, users: Users, slot: int, user_id: str) -> ProfileJson:
        head = users.head[slot]
        version, as_of, events = int(head["version"]), int(head["as_of"]), int(head["clicks"]) + int(head["purchases"])
        value = self._reader.read(partition.world._replace(users=users), slot, user_id)
        published = self._feed.recent.find(user_id, version)
        if published is not None:  # rows do not keep why it was; where that is too long ago, it is not told
            value = tell_as(value, published.value)
        return ProfileJson(version, as_of, events, value)

    def _partition(self, user_id: str) -> Partition:
        number = partition_of(user_id.encode(), self._settings.partitions)
        self._engine.shared.slices.note_question()
        if not self._engine.ready:
            raise NotReady(self._engine.reason)
        partition = self._engine.partitions.get(number)
        if partition is None:
            raise NotOwner(number, self._ingest.owner_url(number))
        return partition

    def item(self, item_id: str) -> Item | None:
        """An item of the catalogue, or None."""
        catalogue = self._engine.shared.catalogue
        slot = catalogue.slot_of.get(item_id)
        return None if slot is None else catalogue.facts[slot]

    def readiness(self) -> tuple[bool, str]:
        """Whether we answer for our partitions, and if not why."""
        return self._engine.ready, self._engine.reason

    def liveness(self) -> tuple[bool, str]:
        """Whether work moves; what stands still ends the process a little later."""
        stalled = self._watchdog.stalled
        return not stalled, stalled or "alive"

    def status(self) -> Status:
        """The worker at a glance."""
        ready, reason = self.readiness()
        partitions = tuple(self._partition_status(p) for _, p in sorted(self._engine.partitions.items()))
        return Status(
            version=__version__,
            started_at=self._started_at,
            ready=ready,
            reason=reason,
            events_total=_total(metrics.EVENTS, "streamer_events_total", type=("click", "purchase")),
            profiles_total=_total(metrics.PROFILES, "streamer_profiles_published_total"),
            rejected_total=_total(metrics.REJECTED, "streamer_rejected_total"),
            users_cached=len(self._engine.shared.cache),
            lag_records=sum(t.lag for p in partitions for t in p.topics),
            lag_seconds=self._ingest.lag_seconds(),
            partitions=partitions,
        )

    def _partition_status(self, partition: Partition) -> PartitionStatus:
        topics = tuple(
            TopicPosition(topic, position, end, max(end - position, 0))
            for topic, position in partition.position.next.items()
            if (end := self._ingest.end_offset(topic, partition.number)) is not None
        )
        return PartitionStatus(partition.number, "running" if self._engine.ready else "restoring", topics)

    async def users(self, prefix: str, n: int) -> FoundUsers:
        """Our users by how their ids begin. Raises NotReady."""
        return await find_users(self._engine, prefix, n)

    async def survey(self, users: int, tags: int) -> Survey:
        """What a sample of our users likes. Raises NotReady."""
        return await survey(self._engine, users, tags)

    def history(self, user_id: str, n: int) -> History | None:
        """The newest n versions that are remembered; None for an unknown user. Raises NotReady or NotOwner."""
        found = self._find(user_id)
        if found is None:
            return None
        _, users, slot = found
        here = self._feed.recent.until(user_id, self._committed_version(users, slot, user_id))
        versions = tuple(_decode_past(change.value) for change in here[-n:])
        since = versions[0].published_at if versions else int(users.head["published_at"][slot])
        return History(user_id, since, versions)

    def follow(self, user_id: str, last: Seen | None) -> AbstractContextManager[Subscription]:
        """A user's profiles as they are published. Raises NotReady, or NotOwner for a user of another worker."""
        found = self._find(user_id)
        version = 0 if found is None else self._committed_version(*found[1:], user_id)
        return self._feed.user(user_id, version, last)

    def follow_all(self, per_second: int, last: Seen | None) -> AbstractContextManager[Subscription]:
        """Our users' profiles as they are published."""
        return self._feed.everyone(per_second, last)

    def _committed_version(self, users: Users, slot: int, user_id: str) -> int:
        """The version that was published last: one on its way to Kafka counts in the row already."""
        version, cache = int(users.head["version"][slot]), self._engine.shared.cache
        on_its_way = users is cache.users and cache.unsaved[slot] & IN_FLIGHT
        return version - 1 if on_its_way and self._feed.recent.find(user_id, version) is None else version


def _total(counter: object, name: str, **labels: tuple[str, ...]) -> int:
    samples = (sample for metric in counter.collect() for sample in metric.samples)  # type: ignore[attr-defined]
    chosen = (s for s in samples if s.name == name and all(s.labels[k] in values for k, values in labels.items()))
    return int(sum(sample.value for sample in chosen))
