"""Scan: plain JSON of user events, from bytes to columns in one kernel.

Plain is what nearly every event is: an object of texts, whole numbers, decimals up to fifteen digits, nulls, booleans
and lists of texts, all ASCII without escapes, every field once and within its limits, under the key of its user. Of
what is not, or may be wrong, the kernel says just that: msgspec looks at it (`pipeline.decode`) and has the last word
on what is accepted, and why not. So a rule stands here only where it takes something in; `tests/test_scan.py` holds
both against each other.

Cost: 0.15 µs for an event of 120 bytes; msgspec takes 0.45 for a struct, which is still to become columns and hashes.
"""

from functools import cache
from typing import Final, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from streamer.events import NAME_CHARS, Kind, Millis, Price, Quantity
from streamer.model.compiled import leaf
from streamer.pipeline.records import Records
from streamer.pipeline.words import LONGEST, equal, first_bytes, hash_text, lowest_bit, word_at

# Every field of a user event, in the order in which most producers write them.
_FIELDS: Final = (
    *("event_id", "user_id", "item_id", "ts", "session_id", "dwell_ms"),
    *("price", "currency", "quantity", "order_id", "tags"),
)
_EVENT, _USER, _ITEM, _TS, _SESSION, _DWELL, _PRICE, _CURRENCY, _QUANTITY, _ORDER, _TAGS = range(len(_FIELDS))
_ABSENT, _TEXT, _NUMBER, _NULL, _LIST, _OTHER = range(6)  # what a field's value is
_DIGITS: Final = 15  # of a number: a float64 holds each such whole number, and each such decimal is a quotient of two
_LATEST, _DEAREST, _MOST = (get_args(limited)[1].le for limited in (Millis, Price, Quantity))
_QUOTE, _ESCAPE, _COMMA, _COLON, _MINUS, _POINT, _ZERO = (ord(c) for c in '"\\,:-.0')
_BEGIN, _END, _LIST_BEGIN, _LIST_END = (ord(c) for c in "{}[]")

_sizes = np.array([len(name) for name in _FIELDS])
_heads = np.array([int.from_bytes(name.encode()[:8], "little") for name in _FIELDS], np.uint64)
_tails = np.array([int.from_bytes(name.encode()[-8:], "little") for name in _FIELDS], np.uint64)
_powers = np.array([10.0**n for n in range(_DIGITS + 1)])
_EACH, _TOP = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_QUOTES, _ESCAPES, _SPACES = _EACH * np.uint64(_QUOTE), _EACH * np.uint64(_ESCAPE), _EACH * np.uint64(0x20)
_TRUE, _FALSE, _NONE = (np.uint64(int.from_bytes(word, "little")) for word in (b"true", b"false", b"null"))


class Scanned(NamedTuple):
    """What is read of n values. Hashes are as `hashing.hash_id` makes them; places are those of a first byte and of the
    one behind the last.
    """

    plain: NDArray[np.bool_]  # where this is not set, nothing else of a value holds
    ts: NDArray[np.int64]  # ms
    event: NDArray[np.uint64]  # hash of the event_id
    item: NDArray[np.uint64]  # hash of the item_id
    micros: NDArray[np.float64]  # price times quantity, in millionths; 0 where there is none
    currency: NDArray[np.uint32]  # three letters as one number; 0 where there is none
    event_at: NDArray[np.int64]  # [n, 2] place of the event_id
    item_at: NDArray[np.int64]  # [n, 2] place of the item_id
    tags_at: NDArray[np.int64]  # [n, 2] place of the JSON list of tags; 0, 0 where it is empty


class _Found(NamedTuple):
    """The fields of one value: what each is, and its place; of texts without the quotes."""

    kind: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]


def scan(kind: Kind, records: Records, longest: int) -> Scanned:
    """Columns over records of a kind of event; none with a value longer than `longest` bytes is plain."""
    n = len(records)
    columns = Scanned(
        np.zeros(n, np.bool_),
        np.zeros(n, np.int64),
        np.zeros(n, np.uint64),
        np.zeros(n, np.uint64),
        np.zeros(n),
        np.zeros(n, np.uint32),
        np.zeros((n, 2), np.int64),
        np.zeros((n, 2), np.int64),
        np.zeros((n, 2), np.int64),
    )
    found = _Found(*(np.zeros(len(_FIELDS), np.int64) for _ in range(3)))
    text, (known, required) = np.frombuffer(records.text, np.uint8), fields_of(kind)
    _scan(text, records.columns.key, records.columns.value, known, required, longest, found, columns)
    return columns


def currency_code(currency: str) -> int:
    """Three letters as one number: `GBP` → 0x504247."""
    return int.from_bytes(currency.encode(), "little")


@cache
def fields_of(kind: Kind) -> tuple[int, int]:
    """Sets of fields, as bits: those that a kind of event knows, and those that it must have.

    It knows none when it has one that nothing is said of here: then none of its events is plain.
    """
    names = kind.struct.__struct_fields__
    fields = [1 << _FIELDS.index(name) for name in names if name in _FIELDS]
    optional = len(kind.struct.__struct_defaults__)
    return sum(fields) if len(fields) == len(names) else 0, sum(fields[: len(names) - optional])


