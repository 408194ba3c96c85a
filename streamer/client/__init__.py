"""What other services import: profiles as they change, events on their way in. Light: no Faust, no numba, no RocksDB.

    ProfileSubscriber   typed profiles and erasures, once a version, from the beginning, from now, or a snapshot first
    EventProducer       clicks, purchases and items: checked, keyed, acknowledged
    AsyncProfileSubscriber, AsyncEventProducer    the same for asyncio

All take their settings from the environment (`STREAMER_BROKERS`, `STREAMER_TOPIC_PREFIX`, and so on) or from
`streamer.settings.load(brokers="kafka:9092")`. What goes wrong is a `streamer.errors.StreamerError`.
"""

from streamer.client.aio import AsyncEventProducer, AsyncProfileSubscriber
from streamer.client.counters import Counters
from streamer.client.errors import ClosedError, CommitError, DeliveryError, InvalidEventError
from streamer.client.producer import EventProducer
from streamer.client.snapshot import Progress
from streamer.client.subscriber import ProfileSubscriber
from streamer.client.updates import Update
from streamer.events import Click, Item, Purchase
from streamer.profile import Profile

__all__ = [
    "AsyncEventProducer",
    "AsyncProfileSubscriber",
    "Click",
    "ClosedError",
    "CommitError",
    "Counters",
    "DeliveryError",
    "EventProducer",
    "InvalidEventError",
    "Item",
    "Profile",
    "ProfileSubscriber",
    "Progress",
    "Purchase",
    "Update",
]
