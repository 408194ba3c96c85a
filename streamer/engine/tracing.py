"""Trace context (W3C, w3.org/TR/trace-context): from the event that caused a profile to the profile's headers.

Whoever subscribes goes on with the trace of the click, under the span that sent it. Kept in memory only: of a change
that is held back while its worker ends, the trace is lost, the change is not.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

from streamer.engine.transactions import Headers
from streamer.errors import SettingsError
from streamer.pipeline.assemble import Events
from streamer.settings import Settings

if TYPE_CHECKING:  # with the extra `otel` only
    from streamer.engine.spans import Spans

PARENT, STATE = "traceparent", "tracestate"
MOST_BYTES: Final = (
    512  # of either; it is what the recommendation asks of everyone to pass on. Longer ones are left out
)
USERS: Final = 100_000  # whose changes wait with a trace, some 300 bytes each; beyond it all are forgotten
_is_parent = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?").fullmatch
_EXACT: Final = 55  # bytes of version 00, which has nothing behind the flags


class Traces:
    """The trace contexts behind changes of one partition's users that are not published yet."""

    def __init__(self) -> None:
        self._of: dict[bytes, Headers] = {}

    def note(self, events: Events, applied: NDArray[Any]) -> None:
        """Events were applied: `applied` are their numbers, in order."""
        if not self._of and not any(part.records.have_headers for part in events.parts):
            return
        keys = events.keys
        latest = {keys[i]: i for i in applied.tolist()}  # of a user's events the last counts
        for key, i in latest.items():
            self._set(key, context(events.record(i).headers))
        if len(self._of) > USERS:
            self._of.clear()

    def _set(self, key: bytes, found: Headers) -> None:
        """As the profile's `cause` is the latest event's, so is the trace."""
        if found:
            self._of[key] = found
        else:
            self._of.pop(key, None)

    def take(self, keys: Iterable[bytes]) -> dict[bytes, Headers]:
        """The contexts of users whose profiles go out; forgotten here."""
        return {key: self._of.pop(key) for key in keys if key in self._of} if self._of else {}


def context(headers: Iterable[tuple[str, bytes | None]]) -> Headers:
    """The trace context among a record's headers, as headers; empty where there is none that holds.

    >>> context([("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("via", b"shop")])
    [('traceparent', b'00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01')]
    """
    found = dict(_named(headers))
    parent, state = found.get(PARENT, b""), found.get(STATE, b"")
    most = _EXACT if parent.startswith(b"00") else MOST_BYTES
    if len(parent) > most or not _is_parent(parent):
        return []
    return [(PARENT, parent), (STATE, state)] if 0 < len(state) <= MOST_BYTES else [(PARENT, parent)]


def _named(headers: Iterable[tuple[str, bytes | None]]) -> Iterator[tuple[str, bytes]]:
    for name, value in headers:
        if value is not None and name in {PARENT, STATE}:
            yield name, value


def spans_of(settings: Settings) -> "Callable[[int], Spans | None]":
    """Makes the spans of a partition, None where nobody collects them. Raises SettingsError without the extra."""
    if not settings.otlp_url:
        return lambda partition: None
    try:
        from streamer.engine.spans import Spans, tracer
    except ImportError as exc:
        raise SettingsError(f"STREAMER_OTLP_URL needs OpenTelemetry ({exc}): pip install 'streamer[otel]'") from exc
    return partial(Spans, tracer(settings))
