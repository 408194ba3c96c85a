"""What the tests of the client share: topics of their own, a writer of profiles, and the code printed in docstrings."""

import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from streamer.client import ProfileSubscriber, Update
from streamer.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "schemas" / "README.md").read_text(encoding="utf-8")
FOUND = re.search(r"```json profile\n(.+?)```", README, re.DOTALL)
assert FOUND
PROFILE: dict[str, Any] = json.loads(FOUND[1])

Written = tuple[str, int | None]  # a user and the version of a profile, None for an erasure


def profile_value(user_id: str, version: int | None) -> bytes | None:
    """The README's profile under another name and version."""
    return None if version is None else json.dumps(PROFILE | {"user_id": user_id, "version": version}).encode()


@contextmanager
def profile_writer(settings: Settings, **options: Any) -> Iterator[KafkaProducer]:
    with closing(KafkaProducer(bootstrap_servers=settings.brokers, **options)) as producer:
        yield producer


def write(settings: Settings, *profiles: Written) -> None:
    """Profiles as the worker writes them: in one transaction."""
    with profile_writer(settings, transactional_id=settings.topic_prefix + "writer") as producer:
        producer.init_transactions()
        producer.begin_transaction()
        put(producer, settings, profiles)
        producer.commit_transaction()


def put(producer: KafkaProducer, settings: Settings, profiles: Iterable[Written]) -> None:
    for user_id, version in profiles:
        producer.send(settings.topic("profiles"), key=user_id.encode(), value=profile_value(user_id, version))
    producer.flush()


def brief(update: Update) -> Written:
    """What was written, read back."""
    return update.user_id, None if update.profile is None else update.profile.version


def take(subscriber: ProfileSubscriber, count: int) -> list[Written]:
    """The next so many updates, in the order of their users: partitions are read in any order."""
    return sorted(map(brief, islice(subscriber, count)), key=lambda written: written[0])


def records(settings: Settings, name: str, count: int) -> list[Any]:
    """The first `count` records of a topic, over all its partitions."""
    found: list[Any] = []
    with closing(KafkaConsumer(bootstrap_servers=settings.brokers, auto_offset_reset="earliest")) as consumer:
        topic = settings.topic(name)
        consumer.assign([TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)])
        while len(found) < count:
            for some in consumer.poll(timeout_ms=1000).values():
                found += some
    return found


def printed_example(documented: type) -> str:
    """The code in the docstring of a class: its first block from `import` or `from` on that is indented by four."""
    text = inspect.getdoc(documented) or ""
    found = re.search(r"^ {4}(?:from|import) .*?(?=^\S)", text, re.DOTALL | re.MULTILINE)
    assert found
    return textwrap.dedent(found[0])
