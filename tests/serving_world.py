"""A small shop with people in it, seen as a `WorkerView`: for the tests of HTTP and page, and to work on the page.

`python tests/serving_world.py --port 6066` serves it alone, with people who keep clicking; no Kafka needed.
"""

import argparse
import asyncio
import base64
import random
import socket
import struct
import tempfile
import time
from collections import Counter
from contextlib import AbstractContextManager

import faust
import msgspec
import numpy as np
from faust.app.base import BootStrategy

from streamer import __version__
from streamer.events import Item
from streamer.pipeline.recommend import Wanted
from streamer.profile import Activity, Change, Interest, ItemEvent, Profile
from streamer.recommendation import (
    Quality,
    QualityPoint,
    Recommendation,
    Recommendations,
    Scores,
    SimilarItem,
    SimilarItems,
)
from streamer.serving.feed import Feed, Seen, Subscription
from streamer.serving.http import faust_options, install
from streamer.serving.view import (
    FoundUser,
    FoundUsers,
    History,
    NotReady,
    PartitionStatus,
    PastVersion,
    ProfileJson,
    Status,
    Survey,
    TopicPosition,
)
from streamer.settings import Settings, load

SHELVES = {
    "outdoor/camping": ("Two-person tent", "Down sleeping bag", "Gas stove", "Head torch", "Folding chair"),
    "outdoor/climbing": ("Chalk bag", "Sixty-metre rope", "Quickdraw set", "Climbing shoes"),
    "kitchen/coffee": ("Hand grinder", "Pour-over kettle", "Espresso beans", "Milk jug", "Moka pot"),
    "kitchen/baking": ("Proofing basket", "Rye flour", "Dough scraper", "Cast-iron pot"),
    "garden/herbs": ("Basil seeds", "Terracotta pot", "Watering can", "Pruning shears"),
    "books/crime": ("The Long Goodbye", "Gaudy Night", "The Moonstone", "Maigret and the Killer"),
    "music/vinyl": ("Kind of Blue", "Record brush", "Blue Train", "Turntable mat"),
    "cycling/touring": ("Pannier pair", "Repair kit", "Dynamo lamp", "Rain cape"),
}
CATALOGUE = {
    f"sku-{shelf.split('/')[1][:3]}-{n + 1:02d}": Item(
        item_id=f"sku-{shelf.split('/')[1][:3]}-{n + 1:02d}",
        title=title,
        tags=(shelf.split("/")[1], shelf.split("/")[0]),
        category=shelf,
    )
    for shelf, titles in SHELVES.items()
    for n, title in enumerate(titles)
}
POPULATION = {tag: 1 / 16 for item in CATALOGUE.values() for tag in item.tags}
MINUTE = 60_000
SESAME = "open sesame"


