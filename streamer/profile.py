"""What goes out: the published profile. Fields only ever get added, with a default."""

from typing import Literal

import msgspec

SCHEMA = 1

What = Literal[
    "interest_added",
    "interest_dropped",
    "interest_shifted",
    "vector_moved",
    "activity",
    "first_profile",
    "heartbeat",
]


class ItemEvent(msgspec.Struct, frozen=True, gc=False):
    """One thing that the user did with an item."""

    item_id: str
    ts: int
    kind: str


class Interest(msgspec.Struct, frozen=True, gc=False):
    """How much a user cares for a tag.

    `weight` is the decayed sum of the weights of the events behind it; `share` is how likely the tag is that of the
    user's next event, `recent` the same if of the user's own history only the short half-life counted; `lift` is
    `share` against all users' share of the tag; `events` the effective (decayed) number of events behind it; `because`
    names recent items that carry the tag.
    """

    tag: str
    weight: float
    share: float
    recent: float
    lift: float
    events: float
    last_ts: int
    because: tuple[ItemEvent, ...] = ()


class Activity(msgspec.Struct, frozen=True, gc=False):
    """What the user did in all: counts, money spent by currency, and when in the day (24 counts by hour, UTC)."""

    clicks: int
    purchases: int
    spend: dict[str, float]
    first_seen: int
    last_seen: int
    by_hour: tuple[int, ...]


class Change(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One reason why this profile was published; `from` and `to` are shares (0..1) of `tag`, or a cosine."""

    what: What
    tag: str | None = None
    before: float | None = msgspec.field(default=None, name="from")
    after: float | None = msgspec.field(default=None, name="to")


class Profile(msgspec.Struct, frozen=True, gc=False):
    """All that is published about one user. `interests` strongest first, `recent_items` newest first."""

    user_id: str
    version: int
    as_of: int
    published_at: int
    interests: tuple[Interest, ...]
    vector: str
    vector_dim: int
    model: str
    activity: Activity
    recent_items: tuple[ItemEvent, ...]
    changed: tuple[Change, ...]
    cause: str
    schema: int = SCHEMA
