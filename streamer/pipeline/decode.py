"""Decode: raw records of one topic partition become columns; what is bad becomes `Rejected` with its reason.

Bad input is data: nothing in here raises for it. A kernel reads the plain events of a batch at once (`pipeline.scan`);
msgspec decodes the others one by one, and says what is wrong with the bad ones.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, cast

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.events import KINDS, NAME_CHARS, Item, Kind, Purchase, Tags, UserEvent
from streamer.pipeline.hashing import hash_id
from streamer.pipeline.records import AnyRecord, Records, strings
from streamer.pipeline.scan import Scanned, currency_code, scan

Reason = Literal[
    "malformed_json",
    "missing_field",
    "wrong_type",
    "out_of_range",
    "key_mismatch",
    "too_large",
    "from_the_future",
    "too_old",
]

_NO_DELETION = f"a deletion needs the item_id in UTF-8 as its key, at most {NAME_CHARS} characters"
DETAIL_CHARS = 200  # a header is for people: the record itself is beside it


class Rejected(NamedTuple):
    """A record that is not taken in, and why."""

    place: int  # in the records it came with
    reason: Reason
    detail: str


class Limits(NamedTuple):
    """Bounds on what is accepted; see the settings of the same names."""

    max_event_bytes: int
    future_ms: int
    too_old_ms: int


class Decoded(NamedTuple):
    """The good events of a take in columns, in order, with their places in it; the bad ones apart."""

    columns: Scanned
    text: bytes  # that the places of ids in the columns are in
    tags: dict[int, tuple[str, ...]]  # of events that brought any, by number
    places: NDArray[np.int64]
    appended_at: NDArray[np.int64]  # of their records, ms
    rejected: list[Rejected]
    newest_ts: int

    @property
    def size(self) -> int:
        """How many good events there are."""
        return len(self.places)

    @property
    def ts(self) -> NDArray[np.int64]:
        """When the events happened, ms."""
        return self.columns.ts

    def event_ids(self, some: NDArray[np.int64]) -> list[bytes]:
        """The event_ids of some events, in UTF-8."""
        return strings(self.text, self.columns.event_at[some])

    def item_id(self, i: int) -> str:
        """The item_id of event i."""
        first, behind = self.columns.item_at[i].tolist()
        return self.text[first:behind].decode()


_DECODERS: dict[int, Callable[[bytes], UserEvent]] = {k.code: msgspec.json.Decoder(k.struct).decode for k in KINDS}
_decode_item = msgspec.json.Decoder(Item).decode
_decode_tags = msgspec.json.Decoder(Tags).decode
_skip = msgspec.json.Decoder(msgspec.Raw).decode
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError)
_three_capitals = re.compile(r"[A-Z]{3}").fullmatch


def decode_events(kind: Kind, records: Records, limits: Limits, newest_ts: int) -> Decoded:
    """Events of one user topic partition, in order.

    `newest_ts` is the newest `ts` (ms) accepted from this partition before; the result has it as it is after.
    """
    columns, appended_at = scan(kind, records, limits.max_event_bytes), records.columns.timestamp
    tagged = np.flatnonzero(columns.plain & (columns.tags_at[:, 1] > 0))
    tags = {i: _tags_at(records.text, columns.tags_at[i]) for i in tagged.tolist()}
    rejected, more = _decode_others(kind, records, limits, columns, tags)
    verdict, newest_ts = _check_times(columns, appended_at, limits.future_ms, limits.too_old_ms, newest_ts)
    wrong = [_wrong_time(i, int(verdict[i]), int(columns.ts[i]), limits) for i in np.flatnonzero(verdict).tolist()]
    places = np.flatnonzero(columns.plain & (verdict == 0))
    if len(places) < len(records):
        columns = Scanned._make(column[places] for column in columns)
        appended_at = appended_at[places]
        tags = {n: tags[place] for n, place in enumerate(places.tolist()) if place in tags}
    text = b"".join([records.text, *more]) if more else records.text
    return Decoded(columns, text, tags, places, appended_at, sorted(rejected + wrong), int(newest_ts))


def _tags_at(text: bytes, place: NDArray[np.int64]) -> tuple[str, ...]:
    first, behind = place.tolist()
    return _decode_tags(text[first:behind])


def _decode_others(
    kind: Kind,
    records: Records,
    limits: Limits,
    columns: Scanned,
    tags: dict[int, tuple[str, ...]],
) -> tuple[list[Rejected], list[bytes]]:
    """What the scan left out, one by one: good events into `columns` and `tags`, where they count as plain from here.

    Returns the bad ones, and the ids of the good ones: their places are behind the text of the records.
    """
    rejected, ids, end = list[Rejected](), list[bytes](), len(records.text)
    others = np.flatnonzero(~columns.plain)
    for i, (key, value) in zip(others.tolist(), records.pairs(others), strict=True):
        event = _decode_event(kind, key, value, limits)
        if isinstance(event, tuple):
            rejected.append(Rejected(i, *event))
            continue
        for name, hashes, places in (
            (event.event_id, columns.event, columns.event_at),
            (event.item_id, columns.item, columns.item_at),
        ):
            ids.append(name.encode())
            hashes[i], places[i] = hash_id(name), (end, end + len(ids[-1]))
            end += len(ids[-1])
        columns.plain[i], columns.ts[i] = True, event.ts
        if isinstance(event, Purchase):
            columns.micros[i] = np.rint(event.price * event.quantity * 1e6)
            columns.currency[i] = currency_code(event.currency)
        if event.tags:
            tags[i] = event.tags
    return rejected, ids


def _decode_event(kind: Kind, key: bytes | None, value: bytes | None, limits: Limits) -> UserEvent | tuple[Reason, str]:
    event = _decode_one(_DECODERS[kind.code], value, limits.max_event_bytes)
    if isinstance(event, tuple):
        return event
    if key != event.user_id.encode():
        return _key_mismatch(key, event.user_id, "user_id")
    if isinstance(event, Purchase) and not _is_currency(event.currency):
        return _bad_currency(event.currency)
    return cast("UserEvent", event)


def decode_items(records: Sequence[AnyRecord], limits: Limits) -> tuple[list[tuple[str, Item | None]], list[Rejected]]:
    """Catalogue changes `(item_id, item)`, None for a deletion, in order; and what was rejected."""
    written = [i for i, record in enumerate(records) if record.value is not None]
    items, bad = _decode_all(_decode_item, [records[i] for i in written], limits.max_event_bytes)
    rejected = [Rejected(written[place], reason, detail) for place, reason, detail in bad]
    item_at = dict(zip(written, items, strict=True))
    changes: list[tuple[str, Item | None]] = []
    for i, record in enumerate(records):
        item = item_at.get(i)
        if record.value is not None and item is None:
            continue
        problem = _item_problem(record.key, item)
        if problem:
            rejected.append(Rejected(i, *problem))
        else:
            changes.append(((record.key or b"").decode(), item))
    return changes, sorted(rejected)


def _item_problem(key: bytes | None, item: Item | None) -> tuple[Reason, str] | None:
    if item is None:
        return None if _is_id(key) else ("key_mismatch", _NO_DELETION)
    if key != item.item_id.encode():
        return _key_mismatch(key, item.item_id, "item_id")
    return None if _is_currency(item.currency) else _bad_currency(item.currency)


def _is_id(key: bytes | None) -> bool:
    try:
        return 0 < len((key or b"").decode()) <= NAME_CHARS
    except UnicodeDecodeError:
        return False


def _decode_all(
    decode: Callable[[bytes], Any], records: Sequence[AnyRecord], limit: int
) -> tuple[list[Any], list[Rejected]]:
    """Every record decoded; None where that failed, with the reason apart."""
    values = [record.value for record in records]
    try:
        if max(map(len, values), default=0) <= limit:  # type: ignore[arg-type]  # a None falls through as TypeError
            return list(map(decode, values)), []  # type: ignore[arg-type]
    except _UNDECODABLE:
        pass
    return _decode_each(decode, values, limit)


def _decode_each(
    decode: Callable[[bytes], Any], values: list[bytes | None], limit: int
) -> tuple[list[Any], list[Rejected]]:
    events: list[Any] = [None] * len(values)
    rejected = []
    for i, value in enumerate(values):
        result = _decode_one(decode, value, limit)
        if isinstance(result, tuple):
            rejected.append(Rejected(i, *result))
        else:
            events[i] = result
    return events, rejected


def _decode_one(decode: Callable[[bytes], Any], value: bytes | None, limit: int) -> Any:
    """The event, or `(reason, detail)`."""
    if value is None:
        return "malformed_json", "the value is null: only a deletion of an item may be"
    if len(value) > limit:
        return "too_large", f"{len(value)} bytes, the limit is {limit}"
    try:
        return decode(value)
    except _UNDECODABLE as exc:
        reason: Reason = "malformed_json"
        if isinstance(exc, msgspec.ValidationError) and _is_json(value):
            reason = _validation_reason(str(exc))
        return reason, str(exc)[:DETAIL_CHARS]


def _is_json(value: bytes) -> bool:
    """A struct's decoder stops at the first wrong field: whether the rest is JSON at all is still to be seen."""
    try:
        _skip(value)
    except _UNDECODABLE:
        return False
    return True


