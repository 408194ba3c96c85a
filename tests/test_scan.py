"""The kernel that scans plain JSON, held against msgspec: what it takes in, msgspec takes in, and reads the same."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from streamer.events import KIND_OF_TOPIC, Click, Kind
from streamer.pipeline.decode import decode_events
from streamer.pipeline.hashing import hash_id
from streamer.pipeline.records import Record, Records
from streamer.pipeline.scan import Scanned, currency_code, scan
from streamer.pipeline.words import LONGEST, SPARE, equal, hash_text
from tests.pipeline_world import LIMITS, T0

CLICKS, PURCHASES = KIND_OF_TOPIC["clicks"], KIND_OF_TOPIC["purchases"]
CLICK = {"event_id": "e-1", "user_id": "ann", "item_id": "mug", "ts": T0}
PURCHASE = {**CLICK, "price": 2.5, "currency": "EUR"}
LIMIT = 65_536


def scanned(kind: Kind, *values: bytes, key: bytes = b"ann", longest: int = LIMIT) -> tuple[Scanned, bytes]:
    records = Records.of(Record(key, value, T0, n) for n, value in enumerate(values))
    return scan(kind, records, longest), records.text


def is_plain(value: bytes, kind: Kind = CLICKS, **options: Any) -> bool:
    return bool(scanned(kind, value, **options)[0].plain[0])


def written(fields: dict[str, Any], **others: Any) -> bytes:
    return json.dumps({**fields, **others}).encode()


def require_alike(kind: Kind, value: bytes) -> bool:
    """What is plain is what msgspec reads; returns whether it is."""
    columns, text = scanned(kind, value)
    if not columns.plain[0]:
        return False
    event: Any = msgspec.json.decode(value, type=kind.struct)
    assert event.user_id == "ann"
    assert int(columns.ts[0]) == event.ts
    for name, hashes, places in (
        (event.event_id, columns.event, columns.event_at),
        (event.item_id, columns.item, columns.item_at),
    ):
        first, behind = places[0].tolist()
        assert text[first:behind].decode() == name
        assert int(hashes[0]) == hash_id(name)
    first, behind = columns.tags_at[0].tolist()
    assert (tuple(json.loads(text[first:behind])) if behind else ()) == event.tags
    if kind is PURCHASES:
        assert columns.micros[0] == np.rint(event.price * event.quantity * 1e6)
        assert int(columns.currency[0]) == currency_code(event.currency)
        assert event.currency.isascii()
        assert event.currency.isupper()
    return True


# What producers write is plain


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (CLICKS, written(CLICK)),
        (CLICKS, json.dumps(CLICK, separators=(",", ":")).encode()),
        (CLICKS, json.dumps(CLICK, indent=4).encode() + b"\r\n\t "),
        (CLICKS, json.dumps(dict(reversed(CLICK.items()))).encode()),
        (CLICKS, written(CLICK, session_id="s", dwell_ms=12_000)),
        (CLICKS, written(CLICK, session_id=None, dwell_ms=None, tags=[])),
        (CLICKS, written(CLICK, tags=["kitchen", "gift"])),
        (CLICKS, written(CLICK, tags=["", "a"])),
        (CLICKS, written(CLICK, ts=0)),
        (CLICKS, written(CLICK, ts=2**43)),
        (CLICKS, written(CLICK, event_id="x" * LONGEST, item_id=" ")),
        (CLICKS, written(CLICK, device="phone", page=-7, ratio=0.25, seen=True, new=False, ref=None, path=["a", "b"])),
        (CLICKS, written(CLICK, price="free", event="e", event_idx="e", user_ids=[], sessionXid=1)),
        (PURCHASES, written(PURCHASE)),
        (PURCHASES, written(PURCHASE, quantity=3, order_id="o", session_id="s")),
        (PURCHASES, written(PURCHASE, quantity=10**9, price=10**12)),
        (PURCHASES, written(PURCHASE, price=0, order_id=None)),
        (PURCHASES, written(PURCHASE, price=0.0001, dwell_ms="long")),
        (PURCHASES, written(PURCHASE, price=123456789012.345)),
    ],
)
def test_what_producers_write_is_plain_and_read_as_msgspec_reads_it(kind: Kind, value: bytes) -> None:
    assert require_alike(kind, value)


# What is not plain is for msgspec to judge


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"{}",
        b"[]",
        b"null",
        written(CLICK)[:-1],
        written(CLICK) + b"x",
        written(CLICK)[:-1] + b",}",
        written(CLICK)[1:],
        b'{"ts":1,' + written(CLICK)[1:],
        written(CLICK).replace(b'"mug"', b'"m\\u0075g"'),
        written(CLICK).replace(b'"mug"', '"müg"'.encode()),
        written(CLICK).replace(b'"mug"', b'"m\ng"'),
        written(CLICK).replace(b'"mug"', b'"m\0g"'),
        written(CLICK).replace(b'"item_id"', b'"item\\u005fid"'),
        written(CLICK).replace(b": ", b" "),
        written(CLICK).replace(b", ", b" "),
        written(CLICK, item_id=""),
        written(CLICK, item_id=7),
        written(CLICK, item_id=None),
        written(CLICK, item_id="x" * (LONGEST + 1)),
        written(CLICK, user_id="bob"),
        written(CLICK, user_id="an"),
        written(CLICK, user_id="anna"),
        written(CLICK, ts=-1),
        written(CLICK, ts=-0.0),
        written(CLICK, ts=float(T0)),
        written(CLICK, ts=2**43 + 1),
        written(CLICK, ts=10**30),
        written(CLICK, ts=str(T0)),
        written(CLICK, ts=True),
        written(CLICK, ts=None),
        written(CLICK).replace(b'"ts": ', b'"ts": 0'),
        written(CLICK).replace(b'"ts": ', b'"ts": +'),
        written(CLICK, session_id=5),
        written(CLICK, dwell_ms=-1),
        written(CLICK, dwell_ms=1.5),
        written(CLICK, dwell_ms="1"),
        written(CLICK, tags=None),
        written(CLICK, tags="kitchen"),
        written(CLICK, tags=[1]),
        written(CLICK, tags=["a", None]),
        written(CLICK, tags=["x" * 257]),
        written(CLICK).replace(b"}", b', "tags": ["a",]}'),
        written(CLICK).replace(b"}", b', "tags": ["a" "b"]}'),
        written(CLICK).replace(b"}", b', "tags": ["a"'),
        written(CLICK, other={"nested": 1}),
        written(CLICK).replace(b"}", b', "x": 1e5}'),
        written(CLICK).replace(b"}", b', "x": 1.}'),
        written(CLICK).replace(b"}", b', "x": .5}'),
        written(CLICK).replace(b"}", b', "x": -}'),
        written(CLICK).replace(b"}", b', "x": 01}'),
        written(CLICK).replace(b"}", b', "x": nul}'),
        written(CLICK).replace(b"}", b', "x": tru'),
        written(CLICK).replace(b"}", b', "x": falsy}'),
        written(CLICK).replace(b"}", b', "x": nully}'),
    ],
    ids=lambda value: repr(value)[-40:],
)
def test_what_may_be_wrong_is_not_plain(value: bytes) -> None:
    assert not is_plain(value)


@pytest.mark.parametrize(
    "fields",
    [
        *({name: None} for name in ("price", "currency", "quantity")),
        *({"price": price} for price in (-0.01, -0.0, 1e22, 1.000001e12, "2.5", True, 1234567.123456789)),
        *({"currency": currency} for currency in ("eur", "EU", "EURO", "E\tR", "[]{", 978)),
        *({"quantity": quantity} for quantity in (0, -1, 10**9 + 1, 1.0, "1")),
        {"order_id": 5},
    ],
    ids=str,
)
def test_a_purchase_that_may_be_wrong_is_not_plain(fields: dict[str, Any]) -> None:
    assert not is_plain(written(PURCHASE, **fields), PURCHASES)


@pytest.mark.parametrize("name", PURCHASE)
def test_an_event_without_a_field_that_it_needs_is_not_plain(name: str) -> None:
    value = json.dumps({key: field for key, field in PURCHASE.items() if key != name}).encode()
    assert not is_plain(value, PURCHASES)


def test_what_is_longer_than_the_limit_is_not_plain() -> None:
    value = written(CLICK)
    assert is_plain(value, longest=len(value))
    assert not is_plain(value, longest=len(value) - 1)


def test_nothing_reads_on_into_the_next_value() -> None:
    whole, half = written(CLICK), written(CLICK)[:-1]
    columns, _ = scanned(CLICKS, half, b"}", whole, b" ", half, whole[1:], b"", whole)
    assert columns.plain.tolist() == [False, False, True, False, False, False, False, True]


def test_a_kind_of_event_with_a_field_that_nothing_is_said_of_is_left_to_msgspec() -> None:
    class Search(Click):
        query: str = ""

    kind = CLICKS._replace(struct=Search)
    assert require_alike(CLICKS, written(CLICK))
    assert not is_plain(written(CLICK), kind)
    assert not is_plain(written(CLICK, query="tent"), kind)
    records = Records.of([Record(b"ann", written(CLICK), T0, 0)])
    assert decode_events(kind, records, LIMITS, 0).size == 1


# Against msgspec, whatever comes

fields = st.fixed_dictionaries(
    {"event_id": st.text(max_size=20), "user_id": st.just("ann"), "item_id": st.text('ab"\\\u00e9 ', max_size=9)},
    optional={
        "ts": st.integers(-1, 2**44),
        "price": st.floats(-1, 2e12) | st.decimals(0, 1000, places=2).map(float) | st.integers(),
        "currency": st.sampled_from(["EUR", "USD", "eur", ""]),
        "quantity": st.integers(-1, 2 * 10**9) | st.floats(0, 9),
        "tags": st.lists(st.text("abc", max_size=4) | st.integers(), max_size=3) | st.text(max_size=2),
        "session_id": st.none() | st.text(max_size=3),
        "dwell_ms": st.none() | st.integers(),
        "order_id": st.none() | st.booleans(),
        "x": st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=3),
    },
)


@given(st.sampled_from([CLICKS, PURCHASES]), fields, st.booleans())
def test_no_event_is_read_otherwise_than_msgspec_reads_it(kind: Kind, event: dict[str, Any], ascii_only: bool) -> None:
    require_alike(kind, json.dumps(event, ensure_ascii=ascii_only).encode())


@given(
    st.sampled_from([(CLICKS, written(CLICK, tags=["a"], dwell_ms=5)), (PURCHASES, written(PURCHASE, quantity=2))]),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 2), st.sampled_from(b'",:.{}[]\\ 0159-+eEn\n\x7f\x80\xc3'))),
)
def test_no_damage_makes_the_scan_take_what_msgspec_does_not(
    start: tuple[Kind, bytes], damage: list[tuple[int, int, int]]
) -> None:
    kind, value = start[0], bytearray(start[1])
    for place, width, byte in damage[:4]:
        value[place : place + width] = bytes([byte])
    require_alike(kind, bytes(value))


@given(st.decimals(0, 10**12, allow_nan=False, places=4), st.integers(1, 10**6))
def test_money_is_rounded_as_msgspec_and_numpy_round_it(price: Any, quantity: int) -> None:
    value = written(PURCHASE, quantity=quantity).replace(b"2.5", str(price).encode())
    require_alike(PURCHASES, value)


# Words


@given(st.binary(min_size=1, max_size=LONGEST), st.integers(0, 9))
@example(b"x" * LONGEST, 0)
@example(b"\0", 1)
def test_the_hash_is_xxh3(text: bytes, before: int) -> None:
    data = np.frombuffer(bytes(before) + text + bytes(SPARE), np.uint8)
    assert int(hash_text(data, before, len(text))) == (xxhash.xxh3_64_intdigest(text) or 1)


@pytest.mark.parametrize("size", range(1, LONGEST + 1))
def test_the_hash_is_xxh3_at_every_length(size: int) -> None:
    text = bytes((7 * n + size) % 256 for n in range(size))
    data = np.frombuffer(text + bytes(SPARE), np.uint8)
    assert int(hash_text(data, 0, size)) == xxhash.xxh3_64_intdigest(text)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_texts_are_equal_where_all_their_bytes_are(one: bytes, other: bytes) -> None:
    n = min(len(one), len(other))
    text = np.frombuffer(one + other + bytes(SPARE), np.uint8)
    assert equal(text, 0, len(one), n) == (one[:n] == other[:n])
    assert equal(text, 0, 0, len(one))
