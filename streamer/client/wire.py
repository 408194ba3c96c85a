"""Events as records: where each type goes, and whether the worker will take it. No Kafka, no clock."""

import re
from typing import Any, NamedTuple

import msgspec

from streamer.client.errors import InvalidEventError
from streamer.events import KINDS, NAME_CHARS, Item, UserEvent
from streamer.settings import Settings


class Route(NamedTuple):
    """Where a type of event goes: contract topic, the field that is the key, and how the worker decodes it."""

    topic: str
    key_field: str
    decoder: msgspec.json.Decoder[Any]


class Outgoing(NamedTuple):
    """A record to be; `topic` without prefix."""

    topic: str
    key: bytes
    value: bytes | None


ROUTES: dict[type, Route] = {
    **{kind.struct: Route(kind.topic, "user_id", msgspec.json.Decoder(kind.struct)) for kind in KINDS},
    Item: Route("items", "item_id", msgspec.json.Decoder(Item)),
}
_encode = msgspec.json.Encoder().encode
_currency_is_good = re.compile(r"[A-Z]{3}").fullmatch  # the structs leave this pattern to those who decode


def outgoing(event: UserEvent | Item, settings: Settings, now_ms: int) -> Outgoing:
    """The record of an event that is sent at `now_ms` (Unix ms). Raises InvalidEventError for what would be rejected.

    A struct checks nothing when it is made, so the very bytes are decoded as the worker will decode them. What is too
    old only the worker can tell: it depends on the other events.
    """
    route = ROUTES.get(type(event))
    if route is None:
        names = ", ".join(kind.__name__ for kind in ROUTES)
        raise InvalidEventError(f"{type(event).__name__} is not an event: send one of {names}")
    try:
        value = _encode(event)
        route.decoder.decode(value)
    except (ValueError, TypeError) as exc:  # msgspec's errors, texts that are not Unicode, values that are not JSON
        raise _invalid(event, str(exc)) from exc
    if problem := _problem(event, len(value), settings, now_ms):
        raise _invalid(event, problem)
    return Outgoing(route.topic, getattr(event, route.key_field).encode(), value)


def deletion(item_id: str) -> Outgoing:
    """The record that forgets an item. Raises InvalidEventError for what is not an id."""
    try:
        key = item_id.encode()
    except (AttributeError, UnicodeEncodeError):
        key = b""
    if not key or len(item_id) > NAME_CHARS:
        wanted = f"a text of 1 to {NAME_CHARS} characters"
        raise InvalidEventError(f"item_id is {item_id!r}: it has to be {wanted}")
    return Outgoing("items", key, None)


def _problem(event: UserEvent | Item, size: int, settings: Settings, now_ms: int) -> str | None:
    """What the struct's own limits do not say."""
    currency = getattr(event, "currency", None)
    if currency is not None and not _currency_is_good(currency):
        return f"currency {currency!r} is not an ISO 4217 code (three capital letters)"
    if size > settings.max_event_bytes:
        return f"{size} bytes, the limit is {settings.max_event_bytes} (STREAMER_MAX_EVENT_BYTES)"
    ahead_ms = getattr(event, "ts", 0) - now_ms
    if ahead_ms > settings.future_ms:
        return f"ts is {ahead_ms} ms ahead of this machine's clock, the limit is {settings.future_ms}: is it in ms?"
    return None


def _invalid(event: UserEvent | Item, problem: str) -> InvalidEventError:
    name = getattr(event, "event_id", None) or getattr(event, "item_id", None)
    return InvalidEventError(f"{type(event).__name__} {name!r} would be rejected: {problem}")
