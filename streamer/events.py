"""What comes in: one struct per topic value, and one table of what each kind is. No logic.

Adding a kind of event: write its struct, add a line to `KINDS`. Fields only ever get added, with a default.
"""

from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

# A profile names up to 255 recent items, 24 tags and three items for each tag: with names this long, even of characters
# that JSON writes in six bytes, it stays under the megabyte that a broker takes.
NAME_CHARS = 256
Id = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS)]
Millis = Annotated[int, Meta(ge=0, le=2**43)]  # Unix ms; 2**43 is the year 2248: fits 43 bits in the stored layout
Tags = tuple[Annotated[str, Meta(max_length=NAME_CHARS)], ...]
# The pattern is checked once a distinct code, in pipeline.decode: a regular expression an event would cost the most.
Currency = Annotated[
    str, Meta(min_length=3, max_length=3, description="ISO 4217", extra_json_schema={"pattern": "^[A-Z]{3}$"})
]
Price = Annotated[float, Meta(ge=0, le=1e12)]  # of one unit; the bound keeps sums finite
Quantity = Annotated[int, Meta(ge=1, le=1_000_000_000)]


class Click(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A user looked at an item."""

    event_id: Id
    user_id: Id
    item_id: Id
    ts: Millis
    session_id: str | None = None
    dwell_ms: Annotated[int, Meta(ge=0)] | None = None
    tags: Tags = ()


class Purchase(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A user bought `quantity` of an item at `price` each."""

    event_id: Id
    user_id: Id
    item_id: Id
    ts: Millis
    price: Price
    currency: Currency
    quantity: Quantity = 1
    session_id: str | None = None
    order_id: str | None = None
    tags: Tags = ()


class Item(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An item of the catalogue; the latest value of a key counts, null deletes."""

    item_id: Id
    title: str
    tags: Tags
    category: str | None = None
    price: Price | None = None
    currency: Currency | None = None


UserEvent = Click | Purchase


class Kind(NamedTuple):
    """What the pipeline has to know of a kind of event."""

    code: int  # in stored rows: never changes
    name: str  # in profiles and event lines
    topic: str
    struct: type[Click] | type[Purchase]
    weight: float  # what one event adds to an interest, in clicks


# The closed union of user events: everything that the rest of the code asks about a kind stands here.
KINDS = (
    Kind(code=1, name="click", topic="clicks", struct=Click, weight=1.0),
    Kind(code=2, name="purchase", topic="purchases", struct=Purchase, weight=3.0),
)
KIND_NAMES = {kind.code: kind.name for kind in KINDS}
KIND_OF_TOPIC = {kind.topic: kind for kind in KINDS}
