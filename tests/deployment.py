"""One deployment on a real broker: topics of its own, workers, what goes in, what comes out, and what should have.

Everything is read back from Kafka, with another client library than the worker's, and judged by `tests.oracle`.
"""

import asyncio
import heapq
import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError
from rocksdict import Options, Rdict

from streamer.engine.store import HELD, NEXT, ORIGIN
from streamer.engine.topics import create_topics
from streamer.events import Click, Item, Purchase
from streamer.settings import Settings, load
from tests.oracle import Replay, Rules, UserTruth
from tests.worker_process import PATIENCE_S, WorkerProcess, until

T = TypeVar("T")

SOURCES = ("items", "clicks", "purchases")
TOPIC_OF = {Click: "clicks", Purchase: "purchases", Item: "items"}
SESSION_TIMEOUT_MS = 6000  # the shortest that brokers grant
TRACKED_TAGS = 32  # beyond them the worker tracks the strongest only


class Record(NamedTuple):
    """One record for a source topic; `timestamp` in ms, None is now."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int | None = None


def record(event: Click | Purchase | Item) -> Record:
    """An event as its producer sends it."""
    key = event.item_id if isinstance(event, Item) else event.user_id
    return Record(TOPIC_OF[type(event)], key.encode(), msgspec.json.encode(event))


class Follower:
    """Reads all partitions of a topic, each in order, read_committed. `records` holds all of them so far."""

    def __init__(self, brokers: str, topic: str, partitions: int) -> None:
        self._consumer = KafkaConsumer(
            bootstrap_servers=brokers,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=20,  # the next question waits on the same connection
        )
        self._partitions = [TopicPartition(topic, n) for n in range(partitions)]
        self._consumer.assign(self._partitions)
        self.records: list[Any] = []

    def read(self) -> list[Any]:
        """Read on to the present end; all records so far."""
        ends = self._consumer.end_offsets(self._partitions)
        while any(self._consumer.position(tp) < end for tp, end in ends.items()):
            for records in self._consumer.poll(timeout_ms=100).values():
                self.records += records
        return self.records

    def close(self) -> None:
        """Give the connection back."""
        self._consumer.close()


class Deployment:
    """Topics, workers and truth under a prefix of its own."""

    def __init__(self, brokers: str, root: Path, *, partitions: int = 3, **options: Any) -> None:
        self._root = root
        self._options = {
            "brokers": brokers,
            "topic_prefix": f"t{uuid.uuid4().hex[:8]}-",
            "partitions": partitions,
            "replication": 1,
            "session_timeout_ms": SESSION_TIMEOUT_MS,
            "cache_users": 10_000,
            **options,
        }
        self.settings: Settings = load(**self._options)
        self.workers: list[WorkerProcess] = []
        self.ends: list[int] | None = None  # a list: workers that end are started again, and their exit codes noted
        self._followers: dict[str, Follower] = {}
        self._admin: Any = None
        create_topics(self.settings)

    def worker(
        self, name: str = "w0", *, data_dir: Path | None = None, start: bool = True, **options: Any
    ) -> WorkerProcess:
        """A worker with a data directory of its own, started."""
        log = self._root / f"{name}.log"
        process = WorkerProcess(data_dir or self._root / name, log, **{**self._options, **options})
        self.workers.append(process)
        return process.start() if start else process

    def close(self) -> None:
        """Nothing of it keeps running."""
        for process in self.workers:
            process.kill()
        for follower in self._followers.values():
            follower.close()
        self._close_admin()

    # ---- in
    def send(self, records: Iterable[Record | Click | Purchase | Item], **producer: Any) -> list[tuple[int, int]]:
        """Send records, in order for each partition, and have them acknowledged; the (partition, offset) of each."""
        ready = [each if isinstance(each, Record) else record(each) for each in records]
        return asyncio.run(self._send(ready, producer))

    async def _send(self, records: list[Record], options: Mapping[str, Any]) -> list[tuple[int, int]]:
        async with AIOKafkaProducer(bootstrap_servers=self.settings.brokers, linger_ms=5, **options) as producer:
            deliveries = [
                await producer.send(
                    self.settings.topic(each.topic),
                    key=each.key,
                    value=each.value,
                    headers=list(each.headers),
                    timestamp_ms=each.timestamp,
                )
                for each in records
            ]
            return [(done.partition, done.offset) for done in await asyncio.gather(*deliveries)]

    # ---- out
    def read(self, topic: str) -> list[Any]:
        """All committed records of a topic, by its full name."""
        if topic not in self._followers:
            self._followers[topic] = Follower(self.settings.brokers, topic, self.settings.partitions)
        return self._followers[topic].read()

    def profiles(self, user_id: str | None = None) -> list[Any]:
        """Records of the profile topic, of one user or of all; each user's are in order."""
        records = self.read(self.settings.topic("profiles"))
        return [each for each in records if user_id is None or each.key == user_id.encode()]

    def latest(self) -> dict[str, dict[str, Any]]:
        """The profile of every user as a subscriber has it."""
        return {each.key.decode(): json.loads(each.value) for each in self.profiles()}

    def latest_of(self, user_id: str) -> dict[str, Any]:
        """The latest profile of one user; empty when there is none."""
        records = self.profiles(user_id)
        return json.loads(records[-1].value) if records else {}

    # ---- how far
    def until(self, condition: Callable[[], T], what: Callable[[], str] | str, within_s: float = PATIENCE_S) -> T:
        """As `until`, with an eye on the workers: one that ends is started again, or fails the test."""

        def tended() -> T:
            self.tend()
            return condition()

        return until(tended, what, within_s)

    def tend(self) -> None:
        """Look after the workers once, as a supervisor does."""
        for process in self.workers:
            if process.is_wanted and not process.is_running:
                assert self.ends is not None, f"{process.log.stem} ended with {process.exit_code()}:\n{process.said}"
                self.ends.append(process.exit_code())
                process.start()

    def committed(self) -> dict[TopicPartition, int]:
        """Where the group stands in the source topics. Asks again while brokers come and go."""
        groups = until(self._ask_for_group, "an answer about the group")
        return {tp: entry.offset for tp, entry in groups[self.settings.group_id].items()}

    def _ask_for_group(self) -> dict[str, dict[TopicPartition, Any]]:
        """Nothing at all when the group's coordinator does not answer: a client goes on asking one that is no more."""
        try:
            self._admin = self._admin or KafkaAdminClient(bootstrap_servers=self.settings.brokers.split(","))
            return dict(self._admin.list_group_offsets([self.settings.group_id]))
        except KafkaError:
            self._close_admin()
            return {}

    def _close_admin(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def wait_progress(self, events: int, within_s: float = PATIENCE_S) -> None:
        """Wait until checkpoints have so many more records than now."""
        begin = sum(self.committed().values())
        self.until(
            lambda: sum(self.committed().values()) >= begin + events,
            lambda: f"progress\n{self._last_words()}",
            within_s,
        )

    def wait_drained(self) -> None:
        """Wait until a checkpoint has everything that was sent so far."""
        ends = self._ends()
        self.until(
            lambda: all(self.committed().get(tp, 0) >= end for tp, end in ends.items()),
            lambda: f"{ends} checkpointed, but {self.committed()}\n" + self._last_words(),
        )

    def _ends(self) -> dict[TopicPartition, int]:
        """Where the last record of every source stands: what comes behind it are marks of transactions."""
        records = [each for name in SOURCES for each in self.read(self.settings.topic(name))]
        return {TopicPartition(each.topic, each.partition): each.offset + 1 for each in records}

    def _last_words(self) -> str:
        return "\n".join(f"{process.log.name}: {process.said[-2000:]}" for process in self.workers)

    # ---- the truth
    def truth(self) -> Replay:
        """What the source topics say, replayed in plain Python."""
        settings = self.settings
        replay = Replay({}, Rules(settings.seen_ids, settings.recent_items))
        takes = [_by_partition(self.read(settings.topic(name))) for name in SOURCES]
        for each in heapq.merge(*(log for take in takes for log in take), key=lambda each: each.timestamp):
            topic = each.topic.removeprefix(settings.topic_prefix)
            replay.apply(topic, each.key, each.value, each.timestamp, each.partition)
        return replay

    def wait_caught_up(self) -> None:
        """Wait until the profile topic knows of every event that counts: small changes are published after a while."""
        self.wait_drained()
        users = self.truth().users
        self.until(lambda: not behind(self.latest(), users), lambda: f"profiles of {behind(self.latest(), users)}")

    def check_profiles(self) -> None:
        """Every user's latest profile says what happened, no more and no less; versions count from 1 without a gap."""
        self.wait_caught_up()
        users, latest = self.truth().users, self.latest()
        assert latest.keys() == users.keys()
        for user_id, user in users.items():
            assert_tells(latest[user_id], user)
        assert_versions_count_up(self.profiles())

    # ---- state on disk
    def check_stores(self) -> int:
        """Every RocksDB holds what its part of the changelog says; returns how many there are. Workers have ended."""
        logs = _by_partition(self.read(self.settings.changelog_topic))
        changelog = {log[0].partition: log for log in logs}
        stores = 0
        for process in self.workers:
            for path in (process.data_dir / self.settings.group_id).glob("[0-9]*"):
                if not path.name.isdecimal():
                    continue  # what a restore moved aside
                assert_prefix(path, changelog.get(int(path.name), []))
                stores += 1
        return stores


def _by_partition(records: list[Any]) -> list[list[Any]]:
    logs: dict[int, list[Any]] = {}
    for each in records:
        logs.setdefault(each.partition, []).append(each)
    return list(logs.values())


def behind(latest: Mapping[str, Any], users: Mapping[str, UserTruth]) -> list[str]:
    """Users whose latest profile counts fewer events than happened."""
    return [
        user_id
        for user_id, user in users.items()
        if user.events and counted(latest.get(user_id, {})) < len(user.events)
    ]


def counted(profile: Mapping[str, Any]) -> int:
    """How many events a profile counts."""
    activity = profile.get("activity", {"clicks": 0, "purchases": 0})
    return int(activity["clicks"] + activity["purchases"])


def assert_tells(profile: Mapping[str, Any], user: UserTruth) -> None:
    """A profile against all that happened to its user."""
    activity = profile["activity"]
    told = (profile["user_id"], activity["clicks"], activity["purchases"], activity["first_seen"], profile["as_of"])
    assert told == (profile["user_id"], user.clicks, user.purchases, user.first_seen, user.last_seen)
    assert activity["spend"] == pytest.approx(user.spend, abs=1e-6)
    assert activity["by_hour"] == user.by_hour
    assert [(each["item_id"], each["ts"], each["kind"]) for each in profile["recent_items"]] == user.recent_items
    assert_interests(profile["interests"], user)


def assert_interests(interests: list[dict[str, Any]], user: UserTruth) -> None:
    """Every interest has the weight that all events behind it have today; the worker keeps it in 32 bits."""
    truth = user.interests
    if len(truth) > TRACKED_TAGS:
        return
    assert len(interests) == min(len(truth), 20)
    for each in interests:
        tag = truth[each["tag"]]
        told = (each["weight"], each["events"], each["last_ts"])
        assert told == (pytest.approx(tag.weight, rel=1e-4), pytest.approx(tag.events, rel=1e-3), tag.last_ts)


def assert_versions_count_up(records: Iterable[Any]) -> None:
    """1, 2, 3, … for every user: nothing is published twice, nothing in between is lost, nothing old comes late."""
    seen: Counter[bytes] = Counter()
    for each in records:
        seen[each.key] += 1
        assert json.loads(each.value)["version"] == seen[each.key], each.key


def assert_prefix(path: Path, changelog: Iterable[Any]) -> None:
    """A store equals the changelog up to the offset that it names."""
    store = Rdict(str(path), Options(raw_mode=True))
    try:
        rows = dict(store.items())
    finally:
        store.close()
    upto = int.from_bytes(rows.pop(NEXT, b"")[:8], "little")  # when it was written stands behind it
    have = {key: row for key, row in rows.items() if not key.startswith((HELD, ORIGIN))}
    want = {each.key: each.value for each in changelog if each.offset < upto}
    assert have == {key: row for key, row in want.items() if row is not None}, path


class Feed:
    """Events of made-up people at a `rate` a second, from a thread of its own, until it is closed. Every id is new.

    A second feed goes on behind the `sent` of the one before as its `first`.
    """

    def __init__(self, deployment: Deployment, rate: float, users: int = 40, items: int = 30, first: int = 0) -> None:
        self._deployment, self.rate, self._items = deployment, rate, items
        self._events = made_up(users, items, first)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent = 0

    def _run(self) -> None:
        try:
            asyncio.run(self._feed())
        except BaseException as exc:
            self._failure = exc

    async def _feed(self) -> None:
        brokers, topic = self._deployment.settings.brokers, self._deployment.settings.topic
        loop = asyncio.get_running_loop()
        patient = {"enable_idempotence": True, "request_timeout_ms": 600_000}  # brokers may be away for minutes
        async with AIOKafkaProducer(bootstrap_servers=brokers, linger_ms=5, **patient) as producer:
            last, due = loop.time(), 0.0
            deliveries = []
            while not self._stop.is_set():
                last, due = loop.time(), due + (loop.time() - last) * self.rate
                while self.sent < due:
                    each = record(next(self._events))
                    deliveries.append(await producer.send(topic(each.topic), key=each.key, value=each.value))
                    self.sent += 1
                await asyncio.sleep(0.01)
            await asyncio.gather(*deliveries)

    def __enter__(self) -> "Feed":
        self._deployment.send(
            Item(f"item-{n}", f"Item {n}", (f"tag-{n % 7}", f"kind-{n % 3}")) for n in range(self._items)
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure


def made_up(users: int, items: int, first: int = 0) -> Iterator[Click | Purchase]:
    """Clicks, and every fifth a purchase; never two of a user with the same time."""
    start = 1_760_000_000_000
    for n in range(first, 1 << 40):
        user, item, ts = f"user-{n * 7 % users}", f"item-{n * n % items}", start + n
        if n % 5:
            yield Click(f"c{n}", user, item, ts)
        else:
            yield Purchase(f"p{n}", user, item, ts, price=n % 90 + 0.5, currency="EUR", quantity=1 + n % 3)


@contextmanager
def deployed(brokers: str, root: Path, **options: Any) -> Iterator[Deployment]:
    """A deployment that ends with the block."""
    deployment = Deployment(brokers, root, **options)
    try:
        yield deployment
    finally:
        deployment.close()