def free_port() -> int:
    """A port of the loopback address that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Person:
    """What one person did; newest first in `recent`."""

    def __init__(self, user_id: str, likes: dict[str, float]) -> None:
        self.user_id, self.likes = user_id, likes
        self.recent: list[ItemEvent] = []
        self.counts: Counter[str] = Counter()
        self.hours, self.spend = [0] * 24, 0.0
        self.first_seen, self.profile = 0, None


class Shop:
    """All people and items; implements `WorkerView`. `ready`, `alive` and `fault` are for tests to set."""

    def __init__(self, people: int = 24, seed: int = 7, now_ms: int | None = None) -> None:
        self._random = random.Random(seed)
        self.now_ms = now_ms or int(time.time() * 1000) - people * 4 * MINUTE
        self.next_ts = lambda: self.now_ms + self._random.randint(2, 12) * 1000
        self.started_at = self.now_ms
        self.feed, self.events, self.published = Feed(), 0, 0
        self.ready, self.alive, self.fault = (True, "ready"), (True, "working"), None
        self.people = [self._person(n) for n in range(people)]
        for person in self.people:
            for _ in range(self._random.randint(3, 60)):
                self.step(person)

    def _person(self, n: int) -> Person:
        shelves = self._random.sample(sorted(SHELVES), 3)
        weights = (self._random.uniform(5, 9), self._random.uniform(1, 4), 0.5)
        return Person(f"user-{n + 1:04d}", dict(zip(shelves, weights, strict=True)))

    def step(self, person: Person | None = None) -> Profile:
        """Someone looks at or buys an item, and is published."""
        person = person or self._random.choice(self.people)
        shelf = self._random.choices(list(person.likes), list(person.likes.values()))[0]
        item_id = self._random.choice([i for i, item in CATALOGUE.items() if item.category == shelf])
        kind = "purchase" if self._random.random() < 0.15 else "click"
        return self.act(person, item_id, kind)

    def act(self, person: Person, item_id: str, kind: str) -> Profile:
        """This very thing happens."""
        self.now_ms = self.next_ts()
        self.events += 1
        person.first_seen = person.first_seen or self.now_ms
        person.recent.insert(0, ItemEvent(item_id, self.now_ms, kind))
        del person.recent[40:]
        person.counts[kind] += 1
        person.hours[round(self._random.gauss(19, 3)) % 24] += 1
        person.spend += 12.5 if kind == "purchase" else 0.0
        return self._publish(person)

    def _publish(self, person: Person) -> Profile:
        before = person.profile
        profile = Profile(
            user_id=person.user_id,
            version=before.version + 1 if before else 1,
            as_of=self.now_ms,
            published_at=self.now_ms,
            interests=_interests(person.recent),
            vector=base64.b64encode(struct.pack("<4f", 0.5, 0.5, 0.5, 0.5)).decode(),
            vector_dim=4,
            model="shop/1",
            activity=Activity(
                clicks=person.counts["click"],
                purchases=person.counts["purchase"],
                spend={"GBP": round(person.spend, 2)} if person.spend else {},
                first_seen=person.first_seen,
                last_seen=self.now_ms,
                by_hour=tuple(person.hours),
            ),
            recent_items=tuple(person.recent),
            changed=(),
            cause=f"event-{self.events}",
        )
        profile = msgspec.structs.replace(profile, changed=_changes(before, profile))
        person.profile = profile
        self.published += 1
        self.feed.publish(profile.user_id, profile.version, msgspec.json.encode(profile))
        return profile

    def profile(self, user_id: str) -> ProfileJson | None:
        person = self._person_called(user_id)
        if person is None:
            return None
        profile, events = person.profile, person.counts.total()
        return ProfileJson(profile.version, profile.as_of, events, msgspec.json.encode(profile))

    def item(self, item_id: str) -> Item | None:
        return CATALOGUE.get(item_id)

    def readiness(self) -> tuple[bool, str]:
        return self.ready

    def liveness(self) -> tuple[bool, str]:
        return self.alive

    def status(self) -> Status:
        partitions = tuple(
            PartitionStatus(
                partition=n,
                state="running" if self.ready[0] or n % 2 else "restoring",
                topics=(
                    TopicPosition("clicks", self.events * 9 // 12, self.events * 9 // 12 + n % 3, n % 3),
                    TopicPosition("purchases", self.events // 12, self.events // 12, 0),
                ),
            )
            for n in range(12)
        )
        lag = sum(topic.lag for partition in partitions for topic in partition.topics)
        return Status(
            version=__version__,
            started_at=self.started_at,
            ready=self.ready[0],
            reason=self.ready[1],
            events_total=self.events,
            profiles_total=self.published,
            rejected_total=2,
            users_cached=len(self.people),
            lag_records=lag,
            lag_seconds=0.2,
            partitions=partitions,
        )

    def follow(self, user_id: str, last: Seen | None) -> AbstractContextManager[Subscription]:
        person = self._person_called(user_id)
        return self.feed.user(user_id, person.profile.version if person else 0, last)

    def follow_all(self, per_second: int, last: Seen | None) -> AbstractContextManager[Subscription]:
        return self.feed.everyone(per_second, last)

    async def users(self, prefix: str, n: int) -> FoundUsers:
        chosen = [person for person in self.people if person.user_id.startswith(prefix)]
        chosen.sort(key=lambda person: person.user_id if prefix else -person.profile.as_of)
        found = tuple(FoundUser(person.user_id, person.profile.as_of) for person in chosen[:n])
        return FoundUsers(prefix, found, more=len(chosen) > n)

    def history(self, user_id: str, n: int) -> History | None:
        person = self._person_called(user_id)
        if person is None:
            return None
        here = self.feed.recent.until(user_id, person.profile.version)[-n:]
        versions = tuple(msgspec.json.decode(change.value, type=PastVersion) for change in here)
        return History(user_id, versions[0].published_at if versions else person.profile.published_at, versions)

    async def survey(self, users: int, tags: int) -> Survey:
        names = sorted(POPULATION)[:tags]
        entries = [
            (user, names.index(interest.tag), interest.share)
            for user, person in enumerate(self.people[:users])
            for interest in person.profile.interests
            if interest.tag in names
        ]
        user, tag, share = (np.array(column) for column in zip(*entries, strict=True))
        return Survey(len(self.people), [person.user_id for person in self.people[:users]], names, user, tag, share)

    def recommendations(self, user_id: str, wanted: Wanted) -> Recommendations | None:
        person = self._person_called(user_id)
        if person is None:
            return None
        seen = {event.item_id for event in person.recent} if wanted.exclude_seen else set()
        likes = {interest.tag: interest for interest in person.profile.interests}
        scored = {
            item: max((likes[name].share for name in item.tags if name in likes), default=0.0)
            for item in CATALOGUE.values()
            if item.item_id not in seen and wanted.tag in (None, *item.tags)
        }
        total, count = sum(scored.values()) or 1, Counter[str | None]()
        found = []
        for item in sorted(scored, key=lambda item: -scored[item]):
            count[item.category] += 1
            if count[item.category] <= (wanted.max_per_category or wanted.n):
                because = likes[item.tags[0]].because if item.tags[0] in likes else ()
                share = {"follows": 0.7, "popularity": 0.3}
                found.append(Recommendation(item.item_id, item.title, scored[item] / total, share, because))
        return Recommendations(user_id, person.profile.as_of, "shop/1", tuple(found[: wanted.n]))

    def similar(self, item_id: str, n: int) -> SimilarItems | None:
        if item_id not in CATALOGUE:
            return None
        shelf = CATALOGUE[item_id].category
        alike = [item for item in CATALOGUE.values() if item.category == shelf and item.item_id != item_id]
        items = tuple(SimilarItem(item.item_id, item.title, 0.9 - place / 10) for place, item in enumerate(alike[:n]))
        return SimilarItems(item_id, "shop/1", items)

    def quality(self) -> Quality:
        scores = Scores(120, 0.31, 0.29, 4.1, 0.12, 5.2)
        minutes = range(self.started_at // MINUTE, self.now_ms // MINUTE)
        points = tuple(QualityPoint(minute * MINUTE, scores, scores) for minute in minutes)
        return Quality("shop/1", 5, scores, scores, {"follows": 1.0, "popularity": 0.5}, points)

    def _person_called(self, user_id: str) -> Person | None:
        """Raises what the worker would."""
        if self.fault:
            raise self.fault
        if not self.ready[0]:
            raise NotReady(self.ready[1], 3)
        return next((person for person in self.people if person.user_id == user_id), None)


def _shares(events: list[ItemEvent], half_life: float) -> dict[str, float]:
    weights: Counter[str] = Counter()
    for age, event in enumerate(events):
        for tag in CATALOGUE[event.item_id].tags:
            weights[tag] += (3 if event.kind == "purchase" else 1) * 0.5 ** (age / half_life)
    total = sum(weights.values()) + 3
    return {tag: (weight + 3 * POPULATION[tag]) / total for tag, weight in weights.items()}


def _interests(events: list[ItemEvent]) -> tuple[Interest, ...]:
    shares, recent = _shares(events, 20), _shares(events, 3)
    return tuple(
        Interest(
            tag=tag,
            weight=round(share * len(events), 2),
            share=share,
            recent=recent[tag],
            lift=share / POPULATION[tag],
            events=share * len(events),
            last_ts=max(e.ts for e in events if tag in CATALOGUE[e.item_id].tags),
            because=tuple(e for e in events if tag in CATALOGUE[e.item_id].tags)[:3],
        )
        for tag, share in sorted(shares.items(), key=lambda pair: -pair[1])
        if share > 0.015
    )


def _changes(before: Profile | None, after: Profile) -> tuple[Change, ...]:
    if before is None:
        return (Change("first_profile"),)
    old, new = ({i.tag: i.share for i in profile.interests} for profile in (before, after))
    return (
        *(Change("interest_added", tag, 0.0, new[tag]) for tag in new if tag not in old),
        *(Change("interest_dropped", tag, old[tag], 0.0) for tag in old if tag not in new),
        *(Change("interest_shifted", t, old[t], new[t]) for t in new if t in old and abs(old[t] - new[t]) > 0.01),
    ) or (Change("activity"),)


class WebOnly(BootStrategy):
    """Faust without its Kafka clients, as the engine runs it."""

    enable_kafka = False


class App(faust.App):
    """Faust's app, but for one step of its start: to make a consumer that we don't use, whose loop nobody closes."""

    BootStrategy = WebOnly

    async def on_start(self) -> None:
        self.finalize()


def make_app(shop: Shop, settings: Settings, **options: float) -> faust.App:
    """A Faust app that serves the shop, not started."""
    app = App("shop", broker="kafka://127.0.0.1:9", datadir=tempfile.gettempdir(), **faust_options(settings))
    install(app, shop, settings, **options)
    return app


async def live(shop: Shop, app: faust.App, events_per_second: float) -> None:
    """Serve until cancelled, with people who keep clicking."""
    shop.next_ts = lambda: int(time.time() * 1000)
    async with app:
        while True:
            shop.step()
            await asyncio.sleep(1 / events_per_second)


def main() -> None:
    """Serve the shop until Ctrl-C."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=6066)
    parser.add_argument("--rate", type=float, default=3, help="events a second")
    arguments = parser.parse_args()
    shop = Shop()
    asyncio.run(live(shop, make_app(shop, load(http_port=arguments.port)), arguments.rate))


if __name__ == "__main__":
    main()
