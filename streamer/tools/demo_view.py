"""What the demo shows: what comes out of Kafka, counted, and lines about it for people."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.text import Text

from streamer.engine.kafka_clients import aiokafka_options
from streamer.events import KINDS
from streamer.profile import Change, Profile
from streamer.settings import Settings

SHOWN = 3  # profiles a look: more scroll by unread
KNOWN_EVENTS = 10  # newcomers' profiles move with every click: there is more to see in people who change
POLL_MS = 200  # also how soon a commit marker without records is noticed
LAST_READ_S = 10.0  # for what is left when the worker has stopped: it reads 100,000 profiles a second
_decode = msgspec.json.Decoder(Profile).decode


class Outcome:
    """What the worker has done, as Kafka tells it: whatever becomes of a worker process, these figures add up.

    Reads the profile topic and the rejected records from their beginning, committed records only.
    """

    def __init__(self, settings: Settings) -> None:
        self.events = 0  # as of the last `look`
        self.published = 0
        self.rejected = 0
        self.users: set[bytes] = set()
        self._settings = settings
        self._recent: deque[bytes] = deque(maxlen=200)

    async def __aenter__(self) -> Self:
        options = aiokafka_options(self._settings)
        async with AsyncExitStack() as started:
            self._admin = AIOKafkaAdminClient(**options)
            started.push_async_callback(self._admin.close)
            await self._admin.start()
            self._consumer = AIOKafkaConsumer(**options, isolation_level="read_committed", enable_auto_commit=False)
            started.push_async_callback(self._consumer.stop)
            await self._consumer.start()
            await self._begin()
            self._started = started.pop_all()
        self._reading = asyncio.create_task(self._read_on())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pause()
        await self._started.aclose()

    async def look(self) -> int:
        """User events taken in so far, whatever became of them: the positions that the worker has committed.

        They count records, because the topics are new and written without transactions: from 0, without holes.
        """
        sources = {self._settings.topic(kind.topic) for kind in KINDS}
        with suppress(KafkaError):  # no coordinator before the first commit; later the next look tells more
            positions = await self._admin.list_consumer_group_offsets(self._settings.group_id)
            taken_in = sum(at.offset for place, at in positions.items() if place.topic in sources)
            self.events = max(self.events, taken_in)
        return self.events

    async def finish(self) -> None:
        """Take a last look and read all that is there. For when nobody writes any more."""
        await self._pause()
        await self.look()
        ends = await self._consumer.end_offsets(self._places)
        give_up = time.monotonic() + LAST_READ_S
        while time.monotonic() < give_up:
            if all([await self._consumer.position(place) >= end for place, end in ends.items()]):
                return
            await self._read_once()

    def latest(self) -> list[Profile]:
        """Some profiles that came since the last call, one a person: those whom we know and who changed most first."""
        by_user = {profile.user_id: profile for profile in map(_decode, self._recent)}
        self._recent.clear()
        return sorted(by_user.values(), key=_news, reverse=True)[:SHOWN]

    async def _begin(self) -> None:
        topics, partitions = map(self._settings.topic, ("profiles", "rejected")), range(self._settings.partitions)
        self._places = [TopicPartition(topic, partition) for topic in topics for partition in partitions]
        self._consumer.assign(self._places)
        await self._consumer.seek_to_beginning(*self._places)

    async def _read_on(self) -> None:
        while True:
            await self._read_once()

    async def _read_once(self) -> None:
        fetched = await self._consumer.getmany(timeout_ms=POLL_MS)
        for place, records in fetched.items():
            if place.topic == self._settings.topic("rejected"):
                self.rejected += len(records)
            else:
                self._take(records)

    def _take(self, records: Sequence[Any]) -> None:
        values = {record.key: record.value for record in records}
        self.published += sum(record.value is not None for record in records)
        self.users |= values.keys()
        self._recent.extend(value for value in values.values() if value is not None)

    async def _pause(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


def _news(profile: Profile) -> tuple[bool, float]:
    known = profile.activity.clicks + profile.activity.purchases >= KNOWN_EVENTS
    return known, max(map(_moved, profile.changed), default=0.0)


def _weight(change: Change) -> tuple[bool, float]:
    return change.what == "first_profile", _moved(change)


def _moved(change: Change) -> float:
    return abs((change.after or 0.0) - (change.before or 0.0)) if change.what.startswith("interest_") else 0.0


def progress_line(seconds: float, per_second: float, outcome: Outcome) -> Text:
    """How far it is: seconds since the start, events a second since the last look, totals."""
    return Text.assemble(
        (f"{seconds:5.0f} s", "bold"),
        f"  {per_second:9,.0f} events/s  {outcome.events:11,} events",
        f"  {outcome.published:9,} profiles of {len(outcome.users):,} people",
    )


def profile_line(profile: Profile) -> Text:
    """One person: strongest interests, and what just changed."""
    interests = ", ".join(f"{interest.tag} {interest.share:.0%}" for interest in profile.interests[:3])
    return Text.assemble(
        ("         " + profile.user_id.ljust(24), "cyan"),
        f" v{profile.version:<4} {interests:<48} ",
        (_said(max(profile.changed, key=_weight)) if profile.changed else "", "green"),
    )


def _said(change: Change) -> str:
    match change.what:
        case "first_profile":
            return "is new"
        case "interest_added":
            return f"+ {change.tag}"
        case "interest_dropped":
            return f"- {change.tag}"
        case "interest_shifted":
            return f"{change.tag} {change.before or 0:.0%} → {change.after or 0:.0%}"
        case _:
            return change.what.replace("_", " ")


def show(console: Console, line: str | Text) -> None:
    """One line, whole however narrow the terminal is, with nothing read into brackets."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