@leaf
def _scan(text, keys, values, known, required, longest, found, out):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        at, end = values[i, 0], values[i, 1]
        if end - at > longest or not _object(text, at, end, known, found):
            continue
        for field in range(len(_sizes)):
            if (required >> field) & 1 and found.kind[field] == _ABSENT:
                break
        else:
            if _take(text, found, i, out):
                start, n = found.start[_USER], found.end[_USER] - found.start[_USER]
                out.plain[i] = n == keys[i, 1] - keys[i, 0] and equal(text, start, keys[i, 0], n)


@leaf
def _object(text, at, end, known, found):  # type: ignore[no-untyped-def]
    """Find the fields of one object from `at` to `end`; whether it is plain so far."""
    found.kind[:] = _ABSENT
    at = _skip_space(text, at, end)
    if at >= end or text[at] != _BEGIN:
        return False
    field = -1
    while True:
        at = _skip_space(text, at + 1, end)  # behind the brace, or a comma
        start, at = _text(text, at, end)
        if start < 0:
            return False
        field = _field(text, start, at - 1 - start, field + 1)
        at = _skip_space(text, at, end)
        if at >= end or text[at] != _COLON:
            return False
        kind, start, behind, at = _value(text, _skip_space(text, at + 1, end), end)
        if kind == _ABSENT:
            return False
        if field >= 0 and (known >> field) & 1:
            if found.kind[field] != _ABSENT:
                return False
            found.kind[field], found.start[field], found.end[field] = kind, start, behind
        at = _skip_space(text, at, end)
        if at >= end or text[at] != _COMMA:
            return at < end and text[at] == _END and _skip_space(text, at + 1, end) == end


@leaf
def _field(text, start, size, likely):  # type: ignore[no-untyped-def]
    """Which field a name is, first asked whether the `likely` one; -1 for another name."""
    if size > 2 * 8:
        return -1
    head = first_bytes(text, start, size)
    tail = word_at(text, start + size - 8) if size > 8 else head
    if likely < len(_sizes) and _heads[likely] == head and _tails[likely] == tail and _sizes[likely] == size:
        return likely
    for field in range(len(_sizes)):
        if _heads[field] == head and _tails[field] == tail and _sizes[field] == size:
            return field
    return -1


@leaf
def _value(text, at, end):  # type: ignore[no-untyped-def]
    """What begins at a place: its kind, its place, and where it ends with its quotes; _ABSENT where it is not plain."""
    if at >= end:
        return _ABSENT, at, at, at
    first = text[at]
    if first == _QUOTE:
        start, behind = _text(text, at, end)
        return _ABSENT if start < 0 else _TEXT, start, behind - 1, behind
    if first == _LIST_BEGIN:
        behind = _list(text, at, end)
        return _ABSENT if behind < 0 else _LIST, at, behind, behind
    if first == _MINUS or _is_digit(first):
        behind = _number(text, at, end)
        return _ABSENT if behind < 0 else _NUMBER, at, behind, behind
    if end - at >= 4 and first_bytes(text, at, 4) == _NONE:
        return _NULL, at, at + 4, at + 4
    if end - at >= 4 and first_bytes(text, at, 4) == _TRUE:
        return _OTHER, at, at + 4, at + 4
    if end - at >= 5 and first_bytes(text, at, 5) == _FALSE:
        return _OTHER, at, at + 5, at + 5
    return _ABSENT, at, at, at


@leaf
def _text(text, at, end):  # type: ignore[no-untyped-def]
    """The text that begins with a quote at a place: where its letters begin, and what is behind its quote; or -1."""
    if at >= end or text[at] != _QUOTE:
        return -1, at
    start = at = at + 1
    while at < end:
        word = word_at(text, at)
        quotes, escapes = word ^ _QUOTES, word ^ _ESCAPES
        # The top bit of each byte that is a quote, an escape, a control character or no ASCII; above the lowest of
        # them such bits may also be of other bytes (Warren, Hacker's Delight, 6-1).
        special = (quotes - _EACH) & ~quotes | (escapes - _EACH) & ~escapes | (word - _SPACES) & ~word | word
        special &= _TOP
        if special:
            at += lowest_bit(special) >> 3
            return (start, at + 1) if at < end and text[at] == _QUOTE else (-1, at)
        at += 8
    return -1, at


@leaf
def _list(text, at, end):  # type: ignore[no-untyped-def]
    """Behind the list of texts that begins at a place; -1 where it is none."""
    at = _skip_space(text, at + 1, end)
    if at < end and text[at] == _LIST_END:
        return at + 1
    while True:
        start, at = _text(text, at, end)
        at = _skip_space(text, at, end)
        if start < 0 or at >= end:
            return -1
        if text[at] == _LIST_END:
            return at + 1
        if text[at] != _COMMA:
            return -1
        at = _skip_space(text, at + 1, end)


