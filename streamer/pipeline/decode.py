"""Decode: raw records of one topic partition become events; what is bad becomes `Rejected` with its reason. Bad input is data.

A batch is decoded record by record in one C loop (`map`); only when one of it is bad does Python look at each.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.events import KINDS, Item, Kind, UserEvent

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

DETAIL_CHARS = 200  # a header is for people: the record itself is beside it


class Record(Protocol):
    """What decoding needs of a Kafka record (aiokafka's ConsumerRecord fits)."""

    key: bytes | None
    value: bytes | None
    timestamp: int


class Rejected(NamedTuple):
    """A record that is not taken in, and why."""

    index: int  # in the records it came with
    reason: Reason
    detail: str


class Limits(NamedTuple):
    """Bounds on what is accepted; see the settings of the same names."""

    max_event_bytes: int
    future_ms: int
    too_old_ms: int


class Decoded(NamedTuple):
    """The good events of a take, in order, with their places in it; the bad ones apart."""

    events: list[Any]
    index: NDArray[np.int64]
    ts: NDArray[np.int64]
    rejected: list[Rejected]
    newest_ts: int


_DECODERS: dict[int, Callable[[bytes], UserEvent]] = {k.code: msgspec.json.Decoder(k.struct).decode for k in KINDS}
_decode_item = msgspec.json.Decoder(Item).decode
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError)
_currency_is_good = re.compile(r"[A-Z]{3}").fullmatch


def decode_events(kind: Kind, records: Sequence[Record], limits: Limits, newest_ts: int) -> Decoded:
    """Events of one user topic partition, in order.

    `newest_ts` is the newest `ts` (ms) accepted from this partition before; the result has it as it is after.
    """
    events, rejected = _decode_all(_DECODERS[kind.code], records, limits.max_event_bytes)
    _check(events, rejected, records)
    kept = [i for i, event in enumerate(events) if event is not None]
    ts = np.array([events[i].ts for i in kept], np.int64)
    appended_at = np.array([records[i].timestamp for i in kept], np.int64)
    verdict, newest_ts = _check_times(ts, appended_at, limits.future_ms, limits.too_old_ms, newest_ts)
    rejected += [_wrong_time(kept[j], int(verdict[j]), int(ts[j]), limits) for j in np.flatnonzero(verdict).tolist()]
    good = np.flatnonzero(verdict == 0)
    index = np.array(kept, np.int64)[good]
    return Decoded([events[i] for i in index.tolist()], index, ts[good], sorted(rejected), newest_ts)


def decode_items(records: Sequence[Record], limits: Limits) -> tuple[list[tuple[str, Item | None]], list[Rejected]]:
    """Catalogue changes `(item_id, item)`, None for a deletion, in order; and what was rejected."""
    deletions = [record.value is None for record in records]
    events, rejected = _decode_all(_decode_item, records, limits.max_event_bytes, skip=deletions)
    changes: list[tuple[str, Item | None]] = []
    for i, record in enumerate(records):
        item = events[i]
        if deletions[i]:
            item_id = _text(record.key)
            if item_id:
                changes.append((item_id, None))
            else:
                rejected.append(Rejected(i, "key_mismatch", "a deletion needs the item_id in UTF-8 as its key"))
        elif item is not None:
            problem = _key_problem(record.key, item.item_id, "item_id") or _currency_problem(item.currency)
            if problem:
                rejected.append(Rejected(i, *problem))
            else:
                changes.append((item.item_id, item))
    return changes, sorted(rejected)


def _text(key: bytes | None) -> str | None:
    try:
        return key.decode() if key else None
    except UnicodeDecodeError:
        return None


def _decode_all(
    decode: Callable[[bytes], Any], records: Sequence[Record], limit: int, skip: list[bool] | None = None
) -> tuple[list[Any], list[Rejected]]:
    """Every record decoded; None where that failed (or was skipped), with the reason apart."""
    values = [record.value for record in records]
    try:
        if max(map(len, values)) <= limit:  # type: ignore[arg-type]
            return list(map(decode, values)), []  # type: ignore[arg-type]
    except _UNDECODABLE:
        pass
    events: list[Any] = [None] * len(values)
    rejected = []
    for i, value in enumerate(values):
        if skip and skip[i]:
            continue
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
        msgspec.json.decode(value)
    except _UNDECODABLE:
        return False
    return True


def _validation_reason(message: str) -> Reason:
    """msgspec says what is wrong in words only; `tests/test_decode.py` holds them still."""
    if message.startswith("Object missing required field"):
        return "missing_field"
    if re.match(r"Expected `\w+` (?:[<>]|of length|matching|that's)|(?:Number|Integer value) out of range", message):
        return "out_of_range"
    return "wrong_type"


def _check(events: list[Any], rejected: list[Rejected], records: Sequence[Record]) -> None:
    """Checks that the structs cannot make; a bad event becomes None."""
    for i, event in enumerate(events):
        if event is not None and records[i].key != event.user_id.encode():
            rejected.append(Rejected(i, *_key_problem(records[i].key, event.user_id, "user_id")))  # type: ignore[misc]
            events[i] = None
    currencies = {getattr(event, "currency", None) for event in events}
    wrong = {currency for currency in currencies if _currency_problem(currency)}
    if wrong:
        for i, event in enumerate(events):
            if event is not None and event.currency in wrong:
                rejected.append(Rejected(i, *_currency_problem(event.currency)))  # type: ignore[misc]
                events[i] = None


def _key_problem(key: bytes | None, wanted: str, field: str) -> tuple[Reason, str] | None:
    if key == wanted.encode():
        return None
    said = "no key" if key is None else f"key {key[:64]!r}"
    return "key_mismatch", f"{said}, {field} is {wanted[:64]!r}: the key has to be the {field} in UTF-8"


def _currency_problem(currency: str | None) -> tuple[Reason, str] | None:
    if currency is None or _currency_is_good(currency):
        return None
    return "out_of_range", f"currency {currency!r} is not an ISO 4217 code (three capital letters)"


_FUTURE, _OLD = 1, 2


@njit(cache=True)
def _check_times(ts, appended_at, future_ms, too_old_ms, newest_ts):  # type: ignore[no-untyped-def]
    verdict = np.zeros(len(ts), np.uint8)
    for i in range(len(ts)):
        if ts[i] > appended_at[i] + future_ms:
            verdict[i] = _FUTURE
        elif ts[i] < newest_ts - too_old_ms:
            verdict[i] = _OLD
        else:
            newest_ts = max(newest_ts, ts[i])
    return verdict, newest_ts


def _wrong_time(index: int, verdict: int, ts: int, limits: Limits) -> Rejected:
    if verdict == _FUTURE:
        detail = f"ts {ts} is more than {limits.future_ms} ms ahead of the record's Kafka timestamp"
        return Rejected(index, "from_the_future", detail)
    detail = f"ts {ts} is more than {limits.too_old_ms} ms behind the newest event of its topic partition"
    return Rejected(index, "too_old", detail)
