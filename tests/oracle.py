"""The truth about users, replayed in plain Python: what profiles have to say, by another way than the pipeline's.

    replay = Replay({"mug": ["kitchen", "gift"]})
    replay.apply("clicks", b"ann", b'{"event_id": …}', record_timestamp_ms=…, partition=0)    → "applied"
    replay.users["ann"].interests["kitchen"].weight

Give it every record of every topic partition in the order in which Kafka got them. It keeps all applied events of a
user, and works out each answer from them anew: no running sums, no numpy, nothing imported from `streamer`.
So it is slow (about 20 µs an event, and a pass over a user's events for each answer), and holds everything in memory.

What it does not know, and a comparison has to leave out: users with more than 256 tags or 6 currencies (the worker
tracks no more), and items that the catalogue does not list but whose earlier events brought tags.
"""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Literal

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
TAGS_PER_ITEM = 16
NAME_CHARS = 256
KIND_OF_TOPIC = {"clicks": "click", "purchases": "purchase"}
WEIGHT_OF_KIND = {"click": 1.0, "purchase": 3.0}

Outcome = Literal["applied", "duplicate", "too_old", "from_the_future", "invalid"]


@dataclass(frozen=True)
class Rules:
    """The settings that decide what is right; defaults as in the worker's settings of the same names."""

    seen_ids: int = 64
    recent_items: int = 40
    half_life_ms: float = 30 * DAY_MS
    recent_half_life_ms: float = DAY_MS
    future_ms: int = 300_000
    too_old_ms: int = 90 * DAY_MS
    max_event_bytes: int = 65_536


@dataclass(frozen=True)
class Happened:
    """One applied event."""

    event_id: str
    item_id: str
    ts: int
    kind: str
    tags: tuple[str, ...]
    micros: int = 0  # money spent, in millionths of `currency`
    currency: str = ""
    repeats: int = 0  # of the recent items: so many of the same item and kind within an hour
    number: int = 0  # among the user's events that came in time; of a late one, of those that it came before


@dataclass(frozen=True)
class TagTruth:
    """How much a user cares for a tag, at the user's newest ts."""

    weight: float  # decayed by the main half-life, kinds weighing as they do
    events: float  # decayed by the main half-life, every event weighing 1
    last_ts: int
    recent: float  # decayed by the short half-life, an event's weight split over its tags; a weight, not yet a share
    short: float  # the same with a half-life of 3 events of the user's
    long: float  # of 20
    ever: float  # without decay


