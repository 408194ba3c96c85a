"""Checks of what flows: are records where their keys put them, are producers' clocks right, does the group keep up."""

import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, Final, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import CoordinatorNotAvailableError

from streamer.engine.kafka_clients import admin_client, kafka_python_options
from streamer.events import KINDS
from streamer.settings import Settings
from streamer.tools.doctor.finding import Finding, duration, error, many, note, ok, warning
from streamer.upstream import partition_of

SAMPLE: Final = 100  # records of a partition, the newest: one wrong producer in a hundred is seen in most partitions
READ_S: Final = 15.0  # for all samples together
TREND_S: Final = 2.0  # between two looks at the lag: four checkpoints
POLL_MS: Final = 200
FETCH_MS: Final = 20  # the next topic waits for what is asked of this one beyond its end
COORDINATOR_S: Final = 15.0
READ: Final = (*(kind.topic for kind in KINDS), "items")  # what others write for us

# Partitioners that put keys elsewhere, by the sign that they leave: all wrong keys are where this one puts them.
OTHERS: Final[Mapping[str, Callable[[bytes, int], int]]] = {
    "librdkafka's default (crc32)": lambda key, partitions: zlib.crc32(key) % partitions,
}


class Sampled(NamedTuple):
    """A record, as far as it matters where it is."""

    key: bytes | None
    partition: int


def keys(settings: Settings) -> Iterator[Finding]:
    """Whether producers put records where murmur2 of their keys does, by the newest of each partition."""
    names = [settings.topic(name) for name in READ]
    samples = sample(settings, names)
    for topic, (partitions, records) in samples.items():
        yield from misplaced(topic, partitions, records)
    if not samples:
        yield note("no source topic is there yet")


def misplaced(topic: str, partitions: int, records: list[Sampled]) -> Iterator[Finding]:
    """What there is to say of a topic's sample."""
    keyless = sum(record.key is None for record in records)
    wrong = [
        (r.key, r.partition) for r in records if r.key is not None and partition_of(r.key, partitions) != r.partition
    ]
    if keyless:
        yield error(
            f"{topic}: {keyless} of {len(records)} sampled records have no key",
            "they are rejected as key_mismatch: nobody's profile knows them",
            "have the producer send the id as key: schemas/README.md",
        )
    if wrong:
        key, partition = wrong[0]
        yield error(
            f"{topic}: {len(wrong)} of {len(records)} sampled keys are in the wrong partition, for one"
            f" {key.decode(errors='replace')!r} in {partition}, which belongs in {partition_of(key, partitions)}"
            f"{_culprit(wrong, partitions)}",
            "a user's events end in two partitions, and each makes a profile of its half: the later one wins",
            "set partitioner=murmur2_random in producers on librdkafka (Go, C#, Python's confluent-kafka, PHP …)",
        )
    if not wrong and not keyless:
        yield ok(
            f"{topic}: {len(records)} sampled records are where their keys belong" if records else f"{topic}: empty"
        )


def _culprit(wrong: list[tuple[bytes, int]], partitions: int) -> str:
    """Who may have sent them."""
    for name, place in OTHERS.items():
        if all(place(key, partitions) == partition for key, partition in wrong):
            return f"; {name} puts all of them there"
    return ""


def sample(settings: Settings, topics: list[str]) -> dict[str, tuple[int, list[Sampled]]]:
    """The number of partitions and the newest records, by topic, of those that are there."""
    found: dict[str, tuple[int, list[Sampled]]] = {}
    options = {"group_id": None, "enable_auto_commit": False, "fetch_max_wait_ms": FETCH_MS}
    with closing(KafkaConsumer(**kafka_python_options(settings), **options)) as consumer:
        for topic in topics:
            numbers = consumer.partitions_for_topic(topic)
            if numbers:
                found[topic] = (len(numbers), _newest(consumer, [TopicPartition(topic, n) for n in numbers]))
    return found


def _newest(consumer: Any, places: list[TopicPartition]) -> list[Sampled]:
    """The last records of each partition. Those that were compacted or deleted are done without."""
    consumer.assign(places)
    first, end = consumer.beginning_offsets(places), consumer.end_offsets(places)
    for place in places:
        consumer.seek(place, max(first[place], end[place] - SAMPLE))
    deadline, records = time.monotonic() + READ_S / 3, []
    while any(consumer.position(place) < end[place] for place in places) and time.monotonic() < deadline:
        for found in consumer.poll(timeout_ms=POLL_MS).values():
            records += [Sampled(record.key, record.partition) for record in found]
    return records


def producers(settings: Settings) -> Iterator[Finding]:
    """Whether the newest event of each source is of now or before, as its record's timestamp tells."""
    for topic, newest in _newest_times(settings).items():
        ahead_ms = newest - time.time_ns() // 1_000_000
        if ahead_ms > settings.future_ms:
            yield warning(
                f"{topic}: a record is {duration(ahead_ms)} ahead of our clock",
                "a producer's clock is wrong, or ours: what comes after such a record is fetched late, and retention"
                " keeps it too long",
                "synchronise the producers' clocks; compare with the check `clock`",
            )
        else:
            yield ok(
                f"{topic}: {f'the newest record is of {duration(max(-ahead_ms, 0))} ago' if newest >= 0 else 'empty'}"
            )


