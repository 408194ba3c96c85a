"""Where a measurement happens: a broker, topics with one backlog, and what the broker says of a group's progress."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError

from streamer.engine.kafka_clients import admin_client, kafka_python_options
from streamer.engine.topics import create_topics, topic_specs
from streamer.errors import StreamerError
from streamer.events import KINDS
from streamer.settings import Settings
from streamer.tools.bench import world
from streamer.tools.bench.cores import Cores
from streamer.tools.bench.peer import LOOK_S, PATIENCE_S
from streamer.tools.bench.world import Line, World
from streamer.tools.load import Loader

# The first group of a broker makes it create its topic of offsets.
COORDINATOR_COMES = (CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError)
SOURCES = ("items", *(kind.topic for kind in KINDS))
EVENT_TOPICS = tuple(kind.topic for kind in KINDS)


class Stage(NamedTuple):
    """One backlog on one broker. Each peer gets a directory of its own in `home`."""

    settings: Settings
    home: Path
    cores: Cores
    broker_pid: int
    say: Callable[[str], None]  # to people: what happens now

    def topics(self, prefix: str) -> "Stage":
        """The same place with topics of its own."""
        return self._replace(settings=self.settings.model_copy(update={"topic_prefix": prefix}))

    def peer(self, name: str, **changes: Any) -> Settings:
        """Settings for one run of a peer: a group, a changelog and a data directory of its own."""
        return self.settings.model_copy(update={"app_id": name, "data_dir": self.home / name, **changes})


def fill(settings: Settings, *parts: World) -> None:
    """Create the topics and load items, and then the events of all parts."""
    create_topics(settings)
    load(settings, chain(world.items(parts[0]), *(world.events(part) for part in parts)))


def load(settings: Settings, lines: Iterable[Line]) -> None:
    """Append lines to the topics as fast as it goes."""
    asyncio.run(_load(settings, lines))


async def _load(settings: Settings, lines: Iterable[Line]) -> None:
    async with Loader(settings) as loader:
        for topic, key, value in lines:
            await loader.send(topic, key, value)


def renew_outputs(settings: Settings) -> None:
    """Empty all topics but the sources: a run must not learn from the one before."""
    sources = {settings.topic(topic) for topic in SOURCES}
    outputs = [spec.name for spec in topic_specs(settings) if spec.name not in sources]
    with admin_client(settings) as admin:
        admin.delete_topics([name for name in outputs if name in admin.list_topics()])
        give_up_s = time.monotonic() + PATIENCE_S
        while not set(outputs).isdisjoint(admin.list_topics()):
            if time.monotonic() > give_up_s:
                raise StreamerError(f"Kafka does not delete {', '.join(outputs)}")
            time.sleep(LOOK_S)
    create_topics(settings)


class Progress:
    """How far a group is, as committed at the broker: nothing of it is asked of the peer."""

    def __init__(self, settings: Settings, admin: KafkaAdminClient, consumer: KafkaConsumer) -> None:
        self._settings, self._admin, self._consumer = settings, admin, consumer

    def events(self) -> int:
        """User events committed. Their topics begin at 0 and have no holes: positions count records."""
        return sum(self._positions(EVENT_TOPICS).values())

    def records(self, topic: str) -> int:
        """How many records a contract topic has; with transactions, their markers too."""
        return sum(self._consumer.end_offsets(self._partitions(topic)).values())

    def _partitions(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(self._settings.topic(topic), n) for n in range(self._settings.partitions)]

    def _positions(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        names = {self._settings.topic(topic) for topic in topics}
        group = self._settings.group_id
        try:
            positions = self._admin.list_group_offsets([group])[group]
        except COORDINATOR_COMES:
            return {}
        return {tp: int(at.offset) for tp, at in positions.items() if tp.topic in names}


@contextmanager
def progress_of(settings: Settings) -> Iterator[Progress]:
    """The progress of the group `group_id`."""
    options = kafka_python_options(settings)
    consumer = KafkaConsumer(**options, isolation_level="read_committed", enable_auto_commit=False)
    try:
        with admin_client(settings) as admin:
            yield Progress(settings, admin, consumer)
    finally:
        consumer.close()
