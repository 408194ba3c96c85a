"""What can go wrong in a service that uses the client, besides settings, brokers and topics (`streamer.errors`).

StreamerError
├── InvalidEventError       an event that would be rejected: nothing of it was sent
├── ClosedError             used after its end
└── BrokerError
    ├── DeliveryError       events that are not known to be in Kafka
    └── CommitError         a position that could not be committed
"""

from collections.abc import Sequence

from streamer.errors import BrokerError, StreamerError
from streamer.events import Item, UserEvent


class InvalidEventError(StreamerError):
    """An event that the worker would reject; nothing was sent. The message names the field: mend the event."""


class ClosedError(StreamerError):
    """A subscriber or producer was used after it was closed or had failed. Make a new one."""


class DeliveryError(BrokerError):
    """Kafka has not acknowledged `events` (a deleted item as its item_id). Send them again, or keep them for later.

    Some may have arrived after all: a repeat of an event_id is counted once, and items overwrite themselves.
    """

    def __init__(self, message: str, events: Sequence[UserEvent | Item | str]) -> None:
        super().__init__(message)
        self.events = tuple(events)


class CommitError(BrokerError):
    """The position of the group was not committed: what was handed over since the last commit comes again.

    Most often the partitions went to another member, because an update was worked on for longer than five minutes
    (give `poll_records` a smaller number), or because members joined or left. Go on iterating.
    """