def _newest_times(settings: Settings) -> dict[str, int]:
    """The highest record timestamp by source topic, Unix ms; -1 of an empty one."""
    with admin_client(settings) as admin:
        places = _places(admin, [settings.topic(kind.topic) for kind in KINDS])
        found = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.MAX_TIMESTAMP)) if places else {}
    times: dict[str, int] = {}
    for place, at in found.items():
        times[place.topic] = max(times.get(place.topic, -1), at.timestamp)
    return times


def _places(admin: KafkaAdminClient, topics: list[str]) -> list[TopicPartition]:
    described = [topic for topic in admin.describe_topics(topics) if not topic["error_code"]]
    return [
        TopicPartition(topic["name"], part["partition_index"]) for topic in described for part in topic["partitions"]
    ]


def group(settings: Settings) -> Iterator[Finding]:
    """Who is in the consumer group, whether that is too many, and whether it keeps up."""
    with admin_client(settings) as admin:
        described = _described(admin, settings.group_id)
        members, state = described["members"], described["group_state"]
        yield from _members(settings, state, len(members))
        places = _places(admin, [settings.topic(name) for name in READ])
        if places:
            yield from _progress(settings, admin, places, running=bool(members))


def _described(admin: KafkaAdminClient, name: str) -> dict[str, Any]:
    """The group. A new cluster makes its topic of offsets when first asked, and has no coordinator until then."""
    deadline = time.monotonic() + COORDINATOR_S
    while True:
        try:
            group: dict[str, Any] = admin.describe_groups([name])[name]
        except CoordinatorNotAvailableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_MS / 1000)
        else:
            return group


def _members(settings: Settings, state: str, members: int) -> Iterator[Finding]:
    name = settings.group_id
    if not members:
        yield note(f"group {name}: no worker runs", "nobody reads events", "start one: `streamer worker`")
    elif state != "Stable":
        yield note(
            f"group {name}: {many(members, 'worker')}, {state}",
            "partitions change hands; that takes seconds, or a minute where a worker does not answer",
            "look again in a minute",
        )
    elif members > settings.partitions:
        yield warning(
            f"group {name}: {many(members, 'worker')} for {settings.partitions} partitions",
            f"{members - settings.partitions} of them have nothing to do",
            "stop them, or see `repartitioning` in deploy/README.md",
        )
    else:
        yield ok(f"group {name}: {many(members, 'worker')}, {state.lower()}")


def _progress(
    settings: Settings, admin: KafkaAdminClient, places: list[TopicPartition], *, running: bool
) -> Iterator[Finding]:
    before = _lag(settings, admin, places)
    gone = {place for place, (committed, first, _) in before.items() if 0 <= committed < first}
    if gone:
        names = ", ".join(f"{place.topic}/{place.partition}" for place in sorted(gone))
        yield error(
            f"{names}: retention deleted events that were not read yet",
            "the worker that gets the partition stops with exit code 7 instead of skipping them in silence",
            "raise retention.ms first; then `streamer reset --to earliest --topic NAME` goes on without them",
        )
        return
    behind = _behind(before)
    if behind <= len(places):  # behind a transaction of its producer stands a mark that nobody reads
        yield ok("every event is read")
        return
    if not running:
        yield warning(
            f"{behind:,} records wait, and no worker reads them",
            "profiles stand still, and retention deletes what waits for too long",
            "start workers; of those that ended, exit code and last line say why",
        )
        return
    time.sleep(TREND_S)
    after = _lag(settings, admin, places)
    yield _standing(before, after) or _trend(behind, _behind(after))


def _standing(before: "Lag", after: "Lag") -> Finding | None:
    """Partitions whose position did not move, and that have more than a mark behind it."""
    still = [place for place, (at, _, end) in before.items() if after[place][0] == at and end > at + 1]
    if not still:
        return None
    names = ", ".join(f"{place.topic}/{place.partition}" for place in sorted(still))
    waiting = _behind({place: after[place] for place in still})
    return warning(
        f"{names}: {waiting:,} records wait, and none was read in {TREND_S:g} s",
        "their worker was killed (another one takes over after STREAMER_SESSION_TIMEOUT_MS), restores, or hangs",
        "look again in a minute; then at /readyz of each worker, and at #alert-noprogress in deploy/README.md",
    )


def _trend(before: int, now: int) -> Finding:
    per_second = (before - now) / TREND_S
    if per_second > 0:
        left = duration(now / per_second * 1000)
        return note(f"{now:,} records behind, {per_second:,.0f} a second fewer: {left} left")
    return warning(
        f"{now:,} records behind, {-per_second:,.0f} a second more",
        "more comes in than is read: profiles get older",
        "start more workers (up to one a partition and core); see #sizing in deploy/README.md",
    )


Lag = Mapping[TopicPartition, tuple[int, int, int]]


def _lag(settings: Settings, admin: KafkaAdminClient, places: list[TopicPartition]) -> Lag:
    """Committed (-1: nothing yet), first and end offset of each partition."""
    committed = admin.list_group_offsets([settings.group_id])[settings.group_id]
    first = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.EARLIEST))
    end = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST))
    at = {place: committed[place].offset if place in committed else -1 for place in places}
    return {place: (at[place], first[place].offset, end[place].offset) for place in places}


def _behind(lag: Lag) -> int:
    return sum(end - max(committed, first) for committed, first, end in lag.values())