@dataclass
class UserTruth:
    """All that happened to one user. `events` are in the order of arrival."""

    rules: Rules
    events: list[Happened] = field(default_factory=list)
    duplicates: int = 0
    seen: deque[str] = field(default_factory=deque)
    window: list[Happened] = field(default_factory=list)  # the recent items, kept for speed
    clock: int = 0  # events that came in time

    @property
    def clicks(self) -> int:
        """How many distinct clicks."""
        return sum(event.kind == "click" for event in self.events)

    @property
    def purchases(self) -> int:
        """How many distinct purchases."""
        return sum(event.kind == "purchase" for event in self.events)

    @property
    def spend(self) -> dict[str, float]:
        """Money spent by currency."""
        micros: Counter[str] = Counter()
        for event in self.events:
            if event.kind == "purchase":
                micros[event.currency] += event.micros
        return {currency: total / 1e6 for currency, total in micros.items()}

    @property
    def first_seen(self) -> int:
        """The oldest ts, in ms."""
        return min(event.ts for event in self.events)

    @property
    def last_seen(self) -> int:
        """The newest ts, in ms."""
        return max(event.ts for event in self.events)

    @property
    def by_hour(self) -> list[int]:
        """24 counts of events by the hour of the day, UTC."""
        hours = Counter(datetime.fromtimestamp(event.ts // 1000, UTC).hour for event in self.events)
        return [hours[hour] for hour in range(24)]

    @property
    def recent_items(self) -> list[tuple[str, int, str]]:
        """`(item_id, ts, kind)`, newest first; of equal times purchases, of equal kinds the later arrival first."""
        arrivals = reversed(self.events)
        newest = sorted(arrivals, key=lambda event: (event.ts, event.kind), reverse=True)[: self.rules.recent_items]
        return [(event.item_id, event.ts, event.kind) for event in newest]

    @property
    def cause(self) -> str:
        """The event_id of the latest arrival."""
        return self.events[-1].event_id

    @property
    def interests(self) -> dict[str, TagTruth]:
        """Every tag that an event brought."""
        tags = dict.fromkeys(tag for event in self.events for tag in event.tags)
        return {tag: self._interest(tag) for tag in tags}

    def _interest(self, tag: str) -> TagTruth:
        behind = [event for event in self.events if tag in event.tags]
        parts = {e: WEIGHT_OF_KIND[e.kind] / len(e.tags) for e in behind}
        return TagTruth(
            weight=sum(parts[e] * len(e.tags) * self._left(e, self.rules.half_life_ms) for e in behind),
            events=sum(self._left(e, self.rules.half_life_ms) for e in behind),
            last_ts=max(e.ts for e in behind),
            recent=sum(parts[e] * self._left(e, self.rules.recent_half_life_ms) for e in behind),
            short=sum(parts[e] * 0.5 ** ((self.clock - e.number) / 3) for e in behind),
            long=sum(parts[e] * 0.5 ** ((self.clock - e.number) / 20) for e in behind),
            ever=sum(parts[e] for e in behind),
        )

    def _left(self, event: Happened, half_life_ms: float) -> float:
        """What is left of 1 at the user's newest ts."""
        return float(0.5 ** ((self.last_seen - event.ts) / half_life_ms))

    def placed(self, event: Happened) -> Happened:
        """An event that arrives now: how often it was repeated, and its number."""
        items = self.window
        repeats = sum(
            (other.item_id, other.kind) == (event.item_id, event.kind) and abs(other.ts - event.ts) < HOUR_MS
            for other in items
        )
        newer = sum((other.ts, other.kind) > (event.ts, event.kind) for other in items)
        return replace(event, repeats=repeats, number=self.clock - newer if newer else self.clock + 1)

    def count(self, event: Happened) -> None:
        """It happened, as it was `placed`."""
        self.events.append(event)
        self.clock = max(self.clock, event.number)
        newest = sorted([event, *self.window], key=lambda each: (each.ts, each.kind), reverse=True)
        self.window = newest[: self.rules.recent_items]


class Replay:
    """Applies records in the order of arrival. `catalogue` has the tags of each item; records of `items` change it."""

    def __init__(
        self,
        catalogue: Mapping[str, Iterable[str]],
        rules: Rules = Rules(),
        before: Callable[[UserTruth, Happened], None] = lambda *_: None,
    ) -> None:
        self.rules, self._before = rules, before  # told of every event before it is counted
        self.catalogue = {item_id: distinct(tags) for item_id, tags in catalogue.items()}
        self.users: dict[str, UserTruth] = {}
        self.outcomes: Counter[tuple[str, Outcome]] = Counter()  # by topic and outcome
        self._newest_ts: dict[tuple[str, int], int] = {}  # by topic and partition

    def apply(
        self, topic: str, key: bytes | None, value: bytes | None, record_timestamp_ms: int, partition: int
    ) -> Outcome:
        """Take in one record of `clicks`, `purchases` or `items` (names without prefix); says what became of it.

        `invalid` stands for every reason other than the two of time: `tests/test_decode.py` tells those apart.
        """
        if topic == "items":
            outcome = self._apply_item(key, value)
        else:
            outcome = self._apply_event(KIND_OF_TOPIC[topic], key, value, record_timestamp_ms, (topic, partition))
        self.outcomes[topic, outcome] += 1
        return outcome

    def rejected(self, reason: Outcome) -> int:
        """How many records were rejected for `reason`, over all topics."""
        return sum(n for (_, outcome), n in self.outcomes.items() if outcome == reason)

    def _apply_item(self, key: bytes | None, value: bytes | None) -> Outcome:
        if value is None:
            if not key:
                return "invalid"
            self.catalogue.pop(key.decode(), None)
            return "applied"
        item = self._parsed(value)
        if item is None or not _is_item(item) or key != item["item_id"].encode():
            return "invalid"
        self.catalogue[item["item_id"]] = distinct(item["tags"])
        return "applied"

    def _apply_event(
        self, kind: str, key: bytes | None, value: bytes | None, record_timestamp_ms: int, source: tuple[str, int]
    ) -> Outcome:
        event = self._parsed(value)
        if event is None or not _is_event(event, kind) or key != event["user_id"].encode():
            return "invalid"
        if event["ts"] > record_timestamp_ms + self.rules.future_ms:
            return "from_the_future"
        newest_ts = self._newest_ts.get(source, 0)
        if event["ts"] < newest_ts - self.rules.too_old_ms:
            return "too_old"
        self._newest_ts[source] = max(newest_ts, event["ts"])
        return self._remember(kind, event)

    def _remember(self, kind: str, event: dict[str, Any]) -> Outcome:
        user = self.users.setdefault(event["user_id"], UserTruth(self.rules))
        if event["event_id"] in user.seen:
            user.duplicates += 1
            return "duplicate"
        user.seen.append(event["event_id"])
        if len(user.seen) > self.rules.seen_ids:
            user.seen.popleft()
        happened = user.placed(self._happened(kind, event))
        self._before(user, happened)
        user.count(happened)
        return "applied"

    def _happened(self, kind: str, event: dict[str, Any]) -> Happened:
        tags = (*self.catalogue.get(event["item_id"], ()), *distinct(event.get("tags", ())))
        micros = round(Fraction(event["price"]) * event.get("quantity", 1) * 10**6) if kind == "purchase" else 0
        return Happened(
            event["event_id"],
            event["item_id"],
            event["ts"],
            kind,
            tuple(dict.fromkeys(tags)),
            micros,
            event.get("currency", "") if kind == "purchase" else "",
        )

    def _parsed(self, value: bytes | None) -> dict[str, Any] | None:
        if value is None or len(value) > self.rules.max_event_bytes:
            return None
        try:
            parsed = json.loads(value.decode(), parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return None
        return parsed if isinstance(parsed, dict) else None


def distinct(tags: Iterable[str]) -> tuple[str, ...]:
    """The first 16 different tags, without empty ones."""
    return tuple(tag for tag in dict.fromkeys(tags) if tag)[:TAGS_PER_ITEM]


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _is_event(event: dict[str, Any], kind: str) -> bool:
    return (
        all(_is_id(event.get(name)) for name in ("event_id", "user_id", "item_id"))
        and _is_whole(event.get("ts"), 0, 10**4000)
        and _is_tags(event.get("tags", []))
        and _is_text_or_none(event.get("session_id"))
        and (_is_click(event) if kind == "click" else _is_purchase(event))
    )


def _is_click(event: dict[str, Any]) -> bool:
    dwell_ms = event.get("dwell_ms")
    return dwell_ms is None or _is_whole(dwell_ms, 0, 10**4000)


def _is_purchase(event: dict[str, Any]) -> bool:
    return (
        _is_price(event.get("price"))
        and _is_currency(event.get("currency"))
        and _is_whole(event.get("quantity", 1), 1, 10**9)
        and _is_text_or_none(event.get("order_id"))
    )


def _is_item(item: dict[str, Any]) -> bool:
    price, currency = item.get("price"), item.get("currency")
    return (
        _is_id(item.get("item_id"))
        and isinstance(item.get("title"), str)
        and _is_tags(item.get("tags"))
        and _is_text_or_none(item.get("category"))
        and (price is None or _is_price(price))
        and (currency is None or _is_currency(currency))
    )


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= NAME_CHARS


def _is_whole(value: object, low: int, high: int) -> bool:
    """A whole number, written as one: 5.0 is none."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_price(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1e12


def _is_currency(value: object) -> bool:
    return isinstance(value, str) and len(value) == 3 and all("A" <= letter <= "Z" for letter in value)


def _is_tags(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(tag, str) and len(tag) <= NAME_CHARS for tag in value)


def _is_text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)
