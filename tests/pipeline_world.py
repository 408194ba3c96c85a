"""One partition from records to profiles, without Kafka, store or clock: what the tests of the pipeline stand on."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.events import KIND_OF_TOPIC, Item
from streamer.model.interests import Scales
from streamer.model.tag_mix import new_learned, new_work
from streamer.pipeline import publish
from streamer.pipeline.assemble import Events, Part
from streamer.pipeline.catalogue import Catalogue
from streamer.pipeline.cut import CHANGED, Candidates, Cut, cut
from streamer.pipeline.decode import Limits, decode_events
from streamer.pipeline.fold import DUPLICATE, Folded, fold
from streamer.pipeline.gate import INTERESTS, Thresholds
from streamer.pipeline.layout import TAGS, Shape, Users, allocate
from streamer.pipeline.publish import Names, Policy, World
from streamer.pipeline.records import Records
from streamer.pipeline.space import ItemSpace
from streamer.profile import Profile

DAY_MS = 86_400_000
T0 = 1_700_000_000_000  # 2023-11-14 22:13:20 UTC
SHAPE = Shape(recent=40, seen=64, vector=8)
LIMITS = Limits(max_event_bytes=65_536, future_ms=300_000, too_old_ms=90 * DAY_MS)
THRESHOLDS = Thresholds(enter=0.02, leave=0.01, shift=0.05, cosine=0.9)
SCALES = Scales(half_life_ms=30.0 * DAY_MS, recent_half_life_ms=float(DAY_MS), smoothing=0.3)
SLOTS = 8

Catalogued = Mapping[str, Sequence[str]]
ITEMS: Catalogued = {
    "mug": ["kitchen", "gift"],
    "pan": ["kitchen"],
    "tent": ["camping"],
    "lamp": ["camping", "light"],
    "card": ["gift", "paper"],
}


class Record(NamedTuple):
    """A record as Kafka would bring it."""

    key: bytes | None
    value: bytes | None
    timestamp: int = T0
    offset: int = 0


def click(event_id: str, item_id: str = "mug", ts: int = T0, user_id: str = "ann", **fields: Any) -> Record:
    """A click, appended at its own time."""
    return _event(fields, event_id=event_id, user_id=user_id, item_id=item_id, ts=ts)


def purchase(event_id: str, item_id: str = "mug", ts: int = T0, user_id: str = "ann", **fields: Any) -> Record:
    """A purchase of one piece for 10 EUR, appended at its own time."""
    money = {"price": 10, "currency": "EUR"}
    return _event({**money, **fields}, event_id=event_id, user_id=user_id, item_id=item_id, ts=ts)


def _event(fields: dict[str, Any], **known: Any) -> Record:
    value = json.dumps({**known, **fields}, ensure_ascii=False).encode()
    return Record(str(known["user_id"]).encode(), value, int(known["ts"]))


class Line:
    """The pipeline of one partition: feed it records, cut it, look at its profiles."""

    def __init__(
        self,
        items: Catalogued = ITEMS,
        shape: Shape = SHAPE,
        thresholds: Thresholds = THRESHOLDS,
        scales: Scales = SCALES,
        interests: int = 20,
    ) -> None:
        self.catalogue = Catalogue(shape.vector)
        for item_id, tags in items.items():
            self.catalogue.describe(Item(item_id, item_id.title(), tuple(tags)))
        self.space = ItemSpace(self.catalogue, shape.recent)
        self.space.refresh()
        self.users: Users = allocate(SLOTS, shape)
        policy = Policy(thresholds, scales, interests)
        self.world = World(self.users, self.space, self.names(), policy, new_learned(), new_work(TAGS))
        self.slot_of: dict[str, int] = {}
        self.causes = [b""] * SLOTS
        self.newest_ts: dict[str, int] = {}
        self.changed: set[int] = set()
        self._batch = 0

    def names(self) -> Names:
        """Names as the catalogue knows them."""
        return Names(self.catalogue.name, self.catalogue.tag_names.get)

    def feed(self, clicks: Iterable[Record] = (), purchases: Iterable[Record] = ()) -> Folded:
        """Decode, assemble and fold one batch of both topics; outcomes stand clicks first."""
        takes = {"clicks": list(clicks), "purchases": list(purchases)}
        parts = [self._decode(topic, records) for topic, records in takes.items() if records]
        events = Events(parts)
        slots = np.array([self.slot(key.decode()) for key in events.keys], np.int64)
        items = self.catalogue.see_all(events.item, events.item_id)
        batch, order = events.columns(slots, items, self.catalogue), events.order()
        self._batch += 1
        folded = fold(self.users, batch, order, self.world.mind, self._batch)
        for i in order[folded.outcome[order] != DUPLICATE].tolist():
            self.causes[slots[i]] = events.event_ids(np.array([i]))[0]
            self.changed.add(int(slots[i]))
        return folded

    def _decode(self, topic: str, records: list[Record]) -> Part:
        kind = KIND_OF_TOPIC[topic]
        decoded = decode_events(kind, Records.of(records), LIMITS, self.newest_ts.get(topic, 0))
        self.newest_ts[topic] = decoded.newest_ts
        return Part(kind, Records.of(records), decoded)

    def slot(self, user_id: str) -> int:
        """The slot of a user, given out in the order of asking."""
        return self.slot_of.setdefault(user_id, len(self.slot_of))

    def slots(self, *user_ids: str) -> NDArray[np.int64]:
        """The slots of users."""
        return np.array([self.slot(user_id) for user_id in user_ids], np.int64)

    def cut(self, now_ms: int = T0, due_ms: int = T0 + 60_000) -> Cut:
        """A checkpoint's cut over all users that changed since the last one."""
        changed, self.changed = sorted(self.changed), set()
        user_of = {slot: user_id for user_id, slot in self.slot_of.items()}
        return self.cut_some(*(user_of[slot] for slot in changed), now_ms=now_ms, due_ms=due_ms)

    def cut_some(self, *user_ids: str, why: int = CHANGED, now_ms: int = T0, due_ms: int = T0 + 60_000) -> Cut:
        """A cut over the given users, whatever happened to them."""
        keys = [user_id.encode() for user_id in user_ids]
        candidates = Candidates(self.slots(*user_ids), np.full(len(keys), why), keys)
        return cut(self.world, candidates, self.causes, now_ms, due_ms)

    def profile(self, user_id: str = "ann") -> Profile:
        """A look at a user, as the HTTP API takes it."""
        slot = self.slot(user_id)
        return publish.profile(self.world, slot, user_id, INTERESTS, self.causes[slot].decode())


def profiles(result: Cut) -> list[Profile]:
    """What a cut publishes, read back from its JSON."""
    return [msgspec.json.decode(publication.value, type=Profile) for publication in result.publications]


def state_of(users: Users) -> bytes:
    """Every bit of every column."""
    return b"".join(column.tobytes() for column in users)