def _validation_reason(message: str) -> Reason:
    """msgspec says what is wrong in words only; `tests/test_decode.py` holds them still."""
    if message.startswith("Object missing required field"):
        return "missing_field"
    if re.match(r"(?:Expected `int` <=|Integer value out of range).* - at `\$\.ts`$", message):
        return "from_the_future"  # most often micro- or nanoseconds
    if re.match(r"Expected `\w+` (?:[<>]|of length|matching|that's)|(?:Number|Integer value) out of range", message):
        return "out_of_range"
    return "wrong_type"


def _is_currency(code: str | None) -> bool:
    return code is None or _three_capitals(code) is not None


def _key_mismatch(key: bytes | None, wanted: str, field: str) -> tuple[Reason, str]:
    said = "no key" if key is None else f"key {key[:64]!r}"
    return "key_mismatch", f"{said}, {field} is {wanted[:64]!r}: the key has to be the {field} in UTF-8"


def _bad_currency(code: str | None) -> tuple[Reason, str]:
    return "out_of_range", f"currency {(code or '')[:64]!r} is not an ISO 4217 code (three capital letters)"


_FUTURE, _OLD = 1, 2


@njit(cache=True)
def _check_times(columns, appended_at, future_ms, too_old_ms, newest_ts):  # type: ignore[no-untyped-def]
    ts, verdict = columns.ts, np.zeros(len(columns.ts), np.uint8)
    for i in range(len(ts)):
        if not columns.plain[i]:
            continue
        if ts[i] > appended_at[i] + future_ms:
            verdict[i] = _FUTURE
        elif ts[i] < newest_ts - too_old_ms:
            verdict[i] = _OLD
        else:
            newest_ts = max(newest_ts, ts[i])
    return verdict, newest_ts


def _wrong_time(place: int, verdict: int, ts: int, limits: Limits) -> Rejected:
    if verdict == _FUTURE:
        detail = f"ts {ts} is more than {limits.future_ms} ms ahead of the record's Kafka timestamp"
        return Rejected(place, "from_the_future", detail)
    detail = f"ts {ts} is more than {limits.too_old_ms} ms behind the newest event of its topic partition"
    return Rejected(place, "too_old", detail)