@leaf
def _number(text, at, end):  # type: ignore[no-untyped-def]
    """Behind the number that begins at a place; -1 where it has an exponent or more than _DIGITS digits."""
    at += text[at] == _MINUS
    whole = _skip_digits(text, at, end)
    if whole == at or (whole - at > 1 and text[at] == _ZERO):
        return -1
    digits, at = whole - at, whole
    if at < end and text[at] == _POINT:
        at = _skip_digits(text, at + 1, end)
        digits += at - whole - 1
        if at == whole + 1:
            return -1
    return at if digits <= _DIGITS else -1


@leaf
def _skip_digits(text, at, end):  # type: ignore[no-untyped-def]
    while at < end and _is_digit(text[at]):
        at += 1
    return at


@leaf
def _skip_space(text, at, end):  # type: ignore[no-untyped-def]
    while at < end and text[at] <= 0x20 and (text[at] == 0x20 or 0x09 <= text[at] <= 0x0A or text[at] == 0x0D):
        at += 1
    return at


@leaf
def _is_digit(letter):  # type: ignore[no-untyped-def]
    return _ZERO <= letter <= _ZERO + 9


@leaf
def _take(text, found, i, out):  # type: ignore[no-untyped-def]
    """Fields of one event into the columns; whether each is what it has to be."""
    if not (_are_ids(found) and _are_labels(found) and _are_tags(text, found, i, out)):
        return False
    at, size = found.start[_EVENT], found.end[_EVENT] - found.start[_EVENT]
    out.event[i], out.event_at[i, 0], out.event_at[i, 1] = hash_text(text, at, size), at, at + size
    at, size = found.start[_ITEM], found.end[_ITEM] - found.start[_ITEM]
    out.item[i], out.item_at[i, 0], out.item_at[i, 1] = hash_text(text, at, size), at, at + size
    if not _is_whole(text, found, _TS) or (found.kind[_DWELL] == _NUMBER and not _is_whole(text, found, _DWELL)):
        return False
    ts = _decimal(text, found, _TS)
    out.ts[i] = np.int64(ts)
    return ts <= _LATEST and _take_money(text, found, i, out)


@leaf
def _are_ids(found):  # type: ignore[no-untyped-def]
    for field in (_EVENT, _USER, _ITEM):
        if found.kind[field] != _TEXT or not 0 < found.end[field] - found.start[field] <= LONGEST:
            return False
    return True


@leaf
def _are_labels(found):  # type: ignore[no-untyped-def]
    """Whether the optional fields that nothing is read of are as they have to be, but for the number itself."""
    for field, wanted in ((_SESSION, _TEXT), (_ORDER, _TEXT), (_DWELL, _NUMBER)):
        if found.kind[field] != _ABSENT and found.kind[field] != _NULL and found.kind[field] != wanted:
            return False
    return True


@leaf
def _are_tags(text, found, i, out):  # type: ignore[no-untyped-def]
    if found.kind[_TAGS] == _ABSENT:
        return True
    if found.kind[_TAGS] != _LIST:
        return False
    start, end = found.start[_TAGS], found.end[_TAGS]
    if end - start > NAME_CHARS:  # else none of them can be too long
        return False
    if _skip_space(text, start + 1, end) < end - 1:
        out.tags_at[i, 0], out.tags_at[i, 1] = start, end
    return True


@leaf
def _take_money(text, found, i, out):  # type: ignore[no-untyped-def]
    """Price, quantity and currency, where the event has them."""
    if found.kind[_PRICE] == _ABSENT:
        return True
    at, quantity = found.start[_CURRENCY], 1.0
    if found.kind[_PRICE] != _NUMBER or text[found.start[_PRICE]] == _MINUS:
        return False
    if found.kind[_CURRENCY] != _TEXT or found.end[_CURRENCY] - at != 3:
        return False
    for n in range(3):
        if not ord("A") <= text[at + n] <= ord("Z"):
            return False
    if found.kind[_QUANTITY] != _ABSENT:
        if not _is_whole(text, found, _QUANTITY):
            return False
        quantity = _decimal(text, found, _QUANTITY)
    price = _decimal(text, found, _PRICE)
    out.currency[i] = np.uint32(first_bytes(text, at, 3))
    out.micros[i] = np.rint(price * quantity * 1e6)
    return price <= _DEAREST and 1 <= quantity <= _MOST


@leaf
def _is_whole(text, found, field):  # type: ignore[no-untyped-def]
    """Whether a field is a number ≥ 0 without decimals."""
    return found.kind[field] == _NUMBER and _skip_digits(text, found.start[field], found.end[field]) == found.end[field]


@leaf
def _decimal(text, found, field):  # type: ignore[no-untyped-def]
    """A number ≥ 0, rounded once: of two numbers that a float64 holds (Clinger 1990, the fast case)."""
    value, decimals, behind = 0, 0, False
    for at in range(found.start[field], found.end[field]):
        if text[at] == _POINT:
            behind = True
        else:
            value = 10 * value + (text[at] - _ZERO)
            decimals += behind
    return value / _powers[decimals]
